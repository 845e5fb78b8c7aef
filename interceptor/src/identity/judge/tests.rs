//! A table of tokens as workloads present them, and of answers that are observed: each with what is made of it.

use serde_json::{Value, json};

use super::*;
use crate::clock::ManualClock;
use crate::config::{Hostname, Pin, Protocol};
use crate::identity::FetchError;
use crate::identity::fixture::{AUDIENCE, NOW, OBJECT, OTHER_TENANT, Script, TENANT, claims, jwk, now, sign, token};
use crate::identity::overage::GraphRequest;
use crate::policy::{Principal, PrincipalKind};

mod sign_in;

const GRAPH: &str = "https://graph.microsoft.com";
const KEYS: &str = "https://login.microsoftonline.com/keys";

/// A directory that answers with one group.
struct OneGroup;

impl Directory for OneGroup {
    fn ask<'a>(
        &'a self,
        _tenant: TenantId,
        _request: &'a GraphRequest,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<bytes::Bytes, FetchError>> + Send + 'a>> {
        Box::pin(async { Ok(json!({ "value": [OBJECT] }).to_string().into()) })
    }
}

struct Bench {
    judge: Judge,
    identities: Identities,
    network: Arc<Script>,
    clock: Arc<ManualClock>,
    _state: tempfile::TempDir,
}

fn bench() -> Bench {
    let state = tempfile::tempdir().unwrap();
    let network = Arc::new(Script::default());
    let v2 = format!("https://login.microsoftonline.com/{TENANT}/v2.0");
    let discovery = |issuer: &str, keys: &str| json!({ "issuer": issuer, "jwks_uri": keys });
    network.answer(&format!("{v2}/.well-known/openid-configuration"), discovery(&v2, KEYS));
    network.answer(KEYS, json!({ "keys": [jwk(0, "one", json!({}))] }));
    let pass = "https://pass.example";
    network.answer(&format!("{pass}/.well-known/openid-configuration"), discovery(pass, "https://pass.example/keys"));
    network.answer("https://pass.example/keys", json!({ "keys": [jwk(0, "one", json!({}))] }));
    let login: Hostname = "login.microsoftonline.com".parse().unwrap();
    let directory = config::Directory { client: OBJECT.parse().unwrap(), secret_file: "/x".into() };
    let identities = Identities {
        tenants: vec![config::Tenant {
            id: TENANT.parse().unwrap(),
            domains: vec!["contoso.example".parse().unwrap()],
            login,
            audiences: vec![AUDIENCE.into()],
            directory: Some(directory),
        }],
        issuers: vec![config::Issuer {
            name: "pass".parse().unwrap(),
            url: pass.into(),
            host: "pass.example".parse().unwrap(),
            audiences: vec!["crm".into()],
            jwks_uri: None,
        }],
        ..Identities::default()
    };
    let clock = Arc::new(ManualClock::at(now()));
    let key = DigestKey::open(state.path()).unwrap();
    let judge = Judge::new(key, [], Arc::clone(&network) as _, Arc::new(OneGroup), Arc::clone(&clock) as _);
    Bench { judge, identities, network, clock, _state: state }
}

/// `graph` takes Graph's tokens, `crm` those of [`AUDIENCE`] and of the other issuer.
fn target(name: &str, hosts: &[&str], audiences: &[&str]) -> Target {
    Target {
        name: name.parse().unwrap(),
        hosts: hosts.iter().map(|host| host.parse().unwrap()).collect(),
        ports: vec![443],
        protocol: Protocol::Http,
        cleartext: false,
        credential: None,
        issues: None,
        audiences: audiences.iter().map(|audience| (*audience).to_owned()).collect(),
        accept_foreign: Vec::new(),
        pin: Pin::default(),
        masks: Vec::new(),
    }
}

fn graph() -> Target {
    target("graph", &["graph.microsoft.com"], &[])
}

fn crm() -> Target {
    target("crm", &["crm.example"], &[AUDIENCE, "crm"])
}

fn answer(token: &str) -> Answer {
    Answer::parse(json!({ "access_token": token, "expires_in": 3600, "token_type": "Bearer" }).to_string().as_bytes())
        .unwrap()
}

impl Bench {
    /// What an answer of this endpoint gives to `crm`.
    fn issue_at(
        &self,
        kind: Kind,
        tenant: Option<Tenant>,
        token: &str,
    ) -> Result<Option<(Digest, Issued)>, JudgeError> {
        let workload = "crm".parse().unwrap();
        let audiences = [GRAPH.to_owned()];
        // The endpoint of an issuer that isn't Entra is that of `pass`.
        let pass = "pass".parse().unwrap();
        let issuer = (kind == Kind::Oidc).then_some(&pass);
        let asked = Asked { kind, issuer, workload: &workload, tenant, audiences: &audiences };
        self.judge.issue(&self.identities, &answer(token), asked)
    }

    /// Lets `crm` be issued a token by the login host.
    fn issue(&self, token: &str) {
        let tenant = Some(Tenant::One(TENANT.parse().unwrap()));
        let (digest, issued) = self.issue_at(Kind::Entra, tenant, token).unwrap().unwrap();
        self.judge.accept(digest, issued).unwrap();
    }

    async fn present_from(
        &self,
        source: &IdentitySource,
        workload: &str,
        target: &Target,
        token: &str,
    ) -> Result<Judged, JudgeError> {
        let workload = workload.parse().unwrap();
        self.judge.judge(&self.identities, Presented { token, workload: &workload, source, target }).await
    }

    /// `ours`, `foreign` or the code of the refusal.
    async fn present(&self, workload: &str, target: &Target, token: &str) -> &'static str {
        match self.present_from(&IdentitySource::Observed, workload, target, token).await {
            Ok(Judged::Ours { .. }) => "ours",
            Ok(Judged::Foreign) => "foreign",
            Err(error) => error.code(),
        }
    }
}

/// Graph's token: a v1 issuer, a nonce in the header, Graph's own audience.
fn graph_token(changes: Value) -> String {
    let mut all = json!({
        "iss": format!("https://sts.windows.net/{TENANT}/"), "aud": GRAPH, "ver": "1.0", "appid": OBJECT, "azp": null,
    });
    for (name, value) in changes.as_object().unwrap() {
        all[name] = value.clone();
    }
    sign(0, r#"{"typ":"JWT","alg":"RS256","kid":"one","nonce":"n"}"#, &claims(all).to_string())
}

#[tokio::test(start_paused = true)]
async fn provenance_decides_who_may_present_a_token() {
    let bench = bench();
    let token = graph_token(json!({}));
    assert_eq!(bench.present("crm", &graph(), &token).await, "token-not-seen");
    bench.issue(&token);
    assert_eq!(bench.present("crm", &graph(), &token).await, "ours");
    assert_eq!(bench.present("batch", &graph(), &token).await, "token-of-another-workload");
    assert_eq!(bench.present("crm", &crm(), &token).await, "token-audience");
    // Another token is another token, however alike.
    assert_eq!(bench.present("crm", &graph(), &graph_token(json!({ "uti": "x" }))).await, "token-not-seen");
    let digest = bench.judge.key.digest(&token);
    assert!(bench.judge.challenged(&digest) && !bench.judge.challenged(&digest));
    assert_eq!(bench.present("crm", &graph(), &token).await, "token-ended");
    bench.issue(&token);
    assert_eq!(bench.present("crm", &graph(), &token).await, "ours");
    bench.clock.set(Timestamp::from_second(NOW + 3661).unwrap());
    assert_eq!(bench.present("crm", &graph(), &token).await, "token-expired");
}

#[tokio::test(start_paused = true)]
async fn what_a_token_says_of_its_issuer_decides_whose_it_is() {
    let bench = bench();
    let other = |iss: &str| graph_token(json!({ "iss": iss, "tid": OTHER_TENANT }));
    let table = [
        // An Entra tenant that isn't listed is refused on every target, however the token is written.
        (other(&format!("https://sts.windows.net/{OTHER_TENANT}/")), "tenant-not-listed"),
        (other(&format!("https://login.microsoftonline.com/{OTHER_TENANT}/v2.0")), "tenant-not-listed"),
        // Nobody's issuer, whatever tenant it names: not a token that this host knows anything of.
        (other("https://evil.example/"), "foreign"),
        (graph_token(json!({ "iss": format!("https://evil.example/{TENANT}/v2.0") })), "foreign"),
        (graph_token(json!({ "iss": null })), "foreign"),
        ("opaque".into(), "foreign"),
        ("a.b".into(), "foreign"),
        (sign(0, r#"{"alg":"none"}"#, &claims(json!({})).to_string()), "foreign"),
        (sign(0, r#"{"alg":"HS256"}"#, &claims(json!({})).to_string()), "foreign"),
        // What reads in two ways is refused even where others would be accepted.
        (sign(0, r#"{"alg":"RS256","alg":"RS256"}"#, &claims(json!({})).to_string()), "token-duplicate-key"),
        (sign(0, r#"{"alg":"RS256","crit":["x"]}"#, &claims(json!({})).to_string()), "token-critical-header"),
        (graph_token(json!({ "exp": "soon" })), "token-claim-malformed"),
    ];
    for (token, expected) in table {
        assert_eq!(bench.present("crm", &graph(), &token).await, expected, "{token}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_issued_must_be_of_the_tenant_that_was_asked() {
    let bench = bench();
    let code = |result: Result<Option<(Digest, Issued)>, JudgeError>| match result {
        Ok(Some(_)) => "issued",
        Ok(None) => "nothing",
        Err(error) => error.code(),
    };
    let one = |id: &str| Some(Tenant::One(id.parse().unwrap()));
    let stranger =
        graph_token(json!({ "iss": format!("https://sts.windows.net/{OTHER_TENANT}/"), "tid": OTHER_TENANT }));
    let (ours, any) = (graph_token(json!({})), Some(Tenant::Any));
    let pass = token(&claims(json!({ "iss": "https://pass.example", "aud": "crm", "ver": null })));
    let table = [
        (Kind::Entra, one(TENANT), &ours, "issued"),
        (Kind::Entra, any, &ours, "issued"),
        (Kind::Entra, one(OTHER_TENANT), &ours, "token-tenant"),
        (Kind::Entra, any, &stranger, "tenant-not-listed"),
        (Kind::Imds, None, &ours, "issued"),
        (Kind::Imds, None, &stranger, "tenant-not-listed"),
        (Kind::Entra, any, &"opaque".to_owned(), "token-not-compact"),
        (Kind::Entra, any, &graph_token(json!({ "exp": NOW - 61 })), "token-expired"),
        (Kind::Entra, any, &graph_token(json!({ "exp": null })), "token-claim-missing"),
        (Kind::Entra, any, &graph_token(json!({ "oid": null })), "token-claim-missing"),
        (Kind::Entra, any, &graph_token(json!({ "tid": OTHER_TENANT })), "token-tenant"),
        // A login host of Entra doesn't speak for another issuer.
        (Kind::Entra, any, &pass, "token-issuer"),
        (Kind::Imds, None, &pass, "token-issuer"),
        (Kind::Oidc, None, &pass, "issued"),
        // And another issuer doesn't speak for Entra.
        (Kind::Oidc, None, &ours, "token-issuer"),
    ];
    for (kind, tenant, token, expected) in table {
        assert_eq!(code(bench.issue_at(kind, tenant, token)), expected, "{kind:?} {tenant:?} {token}");
    }
    let mut two = bench.identities.clone();
    let other = config::Issuer {
        name: "other".parse().unwrap(),
        url: "https://other.example".into(),
        ..two.issuers[0].clone()
    };
    two.issuers.push(other);
    let (workload, pass_itself) = ("crm".parse().unwrap(), "pass".parse().unwrap());
    let asked =
        Asked { kind: Kind::Oidc, issuer: Some(&pass_itself), workload: &workload, tenant: None, audiences: &[] };
    let others = token(&claims(json!({ "iss": "https://other.example", "aud": "crm", "ver": null })));
    assert_eq!(bench.judge.issue(&two, &answer(&others), asked).unwrap_err().code(), "token-issuer");
    let empty = Answer::parse(br#"{"user_code":"ABC","device_code":"x"}"#).unwrap();
    let (workload, audiences) = ("crm".parse().unwrap(), Vec::new());
    let asked = Asked { kind: Kind::Entra, issuer: None, workload: &workload, tenant: any, audiences: &audiences };
    assert!(bench.judge.issue(&bench.identities, &empty, asked).unwrap().is_none());
}

/// Provenance alone isn't enough where the configuration names the audience.
#[tokio::test(start_paused = true)]
async fn tokens_of_configured_audiences_are_verified_as_well() {
    let bench = bench();
    let (good, forged) = (
        token(&claims(json!({}))),
        sign(1, r#"{"typ":"JWT","alg":"RS256","kid":"one"}"#, &claims(json!({})).to_string()),
    );
    let unknown = sign(0, r#"{"typ":"JWT","alg":"RS256","kid":"two"}"#, &claims(json!({})).to_string());
    for token in [&good, &forged, &unknown] {
        bench.issue(token);
    }
    assert_eq!(bench.present("crm", &crm(), &good).await, "ours");
    assert_eq!(bench.present("crm", &crm(), &forged).await, "token-signature");
    assert_eq!(bench.present("crm", &crm(), &unknown).await, "token-key-unknown");
    assert_eq!(bench.network.asked(KEYS), 1);
    assert_eq!(
        bench.judge.freshness(),
        [(format!("https://login.microsoftonline.com/{TENANT}/v2.0"), Freshness::Fresh)]
    );
}

#[tokio::test(start_paused = true)]
async fn a_token_file_binds_what_it_holds_now_and_nothing_else() {
    let bench = bench();
    let file = bench._state.path().join("token");
    let source = IdentitySource::TokenFile(file.clone());
    let (one, two) = (token(&claims(json!({}))), token(&claims(json!({ "uti": "two" }))));
    std::fs::write(&file, format!("{one}\n")).unwrap();
    let crm = crm();
    let judged = bench.present_from(&source, "crm", &crm, &one).await.unwrap();
    let Judged::Ours { issued, digest, is_new: true, is_verified: true } = judged else { panic!("{judged:?}") };
    assert_eq!((issued.bound, issued.authentic), (Bound::TokenFile, Authentic::Signature));
    bench.judge.accept(digest, issued.as_ref().clone()).unwrap();
    let again = bench.present_from(&source, "crm", &crm, &one).await.unwrap();
    assert!(matches!(again, Judged::Ours { is_new: false, .. }), "{again:?}");
    assert_eq!(bench.present_from(&source, "crm", &crm, &two).await.unwrap_err().code(), "token-not-seen");
    std::fs::write(&file, &two).unwrap();
    assert!(bench.present_from(&source, "crm", &crm, &two).await.is_ok());
    // The token before it is good for as long as its clients may not have looked again, then it is over, however long it would
    // live; and good again where the file is as it was.
    assert!(bench.present_from(&source, "crm", &crm, &one).await.is_ok());
    let changed = std::fs::File::options().append(true).open(&file).unwrap();
    let then = changed.metadata().unwrap().modified().unwrap() - std::time::Duration::from_secs(121);
    changed.set_modified(then).unwrap();
    assert_eq!(bench.present_from(&source, "crm", &crm, &one).await.unwrap_err().code(), "token-ended");
    std::fs::write(&file, &one).unwrap();
    assert!(bench.present_from(&source, "crm", &crm, &one).await.is_ok());
    assert_eq!(bench.present("crm", &crm, &one).await, "token-ended", "the workload has no file any more");
    // A file that the workload could have written proves nothing: its token is verified.
    let forged = sign(1, r#"{"alg":"RS256","kid":"one"}"#, &claims(json!({})).to_string());
    std::fs::write(&file, &forged).unwrap();
    assert_eq!(bench.present_from(&source, "crm", &crm, &forged).await.unwrap_err().code(), "token-signature");
}

/// What Kubernetes projects is a link to a link; what isn't a file is never waited for.
#[tokio::test(start_paused = true)]
async fn a_token_file_may_be_a_link_but_no_pipe() {
    let bench = bench();
    let place = |name: &str| bench._state.path().join(name);
    let (token, crm) = (token(&claims(json!({}))), crm());
    std::fs::write(place("real"), &token).unwrap();
    std::os::unix::fs::symlink("real", place("data")).unwrap();
    std::os::unix::fs::symlink("data", place("token")).unwrap();
    let source = IdentitySource::TokenFile(place("token"));
    assert!(bench.present_from(&source, "crm", &crm, &token).await.is_ok());
    nix::unistd::mkfifo(&place("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    for other in ["pipe", "", "nothing"] {
        let source = IdentitySource::TokenFile(place(other));
        let code = bench.present_from(&source, "crm", &crm, &token).await.unwrap_err().code();
        assert_eq!(code, "token-not-seen", "{other}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_token_says_becomes_the_principal() {
    let bench = bench();
    let groups = json!({ "groups": [OBJECT], "roles": ["Crm.Read"], "scp": "User.Read", "idtyp": "user" });
    bench.issue(&token(&claims(groups.clone())));
    let crm = crm();
    let judged = bench.present_from(&IdentitySource::Observed, "crm", &crm, &token(&claims(groups))).await.unwrap();
    let Judged::Ours { issued, .. } = judged else { panic!("{judged:?}") };
    assert_eq!(issued.principal.as_str(), format!("{TENANT}/{OBJECT}"));
    assert_eq!(issued.kind, PrincipalKind::User);
    assert_eq!(issued.groups, Some(vec![format!("{TENANT}/{OBJECT}")]));
    assert_eq!(issued.roles, [format!("{TENANT}/{AUDIENCE}/Crm.Read")]);
    // What the token doesn't say is asked of the directory.
    bench.issue(&graph_token(json!({})));
    let judged = bench.present_from(&IdentitySource::Observed, "crm", &graph(), &graph_token(json!({}))).await.unwrap();
    let Judged::Ours { issued, .. } = judged else { panic!("{judged:?}") };
    assert_eq!(issued.groups, None);
    let principal = Principal {
        id: issued.principal.clone(),
        kind: issued.kind,
        client: None,
        groups: None,
        roles: Vec::new(),
        authentic: issued.authentic,
        bound: issued.bound,
    };
    // Two tokens were issued by then; the answer is believed for five minutes.
    let groups = vec![format!("{TENANT}/{OBJECT}")];
    let expected = LookedUp { groups, until: now() + jiff::SignedDuration::from_mins(5), seen: 2 };
    let found = bench.judge.groups(&bench.identities, &principal, 0).await;
    assert_eq!(found, Some(expected));
    let mut without = bench.identities.clone();
    without.tenants[0].directory = None;
    assert_eq!(bench.judge.groups(&without, &principal, 0).await, None);
}

#[tokio::test(start_paused = true)]
async fn tenants_are_resolved_before_they_are_looked_for_in_the_list() {
    let bench = bench();
    let login = "login.microsoftonline.com";
    let discovery = |domain: &str| format!("https://{login}/{domain}/v2.0/.well-known/openid-configuration");
    let issuer = format!("https://{login}/{OTHER_TENANT}/v2.0");
    bench.network.answer(&discovery("other.example"), json!({ "issuer": issuer }));
    let found = async |segment: &str| bench.judge.tenant(&bench.identities, login, segment).await;
    assert_eq!(found("CONTOSO.example").await, Ok(Tenant::One(TENANT.parse().unwrap())));
    assert_eq!(bench.network.asked(&discovery("contoso.example")), 0);
    assert_eq!(found("other.example").await, Ok(Tenant::One(OTHER_TENANT.parse().unwrap())));
    assert_eq!(found("common").await, Ok(Tenant::Any));
    assert_eq!(found("consumers").await, Ok(Tenant::One("9188040d-6c67-4c5b-b112-36a304b66dad".parse().unwrap())));
    assert!(found("nobody.example").await.is_err());
}
