//! By what an operation is found again elsewhere: the token's `uti` in Entra's logs, the service's own name of the request in
//! its log. Both are in every form in which the record is read, and the principal finds the operation.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use interceptor_tests::authority::Authority;
use interceptor_tests::entra::directory::{CONTOSO, CRM};
use interceptor_tests::scripted::Scripted;
use interceptor_tests::{recorded, require_root};
use serde_json::Value;

use super::fixture::{POLICY, Scene};

const SINK: &str = "siem.example";

/// The bodies of the events that came, in their order.
fn bodies(sink: &Scripted) -> Vec<Value> {
    let came = String::from_utf8_lossy(&sink.came()).into_owned();
    let messages = came.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    messages.filter_map(|message| serde_json::from_str(message["body"].as_str()?).ok()).collect()
}

fn one(values: impl IntoIterator<Item = Value>, what: &str, is_it: impl Fn(&Value) -> bool) -> Result<Value> {
    values.into_iter().find(|value| is_it(value)).with_context(|| format!("it isn't in {what}"))
}

#[test]
fn the_tokens_id_and_the_services_are_in_every_form_of_the_record_and_the_principal_finds_it() -> Result<()> {
    require_root!(Ok(()));
    let authority = Authority::new()?;
    let sink = Scripted::start(authority.server(&[SINK])?, |peer| {
        peer.request()?;
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
        peer.close()
    })?;
    let export = format!("[[export]]\nname = \"siem\"\nkind = \"http\"\nurl = \"https://{SINK}/in\"\n");
    let scene = Scene::changed(POLICY, &export, |order| {
        order.extra_ca += &authority.pem();
        order.resolve.push((SINK.to_owned(), sink.address()));
    })?;
    let daemon = &scene.daemon;
    let token = scene.token("crm")?;
    let (status, said) = scene.ask("crm", &token)?;
    ensure!(status == 200, "{said}");
    let received = scene.graph.received().pop().context("nothing reached Graph")?;
    let (uti, request) = (received.caller.context("nobody called")?.uti, received.request_id);
    ensure!(!uti.is_empty() && said.contains(&request), "the process doesn't get it: {said}");

    let recorded = recorded::wait_for(&daemon.database(), 0, |one| {
        one.action == "http:GET" && one.target.as_deref() == Some("graph") && one.outcome.is_some()
    })?;
    let (id, session) = (recorded.id.to_string(), recorded.session.context("no session")?.to_string());
    let is_it = |operation: &Value| operation["operation"] == id.as_str();
    let has_both = |operation: &Value| {
        operation["identity"]["uti"] == uti.as_str() && operation["service_request"] == request.as_str()
    };
    let story = daemon.json(&["sessions", "show", &session])?;
    let shown = one(story["operations"].as_array().cloned().unwrap_or_default(), "what is shown", is_it)?;
    ensure!(has_both(&shown), "{shown}");

    let exported = |format: &str| daemon.ask(&["sessions", "export", "--format", format, &session]);
    let lines = |text: &str| text.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>();
    let ndjson = lines(&exported("ndjson")?)?.into_iter().map(|line| line["operation"].clone());
    let line = one(ndjson, "the lines", is_it)?;
    ensure!(has_both(&line), "{line}");
    let har: Value = serde_json::from_str(&exported("har")?)?;
    let entries = har["log"]["entries"].as_array().cloned().unwrap_or_default();
    let entry = one(entries.into_iter().map(|entry| entry["_interceptor"].clone()), "the archive", is_it)?;
    ensure!(entry["uti"] == uti.as_str() && entry["service_request"] == request.as_str(), "{entry}");
    let events = lines(&exported("ocsf")?)?;
    let event = one(events, "the events", |event| event["metadata"]["original_event_uid"] == id.as_str())?;
    ensure!(event["actor"]["user"]["credential_uid"] == uti.as_str(), "{event}");
    ensure!(event["unmapped"]["service_request_id"] == request.as_str(), "{event}");

    // What leaves the host as it is recorded has them in two events.
    let has = |kind: &str, field: &str, value: &str| {
        let of_it = |body: &Value| body["event"] == kind && is_it(body);
        bodies(&sink).iter().any(|body| of_it(body) && body.pointer(field).is_some_and(|found| found == value))
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    while !(has("operation.decided", "/identity/uti", &uti) && has("operation.finished", "/service_request", &request))
    {
        ensure!(Instant::now() < deadline, "the sink hasn't got them: {:?}", bodies(&sink));
        std::thread::sleep(Duration::from_millis(50));
    }

    // By its whole id, by the object alone, and by what the configuration calls it.
    let object = CRM.principal(CONTOSO).context("no principal")?;
    let whole = format!("{}/{object}", CONTOSO.id);
    for principal in [whole.as_str(), object, "crm-bot"] {
        let found = daemon.json(&["sessions", "search", "--principal", principal])?;
        let found = found.as_array().cloned().unwrap_or_default();
        ensure!(found.iter().all(|hit| hit["identity"]["principal"] == whole.as_str()), "{principal}: {found:?}");
        one(found, principal, is_it)?;
    }
    let nobody = daemon.json(&["sessions", "search", "--principal", "crm-nobody"])?;
    ensure!(nobody.as_array().is_some_and(Vec::is_empty), "{nobody}");
    scene.finish()
}
