//! Tokens that were seen, and tokens that weren't: who may present which, across restarts, and what the client is told.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use interceptor::record::event::{Verdict, What};
use interceptor_tests::daemon::{Daemon, GRAPH_TARGET, Order, UID};
use interceptor_tests::entra::Entra;
use interceptor_tests::entra::directory::{
    BILLING, CLUSTER, CLUSTER_HOST, CONTOSO, CRM, FABRIKAM, FEDERATION_AUDIENCE, GRAPH,
};
use interceptor_tests::entra::flow::Flow;
use interceptor_tests::graph::Graph;
use interceptor_tests::{recorded, require_root};

use super::fixture::{POLICY, Scene, Sdk, URL};

/// A second workload, for the same user.
fn other() -> String {
    format!("[[workload]]\nname = \"other\"\nmatch = {{ uid = {UID} }}\n")
}

#[test]
fn stolen_foreign_and_unseen_tokens_get_nowhere_each_for_its_own_reason() -> Result<()> {
    require_root!(Ok(()));
    let scene = Scene::new(POLICY, &other())?;
    let token = scene.token("crm")?;
    let (status, said) = scene.ask("crm", &token)?;
    ensure!(status == 200 && said.contains("Adele Vance"), "{said}");
    let before = scene.graph.received().len();

    let unseen = scene.entra.app_token(CONTOSO, BILLING, GRAPH)?.build()?;
    let stranger = scene.entra.app_token(FABRIKAM, CRM, GRAPH)?.build()?;
    for (workload, token, status, code) in [
        ("other", &token, 403, "token-of-another-workload"),
        ("crm", &unseen, 401, "token-not-seen"),
        ("crm", &stranger, 403, "tenant-not-listed"),
        ("crm", &"opaque".to_owned(), 403, "foreign-credential"),
    ] {
        let mark = recorded::last(&scene.daemon.database())?;
        let (answered, said) = scene.ask(workload, token)?;
        ensure!(answered == status && said.contains(code), "{code}: {said}");
        ensure!(said.contains("insufficient_claims") == (status == 401), "{code}: {said}");
        let fits = |one: &recorded::Operation| one.code.as_deref() == Some(code) && one.outcome.is_some();
        let operation = recorded::wait_for(&scene.daemon.database(), mark, fits)?;
        ensure!(operation.action == "http:GET", "{operation:?}");
    }
    for (header, name) in
        [("Cookie: a=b", "cookie"), ("X-Api-Key: k", "x-api-key"), ("Authorization: Basic eDp5", "basic")]
    {
        let (status, said) = scene.curl("crm", &["-H", header, URL])?;
        ensure!(status == 403 && said.contains("foreign-credential") && said.contains(name), "{header}: {said}");
    }
    let (status, said) = scene.curl("crm", &[&format!("{URL}?sig=s3cr3t")])?;
    ensure!(status == 403 && said.contains("`?sig`"), "{said}");
    ensure!(scene.graph.received().len() == before, "something reached Graph");

    // What was issued is in the record; the tokens themselves are nowhere.
    ensure!(scene.issued()?.len() == 1, "{:?}", scene.issued()?);
    scene.daemon.ask(&["sessions", "verify"])?;
    let state = scene.daemon.room().join("state");
    let secret = CRM.secret.unwrap_or_default();
    for needle in [token.as_str(), token.rsplit('.').next().unwrap_or_default(), unseen.as_str(), secret, "s3cr3t"] {
        let found = std::process::Command::new("grep").args(["-rlaF", "--", needle]).arg(&state).output()?;
        ensure!(found.stdout.is_empty(), "{needle} is in {}", String::from_utf8_lossy(&found.stdout));
        ensure!(!scene.daemon.log().contains(needle), "{needle} is in the log");
    }
    scene.finish()
}

#[test]
fn a_cached_token_outlives_the_daemon_that_saw_it_issued() -> Result<()> {
    require_root!(Ok(()));
    let mut scene = Scene::new(POLICY, "")?;
    let token = scene.token("crm")?;
    ensure!(scene.ask("crm", &token)?.0 == 200);
    scene.daemon.kill9()?;
    scene.daemon.restart()?;
    let (status, said) = scene.ask("crm", &token)?;
    ensure!(status == 200, "{said}");
    scene.finish()
}

/// What a service challenges is dead here too: the SDK signs in anew.
#[test]
fn a_services_challenge_passes_and_ends_the_token() -> Result<()> {
    require_root!(Ok(()));
    let scene = Scene::new(POLICY, "")?;
    for sdk in [Sdk::Python, Sdk::Node] {
        scene.entra.challenge(1);
        let issued = scene.issued()?.len();
        let told = scene.sign_in(sdk, Flow::ClientSecret)?;
        ensure!(told.pipeline == Some(200) && told.error.is_none(), "{sdk:?}: {told:?}");
        // What was recorded a moment ago is on its way into the database.
        let deadline = Instant::now() + Duration::from_secs(20);
        while scene.issued()?.len() < issued + 2 {
            ensure!(Instant::now() < deadline, "{sdk:?}: {:?}", scene.issued()?);
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    scene.finish()
}

/// What an SDK signs in anew by is in the head: under masks it gets that though the body is withheld, and the token is dead.
#[test]
fn a_challenge_whose_body_cant_be_masked_passes_without_it_and_ends_the_token() -> Result<()> {
    require_root!(Ok(()));
    let policy = POLICY.replace("@id(\"read\")", "@id(\"read\") @mask(\"pii\")");
    let scene = Scene::new(&policy, "[[mask]]\nname = \"pii\"\njson = [\"$..mobilePhone\"]\n")?;
    let token = scene.token("crm")?;
    scene.entra.challenge(1);
    let bearer = format!("Authorization: Bearer {token}");
    let (status, said) = scene.curl("crm", &["-H", &bearer, "-H", "Accept: text/plain", URL])?;
    let (head, body) = said.split_once("\r\n\r\n").context("no head")?;
    let head = head.to_lowercase();
    ensure!(status == 401 && body.is_empty() && head.contains("insufficient_claims"), "{said}");
    ensure!(head.contains("content-length: 0") && !head.contains("content-type"), "{said}");
    let (status, said) = scene.ask("crm", &token)?;
    ensure!(status == 401 && said.contains("token-ended"), "{said}");
    // The connection upstream on which the rest of the body lay is nobody's.
    let renewed = scene.token("crm")?;
    let (status, said) = scene.ask("crm", &renewed)?;
    ensure!(status == 200, "{said}");
    scene.finish()
}

/// A cached token whose provenance is lost, as if it had been issued behind our back, costs one challenge; then the SDK
/// has one that was seen.
#[test]
fn an_sdk_answers_our_challenge_by_signing_in_through_us() -> Result<()> {
    require_root!(Ok(()));
    let mut scene = Scene::new(POLICY, "")?;
    let mut python = scene.stay()?;
    let (mut input, output) = (python.stdin.take().context("its input")?, python.stdout.take().context("its output")?);
    let mut lines = BufReader::new(output).lines();
    let mut ask = || -> Result<String> {
        input.write_all(b"\n")?;
        Ok(lines.next().context("it ended")??)
    };
    ensure!(ask()? == "200");
    scene.daemon.kill9()?;
    std::fs::remove_file(scene.daemon.room().join("state/provenance.key"))?;
    scene.daemon.restart()?;
    let mark = recorded::last(&scene.daemon.database())?;
    ensure!(ask()? == "200", "{}", scene.daemon.log());
    ensure!(ask()? == "200");
    recorded::wait_for(&scene.daemon.database(), mark, |one| {
        one.action == "http:GET" && one.verdict == Verdict::Allow
    })?;
    let asked: Vec<_> = recorded::operations(&scene.daemon.database(), mark)?
        .into_iter()
        .filter(|one| one.target.as_deref() == Some("graph") && one.action == "http:GET")
        .map(|one| one.code)
        .collect();
    ensure!(asked == [Some("token-not-seen".to_owned()), None, None], "{asked:?}");
    drop((input, lines));
    python.wait()?;
    scene.finish()
}

/// Graph's tokens tell no groups: they are asked of the directory, or whoever needs them is denied.
#[test]
fn groups_that_a_token_does_not_tell_are_looked_up_or_denied() -> Result<()> {
    require_root!(Ok(()));
    let policy = POLICY
        .replace(r#"@id("read") permit (principal,"#, r#"@id("read") permit (principal in Group::"crm-readers","#);
    let folder = tempfile::tempdir()?;
    let secret = folder.path().join("directory");
    std::fs::write(&secret, CRM.secret.unwrap_or_default())?;
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600))?;
    let directory = format!("directory = {{ client = \"{}\", secret_file = \"{}\" }}", CRM.id, secret.display());
    let scene = Scene::with_tenant(&policy, &directory, "")?;
    let (member, other) = (scene.token("crm")?, scene.token_of(BILLING, "crm")?);
    let (status, said) = scene.ask("crm", &member)?;
    ensure!(status == 200, "{said}\n{}", scene.daemon.log());
    let (status, said) = scene.ask("crm", &other)?;
    ensure!(status == 403 && said.contains("denied-by-default"), "{said}");
    scene.finish()?;

    let scene = Scene::new(&policy, "")?;
    let member = scene.token("crm")?;
    let (status, said) = scene.ask("crm", &member)?;
    ensure!(status == 403 && said.contains("groups-unknown"), "{said}");
    scene.finish()
}

#[test]
fn only_listed_tenants_are_signed_in_to() -> Result<()> {
    require_root!(Ok(()));
    let scene = Scene::new(POLICY, "")?;
    let form = format!(
        "grant_type=client_credentials&client_id={}&client_secret={}&scope=https://graph.microsoft.com/.default",
        CRM.id,
        CRM.secret.unwrap_or_default()
    );
    for (tenant, code) in [
        (FABRIKAM.id, "tenant-not-listed"),
        (FABRIKAM.domain, "tenant-not-listed"),
        ("consumers", "tenant-not-listed"),
        ("nobody.example", "tenant-unknown"),
        ("not~a~tenant", "tenant-malformed"),
    ] {
        let asked = scene.entra.received().len();
        let url = format!("https://login.microsoftonline.com/{tenant}/oauth2/v2.0/token");
        let (status, said) = scene.curl("crm", &["-d", &form, &url])?;
        ensure!(status == 403 && said.contains(code), "{tenant}: {said}");
        let asked: Vec<_> = scene.entra.received().split_off(asked).into_iter().map(|one| one.path).collect();
        ensure!(!asked.iter().any(|path| path.contains("token")), "{tenant}: {asked:?}");
    }
    // By its domain name, a listed one is; and Entra is told which tenants may be signed in to.
    let url = format!("https://login.microsoftonline.com/{}/oauth2/v2.0/token", CONTOSO.domain);
    let (status, said) = scene.curl("crm", &["-H", "Restrict-Access-To-Tenants: evil", "-d", &form, &url])?;
    ensure!(status == 200, "{said}");
    let last = scene.entra.received().pop().and_then(|one| one.header("restrict-access-to-tenants").map(str::to_owned));
    ensure!(last.as_deref() == Some(CONTOSO.id), "{last:?}");
    scene.finish()
}

#[test]
fn a_token_request_is_decided_by_who_asks_for_what() -> Result<()> {
    require_root!(Ok(()));
    let policy = format!(
        "{POLICY}\n@id(\"own-app\") @reason(\"other applications sign in elsewhere\") forbid (principal, action == \
         Action::\"token:request\", resource) unless {{ context.token.client == \"{}\" }};",
        CRM.id
    );
    let scene = Scene::new(&policy, "")?;
    scene.token("crm")?;
    let url = format!("https://login.microsoftonline.com/{}/oauth2/v2.0/token", CONTOSO.id);
    let form = |client: &str, secret: &str, scope: &str| {
        format!("grant_type=client_credentials&client_id={client}&client_secret={secret}&scope={scope}")
    };
    let graph = "https://graph.microsoft.com/.default";
    let (billing, crm) = (BILLING.secret.unwrap_or_default(), CRM.secret.unwrap_or_default());
    for (form, status, code) in [
        (form(BILLING.id, billing, graph), 403, "denied-by-policy"),
        (form(CRM.id, crm, "https://management.azure.com/.default"), 403, "not-a-target"),
        (form(CRM.id, crm, ""), 400, "token-request-incomplete"),
        (form(CRM.id, crm, graph) + "&client_id=x", 400, "token-request-duplicate-field"),
        (form(CRM.id, crm, &format!("{graph}%20api://orders/.default")), 400, "token-request-two-audiences"),
    ] {
        let (answered, said) = scene.curl("crm", &["-d", &form, &url])?;
        ensure!(answered == status && said.contains(code), "{code}: {said}");
    }
    ensure!(scene.entra.issued().len() == 1, "{:?}", scene.entra.issued());
    scene.finish()
}

/// A connection knows the token again that came last; one that differs in a character of its signature is another.
#[test]
fn a_token_that_is_nearly_the_last_one_gets_nowhere() -> Result<()> {
    require_root!(Ok(()));
    let scene = Scene::new(POLICY, "")?;
    let token = scene.token("crm")?;
    let (start, last) = token.split_at(token.len() - 20);
    let other = if last.starts_with('A') { "B" } else { "A" };
    let forged = format!("{start}{other}{}", &last[1..]);
    ensure!(forged.len() == token.len() && forged != token);
    let bearers = [&token, &token, &token, &forged, &token].map(|token| format!("Authorization: Bearer {token}"));
    // One connection for all, as curl keeps it.
    let mut arguments = Vec::new();
    for bearer in &bearers {
        let next: &[&str] = if arguments.is_empty() { &[] } else { &["--next", "-sSi"] };
        arguments.extend_from_slice(next);
        arguments.extend(["-H", bearer, "https://graph.microsoft.com/v1.0/users"]);
    }
    let before = scene.graph.connections();
    let said = scene.curl("crm", &arguments)?.1;
    // A head follows the body before it without a line's end.
    let statuses: Vec<&str> = said.split("HTTP/").skip(1).filter_map(|head| head.split_whitespace().nth(1)).collect();
    ensure!(statuses == ["200", "200", "200", "401", "200"] && said.contains("token-not-seen"), "{said}");
    ensure!(scene.graph.connections() == before + 1, "it was more than one connection");
    scene.finish()
}

#[test]
fn the_record_names_who_asked_and_explains_it() -> Result<()> {
    require_root!(Ok(()));
    let scene = Scene::new(POLICY, "")?;
    let token = scene.token("crm")?;
    ensure!(scene.ask("crm", &token)?.0 == 200);
    let list = scene.daemon.ask(&["sessions", "list"])?;
    ensure!(list.contains("crm-bot"), "{list}");
    let operation = recorded::wait_for(&scene.daemon.database(), 0, |one| one.action == "http:GET")?;
    let session = operation.session.map(|session| session.to_string()).unwrap_or_default();
    let shown = scene.daemon.json(&["sessions", "show", &session])?;
    let of =
        &shown["operations"].as_array().and_then(|all| all.iter().find(|one| one["action"] == "http:GET")).cloned();
    let of = of.clone().unwrap_or_default();
    let principal = format!("{}/{}", CONTOSO.id, CRM.principal(CONTOSO).unwrap_or_default());
    ensure!(of["identity"]["principal"] == principal && of["credential"] == "entra", "{of}");
    ensure!(of["identity"]["client"] == CRM.id && of["names"][&principal] == "crm-bot", "{of}");
    ensure!(of["names"][CRM.id] == "crm-app" && of["initiator"] == UID, "{of}");
    let told = scene.daemon.ask(&["policy", "explain", &operation.id.to_string()])?;
    for part in ["crm-bot", &principal, "crm-app", "issued-here", "https://graph.microsoft.com"] {
        ensure!(told.contains(part), "{part} isn't in:\n{told}");
    }
    scene.finish()
}

/// A provider that isn't Entra: a cluster's, whose tokens are projected into a file and verified by its published keys.
#[test]
fn tokens_of_another_issuer_are_verified_and_name_its_subjects() -> Result<()> {
    require_root!(Ok(()));
    let (entra, graph) = (Entra::start(&[])?, Graph::start(&[])?);
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("token");
    let subject = CRM.federated.context("a federation")?;
    let policy = format!(
        r#"@id("reach") permit (principal, action in Action::"reach", resource);
@id("pod") permit (principal == Identity::"cluster/{subject}", action in Action::"http:read", resource)
  when {{ context.base.authentic == "signature" && context.base.bound == "token-file" && context.base.tenant == "cluster" }};"#
    );
    let order = Order {
        purpose: "identity",
        targets: format!("{GRAPH_TARGET}audiences = [\"{FEDERATION_AUDIENCE}\"]\n"),
        workload: format!("identity = {{ source = \"token-file\", path = \"{}\" }}", file.display()),
        more: format!("[[issuer]]\nname = \"cluster\"\nurl = \"{CLUSTER}\"\naudiences = [\"{FEDERATION_AUDIENCE}\"]\n"),
        resolve: vec![
            ("graph.microsoft.com".to_owned(), graph.address()),
            (CLUSTER_HOST.to_owned(), entra.places().login),
        ],
        extra_ca: entra.ca_pem() + &graph.ca_pem(),
        bring: Vec::new(),
        ..Order::for_graph(&graph, &policy)
    };
    let daemon = Daemon::start(&order)?;
    let ask = |token: &str| -> Result<String> {
        let bearer = format!("Authorization: Bearer {token}");
        let output = daemon.run(&["curl", "-sS", "-i", "--max-time", "20", "-H", &bearer, URL]).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let token = entra.federated_token(subject)?.build()?;
    let said = ask(&token)?;
    ensure!(said.contains("token-not-seen"), "it isn't in the file yet: {said}");
    entra.project(subject, &file)?;
    let projected = std::fs::read_to_string(&file)?;
    let said = ask(&projected)?;
    ensure!(said.contains("Adele Vance"), "{said}\n{}", daemon.log());
    let forged = entra.federated_token(subject)?.spoilt().build()?;
    std::fs::write(&file, &forged)?;
    let said = ask(&forged)?;
    ensure!(said.contains("token-signature"), "{said}");
    let said = ask(&projected)?;
    ensure!(said.contains("Adele Vance"), "its clients can't have looked again yet: {said}");
    let changed = std::fs::File::options().append(true).open(&file)?;
    changed.set_modified(changed.metadata()?.modified()? - Duration::from_secs(121))?;
    let said = ask(&projected)?;
    ensure!(said.contains("token-ended"), "it isn't in the file any more: {said}");
    let other = entra.federated_token("system:serviceaccount:other:mcp")?.build()?;
    std::fs::write(&file, &other)?;
    let said = ask(&other)?;
    ensure!(said.contains("denied-by-default"), "{said}");
    daemon.finish()
}

/// A pin holds where tokens are issued as well, and what it leaves is asked for in one way.
#[test]
fn token_requests_are_within_the_pin_and_read_in_one_way() -> Result<()> {
    require_root!(Ok(()));
    let policy = r#"
@id("reach") permit (principal, action in Action::"reach", resource);
@id("tokens") permit (principal, action == Action::"token:request", resource == Target::"graph");
"#;
    let (entra, graph) = (Entra::start(&[])?, Graph::start(&[])?);
    let login = format!(
        "[[target]]\nname = \"entra\"\nhosts = [\"login.microsoftonline.com\"]\npin = {{ path_prefix = \"/{}/\" }}\n",
        CONTOSO.id
    );
    let order = Order {
        purpose: "identity",
        targets: format!("{GRAPH_TARGET}{login}"),
        more: format!("[[tenant]]\nid = \"{}\"\n", CONTOSO.id),
        resolve: vec![
            ("graph.microsoft.com".to_owned(), graph.address()),
            ("login.microsoftonline.com".to_owned(), entra.places().login),
        ],
        extra_ca: entra.ca_pem() + &graph.ca_pem(),
        bring: Vec::new(),
        ..Order::for_graph(&graph, policy)
    };
    let daemon = Daemon::start(&order)?;
    let form =
        format!("grant_type=client_credentials&client_id={}&client_secret={}", CRM.id, CRM.secret.unwrap_or_default());
    let graph_form = format!("{form}&scope=https://graph.microsoft.com/.default");
    let (own, common) = (format!("/{}/oauth2/v2.0/token", CONTOSO.id), "/common/oauth2/v2.0/token".to_owned());
    let utf16 = "Content-Type: application/x-www-form-urlencoded; charset=utf-16";
    for (path, form, header, expected) in [
        (own.clone(), &graph_form, "X-Client-Sku: test", "access_token"),
        (format!("{own}?client-request-id=1&haschrome=1"), &graph_form, "X-Client-Sku: test", "access_token"),
        (common, &graph_form, "X-Client-Sku: test", "outside-pin"),
        (own.clone(), &graph_form, utf16, "token-request-ambiguous"),
        (format!("{own}?scope=openid"), &graph_form, "X-Client-Sku: test", "token-request-ambiguous"),
        (own, &(form + "&audience=https://graph.microsoft.com"), "X-Client-Sku: test", "token-request-incomplete"),
    ] {
        let url = format!("https://login.microsoftonline.com{path}");
        let output = daemon.run(&["curl", "-sS", "--max-time", "20", "-H", header, "-d", form, &url]).output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(said.contains(expected), "{path}: {said}\n{}", daemon.log());
    }
    ensure!(entra.issued().len() == 2, "{:?}", entra.issued());
    daemon.finish()
}

/// Waits until the stream has begun, and until it was cut; gives how many seconds that was after the token was issued that is
/// known of last by then. Both are the daemon's times: the record may be behind.
pub(crate) fn cut(
    scene: &Scene,
    stream: &mut Child,
    mark: u64,
    code: &str,
    then: impl FnOnce() -> Result<()>,
) -> Result<f64> {
    let database = scene.daemon.database();
    recorded::wait_for(&database, mark, |one| one.summary == "GET /stream")?;
    then()?;
    let is_cut = |what: &What| matches!(what, What::OperationFinished { outcome, .. } if outcome == code);
    let cut = recorded::wait_for_event(&database, mark, is_cut)?;
    ensure!(!stream.wait()?.success(), "the client takes it for the whole: {cut:?}");
    let mut events = recorded::events(&database, 0)?.into_iter().map(|(_, event)| event);
    let issued = events.rfind(|event| matches!(event.what, What::TokenIssued(_))).context("none is issued")?;
    Ok(cut.at.duration_since(issued.at).as_secs_f64())
}

#[test]
fn what_a_token_lets_through_ends_with_it() -> Result<()> {
    require_root!(Ok(()));
    let scene = Scene::new(POLICY, "")?;
    // Tokens are accepted for a minute after their end (RFC 7519 section 4.1.4 lets them be); by Graph not at all.
    scene.graph.trust_all();
    scene.entra.set_lifetime(Some(-50));
    let token = scene.token("crm")?;
    let mark = recorded::last(&scene.daemon.database())?;
    let mut stream = scene.stream("crm", &token)?;
    let lived = cut(&scene, &mut stream, mark, "token-expired", || Ok(()))?;
    ensure!(lived < 11.0, "it went on for {lived} s");
    ensure!(scene.ask("crm", &token)?.1.contains("token-expired"), "it is accepted still");
    scene.finish()
}

/// A scene whose policy lets those read who have a role.
fn where_a_role_permits() -> Result<Scene> {
    let role = format!("{}/https://graph.microsoft.com/User.Read.All", CONTOSO.id);
    let policy = POLICY
        .replace(r#"@id("read") permit (principal,"#, &format!(r#"@id("read") permit (principal in Role::"{role}","#));
    Scene::new(&policy, "")
}

#[test]
fn a_role_that_a_newer_token_lacks_is_lost_at_once() -> Result<()> {
    require_root!(Ok(()));
    let scene = where_a_role_permits()?;
    let token = scene.token("crm")?;
    ensure!(scene.ask("crm", &token)?.0 == 200, "the role permits nothing");
    let mark = recorded::last(&scene.daemon.database())?;
    let mut stream = scene.stream("crm", &token)?;
    let took = cut(&scene, &mut stream, mark, "groups-changed", || {
        scene.entra.take_role("User.Read.All");
        scene.token("crm").map(drop)
    })?;
    ensure!(took < 1.0, "it went on for {took} s");
    // What the issuer said last counts for the older token as well.
    let (status, said) = scene.ask("crm", &token)?;
    ensure!(status == 403 && said.contains("denied-by-default"), "{said}");
    scene.finish()
}

/// A connection's token is judged once only for as long as nothing else is known of it.
#[test]
fn a_connection_that_goes_on_asking_loses_the_role_too() -> Result<()> {
    require_root!(Ok(()));
    let scene = where_a_role_permits()?;
    let token = scene.token("crm")?;
    let mark = recorded::last(&scene.daemon.database())?;
    let mut client = scene.asking_twice("crm", &token)?;
    recorded::wait_for(&scene.daemon.database(), mark, |one| one.summary == "GET /v1.0/users")?;
    scene.entra.take_role("User.Read.All");
    scene.token("crm")?;
    // Now the second request: the client waits to be told.
    drop(client.stdin.take());
    let mut said = String::new();
    client.stdout.take().context("its output")?.read_to_string(&mut said)?;
    client.wait()?;
    ensure!(said.contains("200 first False") && said.contains("403 second True"), "{said}");
    scene.finish()
}
