//! Broken configuration and policy files under a running daemon: each is refused with file, line, column and what was
//! expected, the last good ones stay in force, and all of that is recorded.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use interceptor::record::event::What;
use interceptor_tests::daemon::{Daemon, Order, READ_ONLY};
use interceptor_tests::graph::Graph;
use interceptor_tests::{recorded, require_root};

/// The product's own tables of what is wrong and how that is told.
fn product(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../interceptor/src").join(path)
}

/// Each broken configuration with its title.
fn configurations() -> Result<Vec<(String, String)>> {
    let table = fs::read_to_string(product("config/load/broken.txt"))?;
    let cases = table.split("### ").skip(1).filter_map(|case| {
        let (title, rest) = case.split_once('\n')?;
        Some((title.to_owned(), rest.split_once("\n---\n")?.0.to_owned()))
    });
    Ok(cases.collect())
}

/// Each broken policy file with its name.
fn policies() -> Result<Vec<(String, String)>> {
    let mut cases = Vec::new();
    for entry in fs::read_dir(product("policy/load/broken"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "cedar") {
            cases.push((path.display().to_string(), fs::read_to_string(&path)?));
        }
    }
    cases.sort();
    Ok(cases)
}

/// Reloads, expecting a refusal that names a place in `file`.
fn is_refused(daemon: &Daemon, title: &str, file: &str) -> Result<()> {
    let told = daemon.interceptor(&["policy", "reload"]).stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&told.stderr).into_owned();
    ensure!(told.status.code() == Some(1), "{title}: it was taken, or ended otherwise: {} {said}", told.status);
    ensure!(said.contains("refused-to-load"), "{title}: {said}");
    // `[/…/config.toml:3:8]` above the underlined text.
    let place =
        said.split(&format!("{file}:")).nth(1).with_context(|| format!("{title}: no place in {file}: {said}"))?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    let mut numbers = place.split(|c: char| !c.is_ascii_digit());
    ensure!(numbers.next().is_some_and(digits) && numbers.next().is_some_and(digits), "{title}: {said}");
    Ok(())
}

/// A workload's read still gets through.
fn serves(daemon: &Daemon) -> Result<()> {
    let program = daemon.binary("load");
    let program = program.to_str().context("a path in UTF-8")?;
    let mut load =
        daemon.run(&[program, "graph.microsoft.com", "1"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut input = load.stdin.take().context("its input")?;
    let mut lines = BufReader::new(load.stdout.take().context("its output")?).lines();
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        writeln!(input, "count")?;
        if lines.next().context("it ended")??.trim().parse::<u64>()? > 0 {
            break;
        }
        ensure!(Instant::now() < deadline, "nothing got through");
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(input);
    load.wait()?;
    Ok(())
}

#[test]
fn each_broken_file_is_refused_and_the_last_good_ones_stay() -> Result<()> {
    require_root!(Ok(()));
    let graph = Graph::start(&[])?;
    let order = Order { bring: vec!["load"], purpose: "broken", ..Order::for_graph(&graph, READ_ONLY) };
    let daemon = Daemon::start(&order)?;
    let generation = daemon.json(&["status"])?["generation"].clone();
    let good = fs::read_to_string(daemon.config())?;
    let (configurations, policies) = (configurations()?, policies()?);
    ensure!(configurations.len() + policies.len() >= 40, "only {} broken files", configurations.len() + policies.len());

    for (title, text) in &configurations {
        fs::write(daemon.config(), text)?;
        is_refused(&daemon, title, "config.toml")?;
    }
    fs::write(daemon.config(), &good)?;
    for (title, text) in &policies {
        fs::write(daemon.room().join("etc/policy.d/crm.cedar"), text)?;
        is_refused(&daemon, title, "crm.cedar")?;
    }

    let status = daemon.json(&["status"])?;
    ensure!(status["generation"] == generation, "another generation is in force: {status}");
    ensure!(status["serving"] == "degraded" && status["causes"][0]["code"] == "reload-refused", "status: {status}");
    serves(&daemon)?;
    let refused = recorded::events(&daemon.database(), 0)?
        .iter()
        .filter(|(_, event)| matches!(event.what, What::SnapshotRejected { .. }))
        .count();
    ensure!(refused == configurations.len() + policies.len(), "{refused} refusals are recorded");
    println!("{} broken configurations and {} broken policy files were refused", configurations.len(), policies.len());

    ensure!(daemon.reload(READ_ONLY)?.status.success(), "a good policy is refused");
    ensure!(daemon.json(&["status"])?["serving"] == "yes", "status doesn't clear");
    daemon.finish()
}
