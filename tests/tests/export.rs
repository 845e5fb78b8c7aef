//! The record leaves the host: to a sink as it grows, as OCSF by hand; and goes on in a new database.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use interceptor::record::Link;
use interceptor::record::event::What;
use interceptor_tests::authority::Authority;
use interceptor_tests::daemon::{Daemon, Order, READ_ONLY};
use interceptor_tests::graph::Graph;
use interceptor_tests::scripted::Scripted;
use interceptor_tests::wire::Wire;
use interceptor_tests::{recorded, require_root};
use serde_json::Value;

const SINK: &str = "siem.example";

fn until(what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done()? {
        ensure!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// A sink that takes everything.
fn sink(authority: &Authority) -> Result<Scripted> {
    Scripted::start(authority.server(&[SINK])?, |peer| {
        peer.request()?;
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
        peer.close()
    })
}

/// The messages that came, in their order.
fn messages(sink: &Scripted) -> Vec<Value> {
    let came = String::from_utf8_lossy(&sink.came()).into_owned();
    // A line that is still on its way isn't JSON.
    came.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).filter(Value::is_object).collect()
}

fn has(sink: &Scripted, event: &str) -> bool {
    messages(sink).iter().any(|message| message["event"] == event)
}

#[test]
fn a_sink_has_the_chain_and_a_new_database_follows_the_old_one() -> Result<()> {
    require_root!(Ok(()));
    let graph = Graph::start(&[])?;
    let authority = Authority::new()?;
    let sink = sink(&authority)?;
    let mut order = Order { purpose: "export", bring: vec!["wire"], ..Order::for_graph(&graph, READ_ONLY) };
    order.extra_ca += &authority.pem();
    order.resolve.push((SINK.to_owned(), sink.address()));
    order.more = format!("[[export]]\nname = \"siem\"\nkind = \"http\"\nurl = \"https://{SINK}/in\"\n");
    let daemon = Daemon::start(&order)?;
    let mut wire = Wire::tls(&daemon)?;
    ensure!(wire.ask("GET", "/v1.0/users")?.status == 200, "denied");
    ensure!(wire.ask("DELETE", "/v1.0/users/7")?.status == 403, "not denied");
    ensure!(daemon.reload(READ_ONLY)?.status.success(), "refused");

    until("the reload is sent", || Ok(has(&sink, "control.request")))?;
    let mut previous = "0".repeat(64);
    for (number, message) in (1..).zip(messages(&sink).iter().filter(|one| one.get("body").is_some())) {
        let text = |field: &str| message[field].as_str().map(str::to_owned).context("no text");
        let link = Link { seq: number, previous, hash: text("hash")?, body: text("body")? };
        ensure!(message["seq"] == number && link.holds(), "event {number} doesn't follow: {message}");
        previous = link.hash;
    }
    let status = daemon.json(&["status"])?;
    let told = &status["exports"][0];
    ensure!(status["serving"] == "yes" && told["name"] == "siem" && told["error"].is_null(), "{status}");
    ensure!(daemon.ask(&["status"])?.contains("export siem (http) event "), "it isn't told");
    let changed = recorded::events(&daemon.database(), 0)?.into_iter().any(|(_, event)| {
        matches!(event.what, What::ControlRequest { request, refused: None, .. } if request == "policy-reload")
    });
    ensure!(changed, "the reload isn't recorded");

    let exported = daemon.ask(&["sessions", "export", "--format", "ocsf"])?;
    let events: Vec<Value> = exported.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let first = messages(&sink).first().and_then(|message| message["hash"].as_str().map(str::to_owned));
    let first = first.context("no first event")?;
    for event in &events {
        let at = &event["attestation_list"][0];
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let link = Link {
            seq: event["metadata"]["sequence"].as_u64().context("no number")?,
            previous: text(&at["prev_event"]["fingerprint"]["value"]).unwrap_or_else(|| "0".repeat(64)),
            hash: text(&at["fingerprint"]["value"]).context("no hash")?,
            body: text(&event["raw_data"]).context("no body")?,
        };
        ensure!(link.holds(), "it isn't in the chain: {event}");
        // By the ids of the schema it is as well: its own, and that of the event before.
        let chain = text(&at["chain_uid"]).context("no chain")?;
        let uid = |seq: u64| Value::from(format!("{}-{seq}", &chain[..16]));
        ensure!(chain == first && event["metadata"]["uid"] == uid(link.seq), "another chain: {event}");
        ensure!(at["prev_event"]["uid"] == uid(link.seq - 1), "another event is before it: {event}");
    }
    let of = |class: u64, activity: u64| {
        let found = events.iter().find(|event| event["class_uid"] == class && event["activity_id"] == activity);
        found.with_context(|| format!("no {class}/{activity} in {exported}"))
    };
    let (get, delete) = (of(4002, 3)?, of(4002, 2)?);
    ensure!(get["status_id"] == 1 && get["http_response"]["code"] == 200, "{get}");
    ensure!(get["http_request"]["url"]["url_string"] == "https://graph.microsoft.com/v1.0/users", "{get}");
    ensure!(delete["disposition_id"] == 2 && delete["status_code"] == "denied-by-default", "{delete}");
    ensure!(of(4001, 1)?["actor"]["process"]["pid"].is_u64(), "nobody connected");
    ensure!(get["device"]["hostname"].as_str().is_some_and(|host| !host.is_empty()), "on no host: {get}");
    // A look-up belongs to no session, and comes all the same, in each format that has room for it.
    let look_up = of(4003, 1)?;
    ensure!(look_up["query"]["hostname"] == "graph.microsoft.com" && look_up.get("actor").is_none(), "{look_up}");
    let lines = daemon.ask(&["sessions", "export", "--format", "ndjson"])?;
    let look_up = lines.lines().map(serde_json::from_str::<Value>).find_map(|line| {
        line.ok().filter(|line| line["session"].is_null() && line["operation"]["action"] == "dns:resolve")
    });
    ensure!(look_up.is_some(), "no look-up in {lines}");
    ensure!(lines.lines().count() == events.len(), "the formats have not the same operations: {lines}");

    // A new database: what is under way goes on in it, and the sink hears of both.
    let said = daemon.ask(&["record", "rotate"])?;
    let name = said.split("is ").find_map(|rest| rest.split(' ').next().filter(|word| word.starts_with("record-")));
    let old = daemon.room().join("state").join(name.with_context(|| said.clone())?);
    ensure!(wire.ask("GET", "/v1.0/users")?.status == 200, "it doesn't go on");
    drop(wire);
    let (new, old) = (daemon.database().display().to_string(), old.display().to_string());
    let report = daemon.json(&["sessions", "verify", "--db", &new, "--previous", &old])?;
    ensure!(report["ok"] == true, "{report}");
    ensure!(daemon.json(&["sessions", "verify", "--db", &old])?["ok"] == true, "the old one isn't whole");
    ensure!(daemon.json(&["sessions", "verify"])?["ok"] == true, "the new one isn't whole");
    until("the new database is sent", || Ok(has(&sink, "record.rotated") && has(&sink, "record.begun")))?;
    daemon.finish()
}
