//! Programs of other makers, unmodified, under the environment that an MCP SDK gives a server: HTTP clients trust our
//! leaves and understand our refusals, and MCP servers speak with their own SDKs' clients byte for byte as without us.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use interceptor::record::event::Verdict;
use interceptor_tests::daemon::{Daemon, Order, READ_ONLY};
use interceptor_tests::graph::Graph;
use interceptor_tests::recorded;
use interceptor_tests::require_root;
use interceptor_tests::third_party::ThirdParty;
use nix::poll::{PollFd, PollFlags, poll};
use serde_json::{Value, json};

/// How soon a client that can't get through must have said so; a client that retries takes longer.
const AT_ONCE: Duration = Duration::from_secs(8);

struct Scene {
    graph: Graph,
    daemon: Daemon,
    third_party: ThirdParty,
}

impl Scene {
    fn new() -> Result<Self> {
        let graph = Graph::start(&[])?;
        let daemon = Daemon::start(&Order { purpose: "clients", ..Order::for_graph(&graph, READ_ONLY) })?;
        let third_party = ThirdParty::show(&daemon)?;
        Ok(Self { graph, daemon, third_party })
    }

    /// Has a client ask for `url` from inside a workload. `unset` are variables that it doesn't get.
    fn fetch(&self, client: HttpClient, unset: &[&str], more: &[&str], method: &str, url: &str) -> Result<Fetched> {
        let mut words = client.words(&self.third_party, unset);
        words.extend([method, url].iter().chain(more).map(|word| (*word).to_owned()));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let began = Instant::now();
        let output = self.daemon.run(&words).stdin(Stdio::null()).output()?;
        let took = began.elapsed();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        Ok(Fetched { ok: output.status.success(), said, took })
    }

    fn plainly(&self, client: HttpClient, method: &str, url: &str) -> Result<Fetched> {
        self.fetch(client, &[], &[], method, url)
    }

    fn finish(self) -> Result<()> {
        self.daemon.finish()
    }
}

/// What a client made of it: the body and in a line of its own the status, or its error.
#[derive(Debug)]
struct Fetched {
    ok: bool,
    said: String,
    took: Duration,
}

impl Fetched {
    fn answer(&self) -> Result<(Value, u16)> {
        ensure!(self.ok, "{self:?}");
        let (body, status) = self.said.trim_end().rsplit_once('\n').with_context(|| format!("{self:?}"))?;
        Ok((serde_json::from_str(body).with_context(|| format!("{self:?}"))?, status.parse()?))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HttpClient {
    Curl,
    Requests,
    Httpx,
    NodeFetch,
}

const HTTP_CLIENTS: [HttpClient; 4] =
    [HttpClient::Curl, HttpClient::Requests, HttpClient::Httpx, HttpClient::NodeFetch];

/// A third word of each call is a bundle to verify by, instead of what the library takes by itself.
const CURL: &str = r#"curl -sS --max-time 20 ${3:+--cacert "$3"} -X "$1" -w '\n%{http_code}\n' "$2""#;
const REQUESTS: &str = "import sys, requests
r = requests.request(sys.argv[1], sys.argv[2], timeout=20, verify=sys.argv[3] if len(sys.argv) > 3 else True)
print(r.text); print(r.status_code)";
const HTTPX: &str = "import sys, ssl, httpx
verify = ssl.create_default_context(cafile=sys.argv[3]) if len(sys.argv) > 3 else True
r = httpx.request(sys.argv[1], sys.argv[2], timeout=20, verify=verify)
print(r.text); print(r.status_code)";
const NODE_FETCH: &str = "const [, method, url] = process.argv;
try { const r = await fetch(url, { method }); console.log(await r.text()); console.log(r.status); }
catch (error) { console.error(error.cause ?? error); process.exitCode = 1; }";

impl HttpClient {
    fn words(self, third_party: &ThirdParty, unset: &[&str]) -> Vec<String> {
        let python = |code: &str| {
            // In the program, not by env(1): the command is what tells whose certifi is in use.
            let unset: String = unset.iter().map(|name| format!("os.environ.pop('{name}', None)\n")).collect();
            vec![third_party.python().display().to_string(), "-c".into(), format!("import os\n{unset}{code}")]
        };
        let plain = |words: &[&str]| {
            let unset = unset.iter().flat_map(|name| ["-u", name]);
            ["env"].into_iter().chain(unset).chain(words.iter().copied()).map(str::to_owned).collect()
        };
        match self {
            HttpClient::Curl => plain(&["sh", "-c", CURL, "curl"]),
            HttpClient::Requests => python(REQUESTS),
            HttpClient::Httpx => python(HTTPX),
            HttpClient::NodeFetch => plain(&["node", "--input-type=module", "-e", NODE_FETCH]),
        }
    }

    /// What it says when a name doesn't exist.
    fn no_name(self) -> &'static str {
        match self {
            HttpClient::Curl => "Could not resolve host",
            HttpClient::Requests => "Name or service not known",
            HttpClient::Httpx => "Name or service not known",
            HttpClient::NodeFetch => "ENOTFOUND",
        }
    }

    /// What it says when it can't verify a certificate.
    fn unverified(self) -> &'static str {
        match self {
            HttpClient::Curl => "unable to get local issuer certificate",
            HttpClient::Requests | HttpClient::Httpx => "CERTIFICATE_VERIFY_FAILED",
            HttpClient::NodeFetch => "UNABLE_TO_",
        }
    }
}

#[test]
fn http_clients_get_answers_and_readable_refusals() -> Result<()> {
    require_root!(Ok(()));
    let scene = Scene::new()?;
    for client in HTTP_CLIENTS {
        let (body, status) = scene.plainly(client, "GET", "https://graph.microsoft.com/v1.0/users")?.answer()?;
        ensure!(status == 200 && body["value"][0]["displayName"] == "Adele Vance", "{client:?}: {status} {body}");

        let before = scene.graph.received().len();
        let person = format!("https://graph.microsoft.com/v1.0/users/{}", scene.graph.people()[0].id);
        let (problem, status) = scene.plainly(client, "DELETE", &person)?.answer()?;
        ensure!(status == 403 && problem["status"] == 403, "{client:?}: {status} {problem}");
        ensure!(problem["title"] == "Denied by Interceptor" && problem["next"].is_string(), "{client:?}: {problem}");

        let unknown = scene.plainly(client, "GET", "https://api.unknown.example/")?;
        ensure!(!unknown.ok && unknown.said.contains(client.no_name()), "{client:?}: {unknown:?}");
        ensure!(unknown.took < AT_ONCE, "{client:?} retried: {unknown:?}");

        let mark = recorded::last(&scene.daemon.database())?;
        let literal = scene.plainly(client, "GET", "http://198.51.100.7/v1.0/users")?;
        ensure!(!literal.said.contains("Adele") && literal.took < AT_ONCE, "{client:?}: {literal:?}");
        recorded::wait_for(&scene.daemon.database(), mark, |operation| operation.verdict == Verdict::Deny)?;
        ensure!(scene.graph.received().len() == before, "{client:?}: something refused reached the upstream");
    }
    scene.finish()
}

/// Every variable through which one of them learns what to trust.
const VARIABLES: [&str; 5] =
    ["SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"];

#[test]
fn http_clients_trust_the_bundle_and_nothing_less() -> Result<()> {
    require_root!(Ok(()));
    let scene = Scene::new()?;
    // The host's roots without ours; inside, the host's own file shows both.
    let roots = scene.daemon.home().join("roots.pem");
    std::fs::copy("/etc/ssl/certs/ca-certificates.crt", &roots)?;
    std::os::unix::fs::chown(&roots, Some(interceptor_tests::daemon::UID), None)?;
    let roots = roots.to_str().context("a path in UTF-8")?;
    let url = "https://graph.microsoft.com/v1.0/users";
    for client in HTTP_CLIENTS {
        // By the file that it knows: the system's bundle, or certifi's in its environment. Node has its roots compiled in.
        let by_file = scene.fetch(client, &VARIABLES, &[], "GET", url)?;
        if client == HttpClient::NodeFetch {
            ensure!(!by_file.ok && by_file.said.contains(client.unverified()), "{client:?}: {by_file:?}");
            continue;
        }
        ensure!(by_file.answer()?.1 == 200, "{client:?}: {by_file:?}");
        let without = scene.fetch(client, &VARIABLES, &[roots], "GET", url)?;
        ensure!(!without.ok && without.said.contains(client.unverified()), "{client:?}: {without:?}");
        // Who doesn't trust us says so in TLS, and the operator can read it.
        let deadline = Instant::now() + Duration::from_secs(20);
        let last = loop {
            let sessions = scene.daemon.json(&["sessions", "list", "--limit", "1"])?;
            if !sessions[0]["reason"].is_null() || Instant::now() > deadline {
                break sessions;
            }
        };
        ensure!(last[0]["reason"] == "certificate-refused", "{client:?}: {last}");
    }
    scene.finish()
}

/// `interceptor run`'s arguments, as an MCP client's configuration has them.
fn arguments(daemon: &Daemon, command: &[&str]) -> Result<Vec<String>> {
    let socket = daemon.socket();
    let socket = socket.to_str().context("a path in UTF-8")?;
    let ours = ["run", "--socket", socket, "--workload", "crm", "--"];
    Ok(ours.iter().chain(command).map(|word| (*word).to_owned()).collect())
}

fn lines(output: &Output) -> Result<Vec<Value>> {
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "it ended with {}:\n{errors}", output.status);
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("`{line}`\n{errors}")))
        .collect()
}

#[test]
fn mcp_server_fetch_works_under_the_python_sdk() -> Result<()> {
    require_root!(Ok(()));
    let scene = Scene::new()?;
    let python = scene.third_party.python();
    let name = python.to_str().context("a path in UTF-8")?;
    let server = arguments(&scene.daemon, &[name, "-m", "mcp_server_fetch"])?;
    let output = scene
        .daemon
        .as_user(&python)
        .args(["-c", include_str!("clients/fetch.py")])
        .arg(scene.daemon.binary("interceptor"))
        .arg(json!(server).to_string())
        .args(["https://graph.microsoft.com/v1.0/users", "https://api.unknown.example/x"])
        .output()?;
    let said = lines(&output)?;
    let [tools, fetched, denied] = said.as_slice() else { anyhow::bail!("{said:?}") };
    ensure!(*tools == json!(["fetch"]), "{tools}");
    // Its guard against private destinations takes our address for the name as a public one.
    ensure!(
        fetched["isError"] != true && fetched["content"][0]["text"].to_string().contains("Adele Vance"),
        "{fetched}"
    );
    ensure!(
        denied["isError"] == true && denied["content"][0]["text"].to_string().contains("unknown.example"),
        "{denied}"
    );
    let paths: Vec<String> = scene.graph.received().into_iter().map(|request| request.path).collect();
    ensure!(paths == ["/robots.txt", "/v1.0/users"], "{paths:?}");
    scene.finish()
}

#[test]
fn server_everything_works_under_the_node_sdk() -> Result<()> {
    require_root!(Ok(()));
    let scene = Scene::new()?;
    let everything = scene.third_party.server_everything();
    let server = arguments(&scene.daemon, &["node", everything.to_str().context("a path in UTF-8")?, "stdio"])?;
    let sdk = scene.third_party.node().join("node_modules/@modelcontextprotocol/sdk/dist/esm");
    let output = scene
        .daemon
        .as_user(Path::new("node"))
        .args(["--input-type=module", "-e", include_str!("clients/everything.mjs")])
        .arg(sdk)
        .arg(scene.daemon.binary("interceptor"))
        .arg(json!(server).to_string())
        .output()?;
    let said = lines(&output)?;
    let [tools, called] = said.as_slice() else { anyhow::bail!("{said:?}") };
    ensure!(tools.as_array().is_some_and(|tools| tools.contains(&json!("echo"))), "{tools}");
    ensure!(called["content"][0]["text"].to_string().contains("grüße 👋"), "{called}");
    scene.finish()
}

/// What a server says to these lines, until it has answered the last one, and then to the end.
fn transcript(mut command: Command, sent: &[Value]) -> Result<Vec<u8>> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let mut input = child.stdin.take().context("its input")?;
    let mut output = BufReader::new(child.stdout.take().context("its output")?);
    let mut said = Vec::new();
    for message in sent {
        writeln!(input, "{message}")?;
        let Some(id) = message.get("id") else { continue };
        loop {
            let start = said.len();
            ensure!(output.read_until(b'\n', &mut said)? > 0, "it ended before it answered {id}");
            if serde_json::from_slice::<Value>(&said[start..])?.get("id") == Some(id) {
                break;
            }
        }
    }
    drop(input);
    output.read_to_end(&mut said)?;
    child.wait()?;
    Ok(said)
}

#[test]
fn what_servers_say_is_the_same_with_and_without() -> Result<()> {
    require_root!(Ok(()));
    let scene = Scene::new()?;
    let hello =
        json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } });
    let request = |id: u32, method: &str, params: Value| json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
    let sent = [
        request(1, "initialize", hello),
        json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }),
        request(2, "tools/list", json!({})),
        request(3, "tools/call", json!({ "name": "no-such-tool", "arguments": { "text": "\u{0}\u{1f600}\u{2028}" } })),
    ];
    let (python, everything) = (scene.third_party.python(), scene.third_party.server_everything());
    let python = python.to_str().context("a path in UTF-8")?;
    let everything = everything.to_str().context("a path in UTF-8")?;
    for server in [[python, "-m", "mcp_server_fetch"], ["node", everything, "stdio"]] {
        let mut bare = scene.daemon.as_user(Path::new(server[0]));
        bare.args(&server[1..]);
        let (without, with) = (transcript(bare, &sent)?, transcript(scene.daemon.run(&server), &sent)?);
        ensure!(without.len() > 200, "{server:?} said little: {}", String::from_utf8_lossy(&without));
        let [without, with] = [&without, &with].map(|said| String::from_utf8_lossy(said).into_owned());
        ensure!(with == without, "{server:?}\nwithout: {without}\nwith: {with}");
    }
    scene.finish()
}

#[test]
fn eight_mebibytes_pass_unchanged_and_errors_apart() -> Result<()> {
    require_root!(Ok(()));
    let graph = Graph::start(&[])?;
    let daemon = Daemon::for_graph(&graph, READ_ONLY)?;
    let mut bytes = vec![0; 8 << 20];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let mut child = daemon
        .run(&["sh", "-c", "echo apart >&2; exec cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut input = child.stdin.take().context("its input")?;
    let sent = bytes.clone();
    let writing = std::thread::spawn(move || input.write_all(&sent));
    let output = child.wait_with_output()?;
    writing.join().map_err(|_| anyhow::anyhow!("the writer panicked"))??;
    ensure!(output.status.success() && output.stdout == bytes, "{} of {} bytes", output.stdout.len(), bytes.len());
    ensure!(output.stderr == b"apart\n", "{}", String::from_utf8_lossy(&output.stderr));
    daemon.finish()
}

#[test]
fn the_end_of_a_stream_passes_at_once_both_ways() -> Result<()> {
    require_root!(Ok(()));
    let graph = Graph::start(&[])?;
    let daemon = Daemon::for_graph(&graph, READ_ONLY)?;
    // The command closes its output and lives on.
    let mut child = daemon
        .run(&["sh", "-c", "echo ready; exec >&-; cat; exit 5"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut output = BufReader::new(child.stdout.take().context("its output")?);
    let mut line = String::new();
    output.read_line(&mut line)?;
    let began = Instant::now();
    let mut ended = [PollFd::new(output.get_ref().as_fd(), PollFlags::POLLIN)];
    ensure!(poll(&mut ended, 1_000u16)? == 1, "the output's end didn't come within {:?}", began.elapsed());
    ensure!(output.read(&mut [0])? == 0 && line == "ready\n", "{line}");
    ensure!(child.try_wait()?.is_none(), "the command lives on");
    // Its client closes its input.
    let began = Instant::now();
    drop(child.stdin.take());
    ensure!(child.wait()?.code() == Some(5));
    ensure!(began.elapsed() < Duration::from_secs(1), "the input's end came after {:?}", began.elapsed());
    daemon.finish()
}
