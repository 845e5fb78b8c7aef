//! Secrets planted in every place are found nowhere afterwards.

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use interceptor_tests::authority::Authority;
use interceptor_tests::daemon::{Daemon, Order};
use interceptor_tests::graph::Graph;
use interceptor_tests::require_root;
use interceptor_tests::scripted::Scripted;
use interceptor_tests::wire::Wire;

use super::fixture::{ALL, begin, contents, exported, order, secret_file};

const INJECTED: &str = "iNjEcTeD-0aa17c";

/// What is planted, each in its place, with a request that carries it.
fn planted() -> Vec<(&'static str, String)> {
    let host = "Host: graph.microsoft.com\r\n";
    let post = |kind: &str, body: &str| {
        format!("POST /echo HTTP/1.1\r\n{host}Content-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    };
    let form = "application/x-www-form-urlencoded";
    vec![
        ("pLaNt-sas-01", format!("GET /echo?sv=1&sig=pLaNt-sas-01 HTTP/1.1\r\n{host}\r\n")),
        ("pLaNt-cookie-02", format!("GET /echo HTTP/1.1\r\n{host}Cookie: s=pLaNt-cookie-02\r\n\r\n")),
        ("pLaNt-apikey-03", format!("GET /echo HTTP/1.1\r\n{host}X-Api-Key: pLaNt-apikey-03\r\n\r\n")),
        ("pLaNt-custom-04", format!("GET /echo HTTP/1.1\r\n{host}X-My-Secret: pLaNt-custom-04\r\n\r\n")),
        ("pLaNt-form-05", post(form, "grant_type=client_credentials&client_secret=pLaNt-form-05&scope=x")),
        ("pLaNt-code-06", post(form, "grant_type=authorization_code&code=pLaNt-code-06&code_verifier=pLaNt-code-06")),
        ("pLaNt-assert-07", post(form, "client_assertion=pLaNt-assert-07&client_id=1")),
        (
            "pLaNt-json-08",
            post("application/json", r#"{"user":"u","password":"pLaNt-json-08","n":[{"api_key":"pLaNt-json-08"}]}"#),
        ),
        ("pLaNt-nested-09", post("application/json", r#"{"inner":"{\"refresh_token\":\"pLaNt-nested-09\"}"}"#)),
        ("pLaNt-dsn-10", post("text/plain", "Server=db;User Id=sa;Password=pLaNt-dsn-10;")),
        ("pLaNt-sql-11", post("application/sql", "ALTER USER u IDENTIFIED BY 'pLaNt-sql-11'")),
        (
            "pLaNt-part-12",
            post(
                "multipart/form-data; boundary=b",
                "--b\r\nContent-Disposition: form-data; name=\"password\"\r\n\r\npLaNt-part-12\r\n--b--\r\n",
            ),
        ),
        ("pLaNt-url-13", post("text/plain", "see https://u:pLaNt-url-13@h.example/")),
        ("pLaNt-error-14", format!("GET /a%2Fb?token=pLaNt-error-14 HTTP/1.1\r\n{host}\r\n")),
        ("pLaNt-host-15", "GET /?sig=pLaNt-host-15 HTTP/1.1\r\nHost: pLaNt-host-15.example\r\n\r\n".to_owned()),
        ("pLaNt-path-16", format!("GET /cb/code=pLaNt-path-16;x HTTP/1.1\r\n{host}\r\n")),
        // What MCP sends: events, and documents in strings.
        ("pLaNt-event-17", post("text/event-stream", "event: message\ndata: {\"token\":\"pLaNt-event-17\"}\n\n")),
        ("pLaNt-tool-18", post("application/json", r#"{"content":[{"text":"{\"token\":\"pLaNt-tool-18\"}"}]}"#)),
        // Not echoed, as a table in a string isn't one any more.
        ("pLaNt-table-19", post("text/csv", "user,password\r\nu,pLaNt-table-19\r\n").replace("/echo", "/v1.0/users")),
        ("pLaNt-code-20", post("application/json", r#"{"grant_type":"authorization_code","code":"pLaNt-code-20"}"#)),
        (
            "pLaNt-keys-21",
            post("application/json", r#"{"keys":[{"keyName":"key1","value":"pLaNt-keys-21"}],"key2":"pLaNt-keys-21"}"#),
        ),
        ("pLaNtbotbotbotbot22", format!("GET /bot123456789:pLaNtbotbotbotbot22/getMe HTTP/1.1\r\n{host}\r\n")),
    ]
}

#[test]
fn secrets_planted_in_every_place_are_found_nowhere_afterwards() -> Result<()> {
    require_root!(Ok(()));
    let (_folder, path) = secret_file(INJECTED)?;
    let (graph, daemon) = begin(&keys(&path), ALL, "")?;
    plant(&daemon)?;
    // A benign marker shows that bodies and headers are kept at all.
    let mut held = Wire::tls(&daemon)?;
    held.send("POST /echo?note=kept-marker HTTP/1.1\r\nHost: graph.microsoft.com\r\nX-Note: kept-marker\r\nContent-Length: 11\r\n\r\nkept-marker")?;
    ensure!(held.answer()?.status == 200, "the last request is refused");
    ensure!(graph.received().len() >= 13, "what was to be sent wasn't: {:?}", graph.received());

    let shown = shown(&daemon, "POST /echo")?;
    ensure!(shown.export.matches("kept-marker").count() >= 4, "nothing is kept: {}", shown.export);
    ensure!(shown.replay.contains("kept-marker"), "nothing is replayed: {}", shown.replay);
    let pid = daemon.pid()?;
    let limits = fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).context("no limit of cores")?;
    ensure!(core.split_whitespace().nth(4) == Some("0"), "the daemon may leave a core: {core}");
    nowhere(&daemon, &shown, planted().into_iter().map(|(secret, _)| secret).chain([INJECTED]))?;
    // What runs in the workload never had the injected secret, in its memory or elsewhere.
    let workloads = pids_below(daemon.cgroup())?;
    ensure!(workloads.len() >= 2, "no process of the workload lives: {workloads:?}");
    for pid in workloads.into_iter().filter(|other| *other != pid) {
        ensure!(!memory_holds(pid, INJECTED)?, "process {pid} has the injected secret");
        for file in ["environ", "cmdline"] {
            // It may have ended by now.
            let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            ensure!(!holds(&bytes, INJECTED), "{file} of process {pid} has the injected secret");
        }
    }
    drop(held);
    ensure!(daemon.json(&["sessions", "verify"])?["ok"] == true, "the chain doesn't verify");
    daemon.finish()
}

/// The keys of a target with the credential in `file` that takes others, too.
fn keys(file: &std::path::Path) -> String {
    format!(
        "accept_foreign = [\"cookie\", \"x-api-key\", \"?sig\", \"?token\", \"?code\"]\n\
         credential = {{ header = \"Authorization\", prefix = \"Bearer \", value_file = {file:?} }}"
    )
}

/// Sends what is planted.
fn plant(daemon: &Daemon) -> Result<()> {
    for (secret, request) in planted() {
        let mut wire = Wire::tls(daemon)?;
        wire.send(&request)?;
        let answer = wire.answer()?;
        ensure!(answer.status < 500, "{secret}: {answer:?}");
        ensure!(!holds(&answer.body, INJECTED), "the process saw the injected secret: {answer:?}");
    }
    Ok(())
}

#[test]
fn the_log_has_no_secrets_however_much_it_says() -> Result<()> {
    require_root!(Ok(()));
    let (_folder, path) = secret_file(INJECTED)?;
    let graph = Graph::start(&[])?;
    let daemon = Daemon::start_logging(&order(&graph, &keys(&path), ALL, ""), "trace")?;
    plant(&daemon)?;
    // In HTTP/2, whose frames are logged.
    let url = "https://graph.microsoft.com/echo?sig=pLaNt-sas-01";
    let words =
        ["curl", "-sS", "--http2", "-H", "X-Api-Key: pLaNt-apikey-03", "-w", "%{http_version} %{http_code}", url];
    let output = daemon.run(&words).output()?;
    ensure!(output.stdout.ends_with(b"2 200"), "{output:?}");
    let log = fs::read_to_string(daemon.room().join("daemon.log"))?;
    ensure!(log.contains("TRACE") || log.contains("DEBUG"), "it says no more than usual: {log}");
    for (secret, _) in planted().into_iter().chain([(INJECTED, String::new())]) {
        for form in forms(secret) {
            ensure!(!log.contains(&form), "`{form}` is in the log");
        }
    }
    daemon.finish()
}

/// The process gets them, as they are its own; the record doesn't.
#[test]
fn secrets_that_a_server_plants_in_its_answers_are_found_nowhere_afterwards() -> Result<()> {
    require_root!(Ok(()));
    let authority = Authority::new()?;
    let upstream = Scripted::start(authority.server(&["graph.microsoft.com"])?, |peer| {
        let head = peer.request()?;
        let (status, body) = match head.split(' ').nth(1) {
            Some("/events") => ("200 OK", "data: {\"cookie\":\"sErVe-event-01\"}\n\n"),
            Some("/missing") => {
                ("404 Not Found", "{\"error\":{\"token\":\"sErVe-error-02\",\"code\":\"kept-marker\"}}")
            }
            _ => ("503 Service Unavailable", "{\"text\":\"{\\\"password\\\":\\\"sErVe-broken-03\\\"}\"}"),
        };
        let kind = if body.starts_with("data") { "text/event-stream" } else { "application/json" };
        peer.send(format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nSet-Cookie: s=sErVe-cookie-04\r\n\
             Location: https://h/cb?code=sErVe-location-05&state=1\r\nX-Note: kept-marker\r\n\
             X-Request-Id: eyJhbGciOiJub25lIn0.sErVe-id-06.\r\n\r\n{body}",
            body.len()
        ))
    })?;
    let graph = Graph::start(&[])?;
    let daemon = Daemon::start(&Order {
        resolve: vec![("graph.microsoft.com".to_owned(), upstream.address())],
        extra_ca: authority.pem(),
        ..order(&graph, "", ALL, "")
    })?;
    for (path, status, secret) in
        [("/events", 200, "sErVe-event-01"), ("/missing", 404, "sErVe-error-02"), ("/broken", 503, "sErVe-broken-03")]
    {
        let answer = Wire::tls(&daemon)?.ask("GET", path)?;
        ensure!(answer.status == status && holds(&answer.body, secret), "{answer:?}");
    }
    let shown = shown(&daemon, "GET /broken")?;
    ensure!(shown.export.matches("kept-marker").count() >= 4, "nothing is kept: {}", shown.export);
    let planted =
        ["sErVe-event-01", "sErVe-error-02", "sErVe-broken-03", "sErVe-cookie-04", "sErVe-location-05", "sErVe-id-06"];
    nowhere(&daemon, &shown, planted.into_iter())?;
    daemon.finish()
}

/// Its limit alone would stop no core that goes to a program (core(5)).
#[test]
fn a_daemon_that_is_aborted_leaves_no_core() -> Result<()> {
    require_root!(Ok(()));
    let (_folder, path) = secret_file(INJECTED)?;
    let (_graph, mut daemon) = begin(&keys(&path), ALL, "")?;
    ensure!(Wire::tls(&daemon)?.ask("GET", "/v1.0/users")?.status == 200, "refused");
    let pid = daemon.pid()?.to_string();
    let raised = Command::new("prlimit").args(["--pid", &pid, "--core=unlimited"]).status()?;
    ensure!(raised.success(), "the limit stays");
    let status = daemon.abort()?;
    ensure!(status.signal() == Some(6) && !status.core_dumped(), "{status}");
    daemon.finish()
}

#[test]
fn masked_values_are_found_nowhere_afterwards() -> Result<()> {
    require_root!(Ok(()));
    const HOST: &str = "Host: graph.microsoft.com\r\n";
    let mask = "[[mask]]\nname = \"pii\"\njson = [\"$..phone\"]\ndetect = [\"email\"]\nheaders = [\"x-user\"]\n";
    let (_graph, daemon) = begin("mask = [\"pii\"]", ALL, mask)?;
    let post = |kind: &str, body: &str| {
        format!("POST /echo HTTP/1.1\r\n{HOST}Content-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    };
    let planted = [
        ("mAsK-query-01", format!("GET /echo?to=mAsK-query-01@contoso.example HTTP/1.1\r\n{HOST}\r\n")),
        ("mAsK-header-02", format!("GET /echo HTTP/1.1\r\n{HOST}X-To: a <mAsK-header-02@contoso.example>\r\n\r\n")),
        // Not echoed: as a text in JSON, by the path it is another place.
        (
            "mAsK-json-04",
            post("application/json", "{\"phone\":\"mAsK-json-04\",\"n\":\"kept-marker\"}")
                .replace("/echo", "/v1.0/users"),
        ),
        ("mAsK-nested-05", post("application/json", "[\"{\\\"to\\\":\\\"mAsK-nested-05@contoso.example\\\"}\"]")),
        (
            "mAsK-form-06",
            post("application/x-www-form-urlencoded", "phone=mAsK-form-06&a=kept-marker")
                .replace("/echo", "/v1.0/users"),
        ),
        ("mAsK-text-07", post("text/plain", "to mAsK-text-07@contoso.example, kept-marker")),
        ("mAsK-binary-08", post("application/octet-stream", "\0mAsK-binary-08@contoso.example\0")),
        ("mAsK-path-10", format!("GET /v1.0/users/mAsK-path-10@contoso.example HTTP/1.1\r\n{HOST}\r\n")),
        (
            "mAsK-coded-11",
            format!(
                "POST /v1.0/users/mAsK-coded-11%40contoso.example/getMemberObjects HTTP/1.1\r\n{HOST}Content-Length: 0\r\n\r\n"
            ),
        ),
        // Refused before policy is asked, and by what it carries.
        (
            "mAsK-refused-12",
            format!("GET /v1.0/mAsK-refused-12@contoso.example HTTP/1.1\r\n{HOST}X-HTTP-Method-Override: PUT\r\n\r\n"),
        ),
        (
            "mAsK-foreign-13",
            format!("GET /v1.0/mAsK-foreign-13@contoso.example HTTP/1.1\r\n{HOST}X-Api-Key: 123456789\r\n\r\n"),
        ),
        ("mAsK-broken-09", post("application/json", "{\"a\":mAsK-broken-09@contoso.example")),
    ];
    for (secret, request) in &planted {
        let mut wire = Wire::tls(&daemon)?;
        wire.send(request)?;
        let answer = wire.answer()?;
        ensure!(answer.status < 500, "{secret}: {answer:?}");
        ensure!(!holds(&answer.body, secret), "the process saw `{secret}`: {answer:?}");
    }
    let shown = shown(&daemon, "POST /echo")?;
    ensure!(shown.export.matches("kept-marker").count() >= 3, "nothing is kept: {}", shown.export);
    nowhere(&daemon, &shown, planted.iter().map(|(secret, _)| *secret))?;
    ensure!(daemon.json(&["sessions", "verify"])?["ok"] == true, "the chain doesn't verify");
    daemon.finish()
}

/// What the daemon tells of what it keeps.
struct Shown {
    export: String,
    replay: String,
    metrics: String,
}

/// Once the operation with this summary has ended.
fn shown(daemon: &Daemon, summary: &str) -> Result<Shown> {
    let export = serde_json::to_string(&decoded(&exported(daemon, summary)?)?)?;
    Ok(Shown { export, replay: replayed(daemon)?, metrics: metrics(daemon)? })
}

/// A secret as it could be written: as it is, in lower case, and in base64 behind any bytes.
fn forms(secret: &str) -> Vec<String> {
    use base64::Engine;
    let coded = (0..3).map(|shift| {
        let shifted = [&b"xy"[..shift], secret.as_bytes()].concat();
        let coded = base64::engine::general_purpose::STANDARD_NO_PAD.encode(&shifted);
        coded[(shift * 8).div_ceil(6)..shifted.len() * 8 / 6].to_owned()
    });
    [secret.to_owned(), secret.to_lowercase()].into_iter().chain(coded).collect()
}

/// None of these is in what the daemon keeps, says or tells, whatever its case.
fn nowhere(daemon: &Daemon, shown: &Shown, secrets: impl Iterator<Item = &'static str>) -> Result<()> {
    let mut files = contents(&daemon.room().join("state"))?;
    files.extend(contents(&daemon.room().join("run"))?);
    files.extend(contents(&daemon.room().join("home"))?);
    ensure!(
        files.iter().any(|(path, text)| path.ends_with("record.db-wal") && !text.is_empty()),
        "there is no log to look into"
    );
    let is_segment = |path: &std::path::Path| path.extension().is_some_and(|end| end == "seg");
    ensure!(files.iter().any(|(path, text)| is_segment(path) && !text.is_empty()), "there is no journal to look into");
    let log = fs::read_to_string(daemon.room().join("daemon.log"))?;
    let Shown { export, replay, metrics } = shown;
    for secret in secrets {
        for text in forms(secret) {
            for (place, content) in [("the export", export), ("the replay", replay), ("the metrics", metrics)] {
                ensure!(!content.contains(&text), "`{text}` is in {place}: {content}");
            }
            let found = files.iter().find(|(_, content)| content.contains(&text)).map(|(path, _)| path);
            ensure!(found.is_none(), "`{text}` is in {found:?}");
            ensure!(!log.contains(&text), "`{text}` is in the log");
        }
    }
    Ok(())
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// The exported lines with their bodies as text.
fn decoded(lines: &[serde_json::Value]) -> Result<Vec<serde_json::Value>> {
    let mut lines = lines.to_vec();
    for line in &mut lines {
        for side in ["request", "response"] {
            if let Some(body) = line["payload"][side]["body"].as_str().map(str::to_owned) {
                let bytes = data_encoding(&body)?;
                line["payload"][side]["body"] = String::from_utf8_lossy(&bytes).into_owned().into();
            }
        }
    }
    Ok(lines)
}

fn data_encoding(text: &str) -> Result<Vec<u8>> {
    use base64::Engine;
    Ok(base64::engine::general_purpose::STANDARD.decode(text)?)
}

fn replayed(daemon: &Daemon) -> Result<String> {
    let mut all = String::new();
    for session in daemon.json(&["sessions", "list"])?.as_array().into_iter().flatten() {
        let id = session["session"].as_str().context("an id")?;
        all += &daemon.ask(&["sessions", "replay", id, "--speed", "0"])?;
    }
    Ok(all)
}

fn metrics(daemon: &Daemon) -> Result<String> {
    use std::io::Write;
    let mut socket = std::os::unix::net::UnixStream::connect(daemon.room().join("run/metrics.sock"))?;
    socket.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
    let mut text = String::new();
    socket.read_to_string(&mut text)?;
    Ok(text)
}

/// The processes in a cgroup and below it.
fn pids_below(cgroup: &std::path::Path) -> Result<Vec<u32>> {
    let mut pids = Vec::new();
    for line in fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default().lines() {
        pids.push(line.parse()?);
    }
    for entry in fs::read_dir(cgroup)? {
        let path = entry?.path();
        if path.is_dir() {
            pids.extend(pids_below(&path)?);
        }
    }
    Ok(pids)
}

/// Whether the memory of a process holds `text`.
fn memory_holds(pid: u32, text: &str) -> Result<bool> {
    let Ok(maps) = fs::read_to_string(format!("/proc/{pid}/maps")) else { return Ok(false) };
    let mut memory = fs::File::open(format!("/proc/{pid}/mem"))?;
    for line in maps.lines().filter(|line| line.contains(" rw")) {
        let range = line.split(' ').next().and_then(|range| range.split_once('-')).context("a range")?;
        let (from, to) = (u64::from_str_radix(range.0, 16)?, u64::from_str_radix(range.1, 16)?);
        let mut bytes = vec![0; usize::try_from(to - from)?.min(64 << 20)];
        memory.seek(SeekFrom::Start(from))?;
        // Some mappings can't be read; nothing lies there.
        let count = memory.read(&mut bytes).unwrap_or(0);
        if String::from_utf8_lossy(&bytes[..count]).contains(text) {
            return Ok(true);
        }
    }
    Ok(false)
}
