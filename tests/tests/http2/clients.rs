//! Clients of other makers, unmodified.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use interceptor_tests::daemon::Daemon;
use interceptor_tests::{recorded, require_root};

use super::fixture::{READ, begin};

fn said(daemon: &Daemon, words: &[&str]) -> Result<String> {
    let output = daemon.run(words).stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    ensure!(output.status.success(), "{words:?} ended with {}: {said}", output.status);
    Ok(said)
}

#[test]
fn curl_speaks_http2_and_is_told_in_it() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, daemon) = begin(READ)?;
    let curl = |method: &str| {
        let url = "https://graph.microsoft.com/v1.0/users";
        said(&daemon, &["curl", "-s", "--http2", "-X", method, "-w", "\n%{http_version} %{http_code}", url])
    };
    let get = curl("GET")?;
    ensure!(get.ends_with("\n2 200") && get.contains("Adele Vance"), "{get}");
    let post = curl("POST")?;
    ensure!(post.ends_with("\n2 403") && post.contains("denied-by-default"), "{post}");
    daemon.finish()
}

#[test]
fn every_request_of_h2load_is_answered_and_recorded() -> Result<()> {
    require_root!(Ok(()));
    let (graph, daemon) = begin(READ)?;
    let report =
        said(&daemon, &["h2load", "-n", "2000", "-c", "4", "-m", "50", "https://graph.microsoft.com/v1.0/users"])?;
    ensure!(report.contains("Application protocol: h2"), "{report}");
    let line = report.lines().find(|line| line.starts_with("requests:")).context("a report")?;
    ensure!(line.contains("2000 succeeded, 0 failed"), "{report}");
    ensure!(graph.received().len() == 2_000 && graph.connections() == 4, "{} came", graph.received().len());
    let database = daemon.database();
    let done = || -> Result<usize> {
        let operations = recorded::operations(&database, 0)?;
        Ok(operations.iter().filter(|one| one.outcome == Some(("done".into(), Some(200)))).count())
    };
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(40);
    while done()? < 2_000 {
        ensure!(std::time::Instant::now() < deadline, "{} of 2000 are recorded", done()?);
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    daemon.finish()
}

/// What passes in a second, directly and through a daemon, one after the other: run it alone.
#[test]
#[ignore = "a measure: it takes a minute, and wants the machine for itself"]
fn requests_a_second_directly_and_through_the_daemon() -> Result<()> {
    require_root!(Ok(()));
    let (graph, daemon) = begin(READ)?;
    let direct = format!("https://{}/v1.0/users", graph.address());
    for (connections, streams) in [("1", "64"), ("64", "1")] {
        let load = ["-D", "5", "--warm-up-time", "1", "-c", connections, "-m", streams];
        let finished = |report: &str| -> Result<String> {
            let line = report.lines().find(|line| line.starts_with("finished in")).context("a report")?;
            Ok(line.to_owned())
        };
        let output = std::process::Command::new("h2load").args(load).arg(&direct).output()?;
        let directly = finished(&String::from_utf8_lossy(&output.stdout))?;
        let words = [&["h2load"][..], &load, &["https://graph.microsoft.com/v1.0/users"]].concat();
        let through = finished(&said(&daemon, &words)?)?;
        println!("{connections} connections, {streams} streams each:\n  direct  {directly}\n  through {through}");
    }
    daemon.finish()
}
