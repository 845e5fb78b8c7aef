//! Finding, keeping and destroying what sessions sent and got, as an operator does it, and checking the record afterwards
//! without a daemon.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use interceptor_tests::daemon::Daemon;
use interceptor_tests::require_root;
use interceptor_tests::wire::Wire;
use rusqlite::Connection;

use super::fixture::{ALL, begin, exported};

/// What a command that is refused says.
fn refused(daemon: &Daemon, words: &[&str]) -> Result<String> {
    let output = daemon.interceptor(words).output()?;
    ensure!(output.status.code() == Some(1), "{words:?}: {output:?}");
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// The files below a folder that hold these bytes.
fn files_with(folder: &Path, bytes: &[u8]) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files_with(&path, bytes)?);
        } else if std::fs::read(&path)?.windows(bytes.len()).any(|window| window == bytes) {
            found.push(path.display().to_string());
        }
    }
    Ok(found)
}

/// The key of a session as the journal and the database have it, sealed.
fn wrapped(daemon: &Daemon, session: &str) -> Result<(Vec<u8>, String)> {
    let db = Connection::open(daemon.database())?;
    let sql = "SELECT wrapped, lower(hex(wrapped)) FROM session_keys WHERE session = ?1";
    Ok(db.query_row(sql, [session], |row| Ok((row.get(0)?, row.get(1)?)))?)
}

#[test]
fn a_live_session_is_found_held_and_erased_and_its_key_doesnt_come_back() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, mut daemon) = begin("", ALL, "")?;
    let mut wire = Wire::tls(&daemon)?;
    ensure!(wire.ask("GET", "/v1.0/users")?.status == 200, "refused");
    exported(&daemon, "GET /v1.0/users")?;

    let hits = daemon.json(&["sessions", "search", "/v1.0/users", "--verdict", "allow", "--action", "http:GET"])?;
    ensure!(hits.as_array().is_some_and(|hits| hits.len() == 1), "{hits}");
    ensure!(hits[0]["host"] == "graph.microsoft.com" && hits[0]["workload"] == "crm", "{hits}");
    let id = hits[0]["session"].as_str().context("no session")?.to_owned();
    ensure!(daemon.ask(&["sessions", "search", "nowhere"])?.contains("nothing recorded fits"), "it found something");
    let unknown = refused(&daemon, &["sessions", "erase", "ses_01zz"])?;
    ensure!(unknown.matches("sessions list").count() == 1, "{unknown}");

    daemon.ask(&["sessions", "hold", &id])?;
    ensure!(refused(&daemon, &["sessions", "erase", &id])?.contains("session-held"), "a held session was erased");
    let pruned = daemon.ask(&["sessions", "prune", "--older-than", "0s"])?;
    ensure!(pruned.contains("no payload is older"), "{pruned}");
    daemon.ask(&["sessions", "hold", &id, "--release"])?;

    let (key, hex) = wrapped(&daemon, &id)?;
    daemon.ask(&["sessions", "erase", &id])?;
    // The session lives on, with the key that it has.
    ensure!(wire.ask("GET", "/v1.0/users?$top=1")?.status == 200, "the session was ended");
    drop(wire);
    let shown = daemon.ask(&["sessions", "replay", &id, "--speed", "0"])?;
    ensure!(shown.contains("was erased") && !shown.contains("> GET"), "{shown}");
    let state = daemon.database().parent().context("a folder")?.to_owned();
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let found = [files_with(&state, &key)?, files_with(&state, hex.as_bytes())?].concat();
        if found.is_empty() {
            break;
        }
        ensure!(Instant::now() < deadline, "the key is still in {found:?}");
        std::thread::sleep(Duration::from_millis(100));
    }

    // Stopped, it leaves a checkpoint; a copy of it and the public key prove the chain elsewhere.
    daemon.stop()?;
    let copy = tempfile::tempdir()?;
    let (db, kept) = (copy.path().join("record.db"), copy.path().join("kept"));
    std::fs::copy(daemon.database(), &db)?;
    std::fs::copy(state.join("checkpoints"), &kept)?;
    let (db, kept) = (db.to_str().context("a path")?, kept.to_str().context("a path")?);
    let report = daemon.json(&["sessions", "verify", "--db", db, "--checkpoints", kept])?;
    ensure!(report["ok"] == true && report["checkpoints"]["uncovered"].is_null(), "{report}");
    let public = report["checkpoints"]["key"].as_str().context("a key")?;
    let report = daemon.json(&["sessions", "verify", "--db", db, "--checkpoints", kept, "--key", public])?;
    ensure!(report["ok"] == true, "{report}");
    let other = "00".repeat(32);
    let words = ["sessions", "verify", "--db", db, "--checkpoints", kept, "--key", other.as_str()];
    let output = daemon.interceptor(&words).output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.code() == Some(1) && said.contains("signed with another key"), "{said}");
    daemon.finish()
}
