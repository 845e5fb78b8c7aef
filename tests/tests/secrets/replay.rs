//! What is kept of requests and answers: how much, for how long, and who read it.

use anyhow::{Context, Result, ensure};
use interceptor::record::event::What;
use interceptor_tests::daemon::Daemon;
use interceptor_tests::recorded;
use interceptor_tests::require_root;
use interceptor_tests::wire::Wire;

use super::fixture::{ALL, begin, exported, payload};

fn session(daemon: &Daemon) -> Result<String> {
    let list = daemon.json(&["sessions", "list"])?;
    Ok(list[0]["session"].as_str().context("no session")?.to_owned())
}

#[test]
fn a_session_is_replayed_with_verdicts_between_the_lines_and_that_is_recorded() -> Result<()> {
    require_root!(Ok(()));
    let policy = format!(
        "{ALL}\n@id(\"people-stay\")\n@reason(\"people stay\")\nforbid (principal, action == Action::\"http:DELETE\", resource);"
    );
    let (_graph, daemon) = begin("", &policy, "")?;
    let mut wire = Wire::tls(&daemon)?;
    let body = "{\"password\":\"hunter2\",\"note\":\"\\u001b[2J\"}";
    wire.send(format!("POST /echo HTTP/1.1\r\nHost: graph.microsoft.com\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len()))?;
    ensure!(wire.answer()?.status == 200, "refused");
    ensure!(wire.ask("DELETE", "/v1.0/users/1")?.status == 403, "it was permitted");
    drop(wire);
    exported(&daemon, "DELETE /v1.0/users/1")?;
    recorded::wait_for_event(&daemon.database(), 0, |what| matches!(what, What::SessionClosed { .. }))?;
    let id = session(&daemon)?;
    let shown = daemon.ask(&["sessions", "replay", &id, "--speed", "0"])?;
    for part in [
        "ALLOW  connect",
        "ALLOW  http:POST  POST /echo by all",
        "  > POST /echo HTTP/1.1",
        "  >*  \"password\": \"[secret]\",",
        "  < 200 OK",
        "DENY  http:DELETE",
        "people stay",
        "closed: ",
    ] {
        ensure!(shown.contains(part), "`{part}` isn't in\n{shown}");
    }
    ensure!(!shown.contains("hunter2") && !shown.contains('\u{1b}'), "{shown}");
    let reads = recorded::events(&daemon.database(), 0)?;
    ensure!(
        reads.iter().any(|(_, event)| matches!(event.what, What::PayloadRead { uid: 0, .. })),
        "no read is recorded"
    );

    let har: serde_json::Value = serde_json::from_str(&daemon.ask(&["sessions", "export", "--format", "har", &id])?)?;
    let entries = har["log"]["entries"].as_array().context("no entries")?;
    ensure!(entries.len() == 2 && entries[0]["request"]["url"] == "https://graph.microsoft.com/echo", "{har}");
    ensure!(entries[0]["request"]["postData"]["text"].as_str().is_some_and(|text| text.contains("[secret]")), "{har}");
    ensure!(entries[1]["response"]["status"] == 403, "{har}");
    let story = daemon.json(&["sessions", "show", &id])?;
    ensure!(story["omitted"] == 0 && story["operations"][1]["payload"]["digest"].is_string(), "{story}");
    daemon.finish()
}

#[test]
fn policy_says_how_much_is_kept() -> Result<()> {
    require_root!(Ok(()));
    let policy = r#"
@id("reach")
permit (principal, action in Action::"reach", resource);
@id("rest")
permit (principal, action in Action::"http", resource);
@id("heads")
@record("headers")
permit (principal, action == Action::"http:GET", resource) when { context.http.path == "/v1.0/users" };
@id("nothing")
@record("none")
permit (principal, action == Action::"http:GET", resource) when { context.http.path == "/bytes/5" };
"#;
    let (_graph, daemon) = begin("", policy, "[record]\npayload_bytes = \"8B\"\n")?;
    let mut wire = Wire::tls(&daemon)?;
    for path in ["/v1.0/users", "/bytes/5", "/bytes/20"] {
        ensure!(wire.ask("GET", path)?.status == 200, "{path} is refused");
    }
    drop(wire);
    let lines = exported(&daemon, "GET /bytes/20")?;
    let heads = payload(&lines, "GET /v1.0/users");
    ensure!(heads["response"]["partial"] == "headers-only" && heads["response"]["body"] == "", "{heads}");
    ensure!(heads["response"]["start"] == "200 OK" && heads["request"]["tls"] == true, "{heads}");
    ensure!(payload(&lines, "GET /bytes/5").is_null(), "something was kept");
    let cut = payload(&lines, "GET /bytes/20");
    ensure!(
        cut["response"]["partial"] == "cut" && cut["response"]["bytes"] == 20 && cut["response"]["kept"] == 8,
        "{cut}"
    );
    daemon.finish()
}

#[test]
fn kill_9_loses_no_payload_that_was_kept() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, mut daemon) = begin("", ALL, "")?;
    let mut wire = Wire::tls(&daemon)?;
    ensure!(wire.ask("GET", "/v1.0/users")?.status == 200, "refused");
    // One more, whose answer comes when the outcome of the first is in the journal.
    ensure!(wire.ask("GET", "/bytes/3")?.status == 200, "refused");
    daemon.kill9()?;
    daemon.restart()?;
    let lines = exported(&daemon, "GET /v1.0/users")?;
    let kept = payload(&lines, "GET /v1.0/users");
    ensure!(kept["response"]["start"] == "200 OK" && kept["response"]["kept"].as_u64() > Some(100), "{kept}");
    ensure!(daemon.json(&["sessions", "verify"])?["ok"] == true, "the chain doesn't verify");
    daemon.finish()
}
