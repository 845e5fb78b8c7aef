//! Groups that are lost while something goes on that they permit: told by the next token, or looked up when it comes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use interceptor::record::event::What;
use interceptor_tests::entra::DeviceAnswer;
use interceptor_tests::entra::directory::{ADELE, ALEX, CONTOSO, CRM, CRM_READERS, ORDERS_APP, TOOL};
use interceptor_tests::{recorded, require_root};
use serde_json::Value;
use tempfile::TempDir;

use super::fixture::{POLICY, Scene};
use super::tokens::cut;

/// What a person's token is asked for. The resource's tokens tell groups, as far as they fit; Graph's don't.
const SCOPE: &str = "api://legacy/legacy.use%20offline_access";

/// Only those read who are in a group.
const MEMBERS: &str = r#"
@id("members") forbid (principal, action in Action::"http:read", resource == Target::"graph")
  unless { principal in Group::"crm-readers" };
"#;

/// Only those write who are in a group, and once people have said yes.
const HELD: &str = r#"
@id("writes") @approval("crm-approvers") permit (principal, action in Action::"http:write", resource == Target::"graph");
@id("members") forbid (principal, action in Action::"http:write", resource == Target::"graph")
  unless { principal in Group::"crm-readers" };
"#;

/// A local user who is asked.
const ADA: u32 = 61_301;

/// A scene whose policy has these rules besides, with tokens for an API that stands where Graph does. `tenant`, `more`: as in
/// [`Scene::ordered`].
fn scene(rules: &str, (tenant, more): (&str, &str)) -> Result<Scene> {
    let scene = Scene::ordered(&format!("{POLICY}{rules}"), (tenant, more), |order| {
        let hosts = "hosts = [\"graph.microsoft.com\"]\n";
        order.targets = order.targets.replace(hosts, &format!("{hosts}audiences = [\"api://legacy\"]\n"));
    })?;
    scene.graph.trust_all();
    Ok(scene)
}

/// The same, with a credential by which the daemon looks groups up.
fn scene_with_directory(rules: &str, more: &str) -> Result<(Scene, TempDir)> {
    let folder = tempfile::tempdir()?;
    let secret = folder.path().join("directory");
    fs::write(&secret, CRM.secret.unwrap_or_default())?;
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600))?;
    let directory = format!("directory = {{ client = \"{}\", secret_file = \"{}\" }}", CRM.id, secret.display());
    Ok((scene(rules, (&directory, more))?, folder))
}

/// What the login host answers to this form, inside the workload.
fn post(scene: &Scene, place: &str, form: &str) -> Result<Value> {
    let url = format!("https://login.microsoftonline.com/{}/oauth2/v2.0/{place}", CONTOSO.id);
    let (status, said) = scene.curl("crm", &["-d", form, &url])?;
    ensure!(status == 200, "{said}");
    serde_json::from_str(said.split("\r\n\r\n").last().unwrap_or_default()).with_context(|| said.clone())
}

fn text(answer: &Value, name: &str) -> Result<String> {
    Ok(answer[name].as_str().with_context(|| format!("no {name} in {answer}"))?.to_owned())
}

/// A token of an application that is in two groups.
fn listed(scene: &Scene) -> Result<String> {
    let (id, secret) = (ORDERS_APP.id, ORDERS_APP.secret.unwrap_or_default());
    let grant = "grant_type=client_credentials";
    let form = format!("{grant}&client_id={id}&client_secret={secret}&scope=api://legacy/.default");
    text(&post(scene, "token", &form)?, "access_token")
}

/// A token of somebody who is in more groups than it lists, and what gets newer ones.
fn of_many_groups(scene: &Scene) -> Result<(String, String)> {
    scene.entra.set_device_answer(DeviceAnswer::Granted { by: ALEX, after: 0 });
    let begun = post(scene, "devicecode", &format!("client_id={}&scope={SCOPE}", TOOL.id))?;
    let code = text(&begun, "device_code")?;
    let grant = "urn:ietf:params:oauth:grant-type:device_code";
    let signed_in = post(scene, "token", &format!("grant_type={grant}&client_id={}&device_code={code}", TOOL.id))?;
    Ok((text(&signed_in, "access_token")?, text(&signed_in, "refresh_token")?))
}

fn refresh(scene: &Scene, refresh: &str) -> Result<String> {
    let form = format!("grant_type=refresh_token&client_id={}&refresh_token={refresh}&scope={SCOPE}", TOOL.id);
    text(&post(scene, "token", &form)?, "access_token")
}

/// How often groups were looked up.
fn look_ups(scene: &Scene) -> usize {
    scene.graph.received().iter().filter(|one| one.path.ends_with("/getMemberObjects")).count()
}

/// Waits until `is_so`.
fn until(what: &str, is_so: impl Fn() -> bool) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        ensure!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// The policies by which streams were cut after event `mark`, of each.
fn cut_by(scene: &Scene, mark: u64) -> Result<Vec<Vec<String>>> {
    let events = recorded::events(&scene.daemon.database(), mark)?.into_iter();
    let cut = events.filter_map(|(_, event)| match event.what {
        What::OperationFinished { outcome, policies, .. } if outcome.starts_with("groups-") => Some(policies),
        _ => None,
    });
    Ok(cut.collect())
}

#[test]
fn a_group_that_a_newer_token_doesnt_list_is_lost_at_once() -> Result<()> {
    require_root!(Ok(()));
    let scene = scene(MEMBERS, ("", ""))?;
    let token = listed(&scene)?;
    let mark = recorded::last(&scene.daemon.database())?;
    let mut stream = scene.stream("crm", &token)?;
    let took = cut(&scene, &mut stream, mark, "groups-changed", || {
        scene.entra.take_group(CRM_READERS);
        listed(&scene).map(drop)
    })?;
    ensure!(took < 1.0, "it went on for {took} s");
    let by = cut_by(&scene, mark)?;
    ensure!(by == [["members"]], "{by:?}");
    ensure!(look_ups(&scene) == 0, "both tokens list their groups");
    let (status, said) = scene.ask("crm", &token)?;
    ensure!(status == 403 && said.contains("denied-by-policy"), "{said}");
    scene.finish()
}

#[test]
fn a_group_that_was_looked_up_is_looked_up_once_for_all_streams_when_a_newer_token_comes() -> Result<()> {
    require_root!(Ok(()));
    let (scene, _secret) = scene_with_directory(MEMBERS, "")?;
    let (token, newer) = of_many_groups(&scene)?;
    let mark = recorded::last(&scene.daemon.database())?;
    let mut others = [scene.stream("crm", &token)?, scene.stream("crm", &token)?];
    let mut stream = scene.stream("crm", &token)?;
    let streams = || scene.graph.received().iter().filter(|one| one.path == "/stream").count();
    until("the streams don't begin", || streams() == 3)?;
    let took = cut(&scene, &mut stream, mark, "groups-changed", || {
        ensure!(look_ups(&scene) == 1, "{} look-ups for one principal", look_ups(&scene));
        // One that has lost nothing goes on.
        refresh(&scene, &newer)?;
        until("nothing is looked up again", || look_ups(&scene) > 1)?;
        std::thread::sleep(Duration::from_millis(500));
        ensure!(look_ups(&scene) == 2, "{} look-ups after one newer token", look_ups(&scene));
        for other in &mut others {
            ensure!(other.try_wait()?.is_none(), "one is cut that is in the group still");
        }
        scene.entra.take_group(CRM_READERS);
        scene.graph.take_group(CRM_READERS);
        refresh(&scene, &newer).map(drop)
    })?;
    ensure!(took < 1.0, "it went on for {took} s");
    for other in &mut others {
        ensure!(!other.wait()?.success(), "the client takes it for the whole");
    }
    let by = cut_by(&scene, mark)?;
    ensure!(by == [["members"], ["members"], ["members"]], "{by:?}");
    ensure!(look_ups(&scene) == 3, "{} look-ups after two newer tokens", look_ups(&scene));
    let (status, said) = scene.ask("crm", &token)?;
    ensure!(status == 403 && said.contains("denied-by-policy"), "{said}");
    scene.finish()
}

/// What can't be looked up again is as unknown as it is to a request that comes then.
#[test]
fn a_group_that_cant_be_looked_up_again_permits_nothing() -> Result<()> {
    require_root!(Ok(()));
    let (scene, _secret) = scene_with_directory(MEMBERS, "")?;
    let (token, newer) = of_many_groups(&scene)?;
    let mark = recorded::last(&scene.daemon.database())?;
    let mut stream = scene.stream("crm", &token)?;
    let took = cut(&scene, &mut stream, mark, "groups-unknown", || {
        // What goes on already is served on.
        scene.graph.guard(scene.entra.guard(&["api://nobody"]));
        refresh(&scene, &newer).map(drop)
    })?;
    ensure!(took < 1.0, "it went on for {took} s");
    let (status, said) = scene.ask("crm", &token)?;
    ensure!(status == 403 && said.contains("groups-unknown"), "{said}");
    scene.finish()
}

/// For five minutes an answer is believed: not by who gets a newer token meanwhile.
#[test]
fn what_begins_after_a_newer_token_doesnt_go_by_groups_from_before_it() -> Result<()> {
    require_root!(Ok(()));
    let (scene, _secret) = scene_with_directory(MEMBERS, "")?;
    let (token, newer) = of_many_groups(&scene)?;
    for _ in 0..2 {
        let (status, said) = scene.ask("crm", &token)?;
        ensure!(status == 200 && look_ups(&scene) == 1, "{} look-ups: {said}", look_ups(&scene));
    }
    scene.entra.take_group(CRM_READERS);
    scene.graph.take_group(CRM_READERS);
    let renewed = refresh(&scene, &newer)?;
    for token in [&token, &renewed] {
        let (status, said) = scene.ask("crm", token)?;
        ensure!(status == 403 && said.contains("denied-by-policy"), "{said}");
    }
    ensure!(look_ups(&scene) == 2, "{} look-ups after one newer token", look_ups(&scene));
    scene.finish()
}

/// Groups are looked up before people are asked, and again when they have answered.
#[test]
fn a_yes_lets_nobody_through_who_has_lost_the_group_meanwhile() -> Result<()> {
    require_root!(Ok(()));
    let people = format!(
        "[limits]\nhold = \"20s\"\n[people]\n{ADA} = \"{}/{}\"\n[approvers]\ncrm-approvers = [\"{ADA}\"]\n",
        CONTOSO.id, ADELE.id
    );
    let (scene, _secret) = scene_with_directory(HELD, &people)?;
    let (token, newer) = of_many_groups(&scene)?;
    // The first one is in the group still.
    for (is_member, status) in [(true, "200"), (false, "403")] {
        let client = scene.posting("crm", &token)?;
        let asked = || scene.daemon.json(&["approvals", "list"]).unwrap_or_default();
        until("nobody is asked", || asked()[0]["approval"].is_string())?;
        let id = text(&asked()[0], "approval")?;
        if !is_member {
            scene.entra.take_group(CRM_READERS);
            scene.graph.take_group(CRM_READERS);
        }
        refresh(&scene, &newer)?;
        let mut approve = scene.daemon.interceptor(&["approvals", "approve", &id]);
        let approved = approve.uid(ADA).gid(ADA).current_dir("/").output()?;
        ensure!(approved.status.success(), "{}", String::from_utf8_lossy(&approved.stderr));
        let said = String::from_utf8(client.wait_with_output()?.stdout)?;
        ensure!(said.split_whitespace().nth(1) == Some(status), "{said}");
        ensure!(is_member || said.contains("denied-by-policy"), "{said}");
    }
    let came = scene.graph.received().into_iter().filter(|one| one.path == "/echo").count();
    ensure!(came == 1, "{came} of two were sent");
    scene.finish()
}

/// Nobody asked for them when it began.
#[test]
fn groups_that_policy_asks_for_from_now_on_are_looked_up_for_what_goes_on() -> Result<()> {
    require_root!(Ok(()));
    let (scene, _secret) = scene_with_directory("", "")?;
    let (token, newer) = of_many_groups(&scene)?;
    let mark = recorded::last(&scene.daemon.database())?;
    let mut stream = scene.stream("crm", &token)?;
    let mut going_on = scene.stream("crm", &token)?;
    let streams = || scene.graph.received().iter().filter(|one| one.path == "/stream").count();
    until("the streams don't begin", || streams() == 2)?;
    let took = cut(&scene, &mut stream, mark, "groups-changed", || {
        ensure!(look_ups(&scene) == 0, "nobody asks for groups");
        let reloaded = scene.daemon.reload(&format!("{POLICY}{MEMBERS}"))?;
        ensure!(reloaded.status.success(), "{}", String::from_utf8_lossy(&reloaded.stderr));
        until("nothing is looked up", || look_ups(&scene) > 0)?;
        std::thread::sleep(Duration::from_secs(1));
        ensure!(going_on.try_wait()?.is_none(), "who is in the group is cut");
        scene.entra.take_group(CRM_READERS);
        scene.graph.take_group(CRM_READERS);
        refresh(&scene, &newer).map(drop)
    })?;
    ensure!(took < 1.0, "it went on for {took} s");
    ensure!(!going_on.wait()?.success(), "the client takes it for the whole");
    scene.finish()
}
