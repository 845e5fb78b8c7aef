//! People are told: by a signed webhook, by a command; and nothing waits for that.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use interceptor::record::event::What;
use interceptor_tests::authority::Authority;
use interceptor_tests::daemon::{Daemon, GRAPH_TARGET, Order};
use interceptor_tests::graph::Graph;
use interceptor_tests::scripted::Scripted;
use interceptor_tests::wire::Wire;
use interceptor_tests::{recorded, require_root};
use serde_json::Value;

use super::fixture::{ADA, HELD, open, order, refuses, says};

const HOOKS: &str = "hooks.example";
const KEY: [u8; 32] = [7; 32];
/// Runs the command.
const TELLER: u32 = 61_305;

/// What is asked, with a secret in each place of it.
const PLANTED: &str = "POST /echo/code=pLaNt-path-1?sig=pLaNt-query-2 HTTP/1.1\r\nHost: graph.microsoft.com\r\n\
    X-Api-Key: pLaNt-header-3\r\nX-Note: pLaNt-note-4\r\nContent-Type: application/json\r\n\
    Interceptor-Justification: ticket 7 with password=pLaNt-why-5\r\nContent-Length: 36\r\n\r\n\
    {\"password\":\"pLaNt-body-6\",\"note\":1}";

/// A folder with the secret that webhooks are signed with.
struct Keys(tempfile::TempDir);

impl Keys {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("hook.secret");
        fs::write(&path, format!("whsec_{}\n", STANDARD.encode(KEY)))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(Self(folder))
    }

    /// A webhook that posts to [`HOOKS`].
    fn webhook(&self, name: &str, more: &str) -> String {
        let secret = self.0.path().join("hook.secret");
        format!(
            "[[notify]]\nname = \"{name}\"\nkind = \"webhook\"\nurl = \"https://{HOOKS}/in?key=of-the-hook\"\n\
             secret_file = {secret:?}\n{more}\n"
        )
    }
}

/// A notification as it was posted.
struct Posted {
    head: String,
    body: Vec<u8>,
}

impl Posted {
    fn header(&self, name: &str) -> Result<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        let mut found = lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value);
        found.next().with_context(|| format!("no {name} in {}", self.head))
    }

    fn json(&self) -> Result<Value> {
        Ok(serde_json::from_slice(&self.body)?)
    }

    /// Whether it is signed as Standard Webhooks has it.
    fn verify(&self) -> Result<()> {
        let mut signed = format!("{}.{}.", self.header("webhook-id")?, self.header("webhook-timestamp")?).into_bytes();
        signed.extend_from_slice(&self.body);
        let signature = self.header("webhook-signature")?.strip_prefix("v1,").context("another version")?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, &KEY);
        ensure!(hmac::verify(&key, &signed, &STANDARD.decode(signature)?).is_ok(), "it isn't signed with the secret");
        Ok(())
    }
}

/// What was posted in full so far.
fn posted(receiver: &Scripted) -> Vec<Posted> {
    let came = receiver.came();
    let (mut rest, mut all) = (came.as_slice(), Vec::new());
    while let Some(end) = rest.windows(4).position(|four| four == b"\r\n\r\n") {
        let (head, body) = (String::from_utf8_lossy(&rest[..end]).into_owned(), &rest[end + 4..]);
        let mut lengths =
            head.lines().filter_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let length: usize = lengths.next().unwrap_or(0);
        if body.len() < length {
            break;
        }
        all.push(Posted { head, body: body[..length].to_vec() });
        rest = &body[length..];
    }
    all
}

/// Waits until so many were posted.
fn wait(receiver: &Scripted, count: usize) -> Result<Vec<Posted>> {
    until(&format!("{count} notifications"), || Ok(posted(receiver).len() >= count))?;
    Ok(posted(receiver))
}

fn until(what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(40);
    while !done()? {
        ensure!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(30));
    }
    Ok(())
}

/// A receiver that answers with this status.
fn receiver(authority: &Authority, status: &'static str) -> Result<Scripted> {
    Scripted::start(authority.server(&[HOOKS])?, move |peer| {
        peer.request()?;
        peer.send(format!("HTTP/1.1 {status}\r\nContent-Length: 4\r\n\r\nsaid"))?;
        peer.close()
    })
}

/// A daemon that tells `receiver`.
fn begin(graph: &Graph, authority: &Authority, receiver: &Scripted, channels: &str) -> Result<Daemon> {
    let mut order: Order = order(graph, HELD, "20s");
    order.extra_ca += &authority.pem();
    order.resolve.push((HOOKS.to_owned(), receiver.address()));
    order.targets = format!("{GRAPH_TARGET}accept_foreign = [\"x-api-key\", \"?sig\"]\n");
    order.more += channels;
    Daemon::start(&order)
}

fn asking(daemon: &Daemon) -> Result<Wire> {
    let mut wire = Wire::tls(daemon)?;
    wire.send(PLANTED)?;
    Ok(wire)
}

#[test]
fn what_is_asked_and_what_came_of_it_is_told_signed_and_without_a_secret() -> Result<()> {
    require_root!(Ok(()));
    let (graph, authority, keys) = (Graph::start(&[])?, Authority::new()?, Keys::new()?);
    let hooks = receiver(&authority, "200 OK")?;
    let channels = keys.webhook("hook", "") + &keys.webhook("other", "groups = [\"security\"]");
    let daemon = begin(&graph, &authority, &hooks, &channels)?;
    let mut wire = asking(&daemon)?;
    let id = open(&daemon, 1)?.remove(0);
    let asked = wait(&hooks, 1)?.remove(0);
    asked.verify()?;
    ensure!(asked.head.starts_with("POST /in?key=of-the-hook HTTP/1.1"), "{}", asked.head);
    let message = asked.json()?;
    let data = &message["data"];
    ensure!(message["type"] == "approval-requested" && data["approval"] == id, "{message}");
    for (member, value) in [("workload", "crm"), ("target", "graph"), ("action", "http:POST")] {
        ensure!(data[member] == value, "{member}: {message}");
    }
    ensure!(
        data["groups"][0] == "crm-approvers" && data["answer"] == format!("interceptor approvals show {id}"),
        "{data}"
    );
    ensure!(data["summary"].as_str().is_some_and(|told| told.starts_with("POST /echo/")), "{data}");
    ensure!(data["justification"].as_str().is_some_and(|told| told.starts_with("ticket 7")), "{data}");

    says(&daemon, ADA, &["approvals", "deny", &id, "--note", "not today"])?;
    ensure!(wire.answer()?.code() == "approval-denied", "it isn't denied");
    let grant = ["grants", "issue", "--workload", "crm", "--target", "graph", "--for", "5m"];
    daemon.ask(&grant)?;
    let all = wait(&hooks, 4)?;
    all.iter().try_for_each(Posted::verify)?;
    let kinds: Vec<_> = all.iter().map(|one| Ok(one.json()?["type"].clone())).collect::<Result<_>>()?;
    ensure!(kinds == ["approval-requested", "approval-answered", "approval-closed", "grant-issued"], "{kinds:?}");
    let answered = all[1].json()?;
    ensure!(answered["data"]["yes"] == false && answered["data"]["note"] == "not today", "{answered}");
    let came = String::from_utf8_lossy(&hooks.came()).into_owned();
    ensure!(!came.contains("pLaNt"), "a secret was told: {came}");
    ensure!(daemon.json(&["status"])?["serving"] == "yes", "it isn't well");
    drop(wire);
    daemon.finish()
}

#[test]
fn a_receiver_that_fails_holds_nothing_up_and_is_seen() -> Result<()> {
    require_root!(Ok(()));
    let (graph, authority, keys) = (Graph::start(&[])?, Authority::new()?, Keys::new()?);
    // It takes the request and never says a word.
    let hooks = Scripted::start(authority.server(&[HOOKS])?, |peer| {
        peer.request()?;
        std::thread::sleep(Duration::from_secs(60));
        Ok(())
    })?;
    let daemon = begin(&graph, &authority, &hooks, &keys.webhook("hook", ""))?;
    // A receiver is waited for, for ten seconds.
    let soon = Duration::from_secs(8);
    let mut wire = asking(&daemon)?;
    let began = Instant::now();
    let id = open(&daemon, 1)?.remove(0);
    says(&daemon, ADA, &["approvals", "approve", &id])?;
    let answer = wire.answer()?;
    ensure!(answer.code().is_empty() && graph.received().len() == 1, "it isn't let through: {answer:?}");
    ensure!(began.elapsed() < soon, "the yes took {:?}", began.elapsed());
    wait(&hooks, 1)?;
    let began = Instant::now();
    wire.send(PLANTED)?;
    let id = open(&daemon, 1)?.remove(0);
    says(&daemon, ADA, &["approvals", "deny", &id])?;
    ensure!(wire.answer()?.code() == "approval-denied" && began.elapsed() < soon, "the no took {:?}", began.elapsed());
    drop(wire);
    let began = Instant::now();
    daemon.finish()?;
    ensure!(began.elapsed() < soon, "the end took {:?}", began.elapsed());

    // One that refuses what it is told isn't told it again; that is recorded, and `status` says so.
    let hooks = receiver(&authority, "404 Not Found")?;
    let daemon = begin(&graph, &authority, &hooks, &keys.webhook("hook", "on = [\"approval-requested\"]"))?;
    let wire = asking(&daemon)?;
    let id = open(&daemon, 1)?.remove(0);
    let failed = |what: &What| match what {
        What::NotificationFailed { channel, occasion, about, tries: 1, reason, .. } => {
            channel.as_str() == "hook" && occasion == "approval-requested" && *about == id && reason.contains("404")
        }
        _ => false,
    };
    until("it isn't recorded", || {
        Ok(recorded::events(&daemon.database(), 0)?.iter().any(|(_, event)| failed(&event.what)))
    })?;
    let status = daemon.json(&["status"])?;
    let told = status["causes"].to_string();
    ensure!(status["serving"] == "degraded" && told.contains("notify-failing") && told.contains("404"), "{status}");
    ensure!(!told.contains("of-the-hook"), "the URL is told: {status}");
    ensure!(open(&daemon, 1)? == [id], "the question isn't open any more");
    let said = daemon.interceptor(&["notify", "test", "hook"]).output()?;
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    ensure!(said.contains("404 Not Found: said (notify-failed)"), "{said}");
    drop(wire);
    ensure!(posted(&hooks).len() == 2, "it was told again");
    daemon.finish()
}

/// A folder with the command, and what it writes.
fn command(room: &Path) -> Result<(PathBuf, PathBuf)> {
    let (script, out) = (room.join("tell"), room.join("out"));
    let text = "#!/bin/sh\ncd \"$1\"\ncat >body\n(id -u; id -G; cat /proc/self/cgroup) >who.new\nmv who.new who\n";
    fs::write(&script, text)?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    fs::set_permissions(room, fs::Permissions::from_mode(0o755))?;
    fs::create_dir(&out)?;
    chown(&out, Some(TELLER), None)?;
    Ok((script, out))
}

#[test]
fn a_command_is_told_as_its_user_and_a_reload_brings_channels_into_force() -> Result<()> {
    require_root!(Ok(()));
    let (graph, authority, keys) = (Graph::start(&[])?, Authority::new()?, Keys::new()?);
    let hooks = receiver(&authority, "202 Accepted")?;
    let folder = tempfile::tempdir()?;
    let (script, out) = command(folder.path())?;
    let channel = format!(
        "[[notify]]\nname = \"run\"\nkind = \"command\"\ncommand = [{script:?}, {out:?}]\nuser = \"{TELLER}\"\n\
         on = [\"approval-requested\"]\n"
    );
    let daemon = begin(&graph, &authority, &hooks, &channel)?;
    let wire = asking(&daemon)?;
    let id = open(&daemon, 1)?.remove(0);
    until("the command isn't run", || Ok(out.join("who").exists()))?;
    let message: Value = serde_json::from_slice(&fs::read(out.join("body"))?)?;
    ensure!(message["type"] == "approval-requested" && message["data"]["approval"] == id, "{message}");
    ensure!(!message.to_string().contains("pLaNt"), "a secret was told: {message}");
    let who = fs::read_to_string(out.join("who"))?;
    ensure!(who.starts_with(&format!("{TELLER}\n65534\n")), "it has other rights: {who}");
    ensure!(who.contains("/daemon") && !who.contains("/workloads"), "it runs in a workload: {who}");
    ensure!(daemon.ask(&["notify", "test", "run"])? == "run: the command ended with exit status: 0\n", "{who}");
    let message: Value = serde_json::from_slice(&fs::read(out.join("body"))?)?;
    ensure!(message["type"] == "test", "{message}");
    let refused = refuses(&daemon, ADA, &["notify", "test", "run"])?;
    ensure!(refused.contains("not-an-operator"), "{refused}");

    // Another channel in its place, without a restart.
    let config = fs::read_to_string(daemon.config())?.replace(&channel, &keys.webhook("hook", ""));
    fs::write(daemon.config(), config)?;
    let reloaded = daemon.reload(HELD)?;
    ensure!(reloaded.status.success(), "{}", String::from_utf8_lossy(&reloaded.stderr));
    let said = daemon.ask(&["notify", "test", "hook"])?;
    ensure!(said == "hook: 202 Accepted: said\n", "{said}");
    wait(&hooks, 1)?[0].verify()?;
    let gone = daemon.interceptor(&["notify", "test", "run"]).output()?;
    let gone = String::from_utf8_lossy(&gone.stderr).into_owned();
    ensure!(gone.contains("no-channel") && gone.contains("there is `hook`"), "{gone}");
    says(&daemon, ADA, &["approvals", "deny", &id])?;
    let closed = wait(&hooks, 3)?[2].json()?;
    ensure!(closed["data"]["outcome"] == "denied" && closed["data"]["target"] == "graph", "{closed}");
    let tests = recorded::events(&daemon.database(), 0)?.into_iter().filter_map(|(_, event)| match event.what {
        What::ControlRequest { request, refused, .. } if request.starts_with("notify-test") => Some((request, refused)),
        _ => None,
    });
    let tests: Vec<_> = tests.collect();
    let (run, hook) = (|| "notify-test run".to_owned(), || "notify-test hook".to_owned());
    let refused = |code: &str| Some(code.to_owned());
    let expected = [(run(), None), (run(), refused("not-an-operator")), (hook(), None), (run(), refused("no-channel"))];
    ensure!(tests == expected, "{tests:?}");
    drop(wire);
    daemon.finish()
}
