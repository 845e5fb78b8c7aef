//! What these tests begin with.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use interceptor_tests::daemon::{Daemon, Order};
use interceptor_tests::graph::Graph;
use serde_json::Value;

/// All of HTTP on the target, and the ways to it.
pub(crate) const ALL: &str = r#"
@id("all")
permit (principal, action in [Action::"reach", Action::"http"], resource == Target::"graph");
"#;

/// A folder of root's with one secret in it.
pub(crate) fn secret_file(text: &str) -> Result<(tempfile::TempDir, PathBuf)> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("secret");
    fs::write(&path, text)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    Ok((folder, path))
}

/// A daemon in front of a Graph whose target has these keys besides its name and hosts.
pub(crate) fn begin(keys: &str, policy: &str, more: &str) -> Result<(Graph, Daemon)> {
    let graph = Graph::start(&[])?;
    let daemon = Daemon::start(&order(&graph, keys, policy, more))?;
    Ok((graph, daemon))
}

/// An order of that.
pub(crate) fn order(graph: &Graph, keys: &str, policy: &str, more: &str) -> Order {
    Order {
        purpose: "secrets",
        targets: format!("[[target]]\nname = \"graph\"\nhosts = [\"graph.microsoft.com\"]\n{keys}\n"),
        more: more.to_owned(),
        bring: vec!["wire"],
        ..Order::for_graph(graph, policy)
    }
}

/// The exported operations, a JSON object each, once the one with this summary has ended.
pub(crate) fn exported(daemon: &Daemon, summary: &str) -> Result<Vec<Value>> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let text = daemon.ask(&["sessions", "export", "--format", "ndjson"])?;
        let lines: Vec<Value> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        if lines.iter().any(|line| line["operation"]["summary"] == summary && !line["operation"]["outcome"].is_null()) {
            return Ok(lines);
        }
        if Instant::now() > deadline {
            bail!("`{summary}` has not ended: {text}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The payload of the exported operation with this summary.
pub(crate) fn payload(lines: &[Value], summary: &str) -> Value {
    lines
        .iter()
        .find(|line| line["operation"]["summary"] == summary)
        .map_or(Value::Null, |line| line["payload"].clone())
}

/// The files below `folder`, with what is in them but for zeros: journals are mostly that.
pub(crate) fn contents(folder: &Path) -> Result<Vec<(PathBuf, String)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(contents(&path)?);
        } else if path.is_file() {
            let bytes = fs::read(&path)?;
            let written: Vec<&[u8]> = bytes.split(|byte| *byte == 0).filter(|part| !part.is_empty()).collect();
            found.push((path, String::from_utf8_lossy(&written.join(&b'\n')).into_owned()));
        }
    }
    Ok(found)
}
