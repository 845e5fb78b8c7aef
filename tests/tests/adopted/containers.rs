//! Containers with a network namespace of their own, which the daemon knows by their labels.

use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use interceptor::record::event::{Adoption, Change, What};
use interceptor_tests::container::{Container, Engine, Host, IMAGE, LABEL, LABELLED, Network, OURS};
use interceptor_tests::daemon::Daemon;
use interceptor_tests::unit::said;
use interceptor_tests::{recorded, require_root};

use super::daemon::{asking, start_with, until};

/// Where a server of the container's own listens, which only somebody who isn't steered gets to.
const OWN: &str = "127.0.0.1:4040";

/// A server in the container's network.
fn server(container: &Container) -> Result<TcpListener> {
    container.inside(|| {
        let listener = TcpListener::bind(OWN)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    })
}

/// Connects from the moment that the container is there until it is steered; gives how long that took. Nothing may get to
/// the server.
fn steered_from_the_first(daemon: &Daemon, container: &Container, server: &TcpListener) -> Result<Duration> {
    let start = Instant::now();
    loop {
        match container.unit.attempt(&["tcp", "plain", OWN])?.as_str() {
            "ECONNRESET" => break,
            "ECONNREFUSED" => ensure!(start.elapsed() < Duration::from_secs(30), "refused:\n{}", daemon.log()),
            other => anyhow::bail!("{other}\n{}", daemon.log()),
        }
    }
    ensure!(server.accept().is_err(), "it got past us");
    Ok(start.elapsed())
}

/// What was recorded of its adoption.
fn adoptions_of(daemon: &Daemon, container: &Container) -> Result<Vec<Change>> {
    let path = container.path()?;
    let events = recorded::events(&daemon.database(), 0)?;
    let changes = events.into_iter().filter_map(|(_, event)| match event.what {
        What::Adoption(Adoption { change, .. }) => Some(change),
        _ => None,
    });
    Ok(changes
        .filter(|change| match change {
            Change::Adopted { cgroup, .. } | Change::Gone { cgroup } => *cgroup == path,
            _ => false,
        })
        .collect())
}

/// A request is decided and recorded, and what is no target or no TCP gets nowhere.
fn is_governed(daemon: &Daemon, container: &Container) -> Result<()> {
    let read = said(&mut asking(daemon, &container.unit, "GET"))?;
    ensure!(read.starts_with("HTTP/1.1 200"), "{read}\n{}", daemon.log());
    let deleted = said(&mut asking(daemon, &container.unit, "DELETE"))?;
    ensure!(deleted.starts_with("HTTP/1.1 403") && deleted.contains("denied-by-default"), "{deleted}");
    ensure!(container.unit.attempt(&["tcp", "plain", "198.51.100.7:443"])? == "ECONNRESET");
    ensure!(container.unit.attempt(&["udp", "198.51.100.7:443"])? == "ECONNREFUSED");
    let sessions = daemon.json(&["sessions", "list"])?;
    let sessions = sessions.as_array().context("a list")?;
    let of = |what: &dyn Fn(&serde_json::Value) -> bool| sessions.iter().filter(|one| what(one)).count();
    ensure!(sessions.iter().all(|one| one["workload"] == "svc"), "{sessions:?}");
    ensure!(of(&|one| one["target"] == "graph") >= 2, "{sessions:?}");
    ensure!(of(&|one| one["original"] == "198.51.100.7:443" && one["reason"] == "not-a-target") >= 1, "{sessions:?}");
    Ok(())
}

/// Nothing that it tried is unexplained.
fn explained(daemon: &Daemon) -> Result<()> {
    let ledger = daemon.json(&["ledger"])?;
    let svc = ledger.as_array().context("a list")?.iter().find(|one| one["workload"] == "svc").context("its counts")?;
    let kinds = svc["kinds"].as_object().context("kinds")?;
    ensure!(!kinds.is_empty() && kinds.values().all(|one| one["unexplained"] == 0), "{ledger}");
    Ok(())
}

/// The descriptors that the daemon has open, once they are as few as they should be: those in a network namespace keep it.
fn descriptors(daemon: &Daemon, at_most: usize) -> Result<usize> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let count = std::fs::read_dir(format!("/proc/{}/fd", daemon.pid()?))?.count();
        if count <= at_most || Instant::now() > deadline {
            return Ok(count);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_container_of_dockers_is_governed_from_its_first_connect_and_when_it_is_made_again() -> Result<()> {
    require_root!(Ok(()));
    let host = Host::new()?;
    let (_graph, daemon) = start_with("container", LABELLED)?;
    let mut fewest = usize::MAX;
    for (round, network) in [Network::Bridge, Network::None, Network::Bridge].into_iter().enumerate() {
        let container = host.start_in(&daemon, Engine::Docker, &[LABEL, ("other", "x")], network)?;
        let server = server(&container)?;
        let after = steered_from_the_first(&daemon, &container, &server)?;
        println!("round {round}: steered after {after:?}");
        is_governed(&daemon, &container)?;
        let mut inside = container.unit.command("sleep").arg("60").spawn()?;
        let listed = until(&daemon, |one| one["containment"] == "contained" && one["adopted"][0].is_object())?;
        ensure!(listed["adopted"][0]["cgroup"] == container.path()?.as_str(), "{listed}");
        ensure!(listed["adopted"][0]["image"] == format!("sha256:{IMAGE}").as_str(), "{listed}");
        let [Change::Adopted { image: Some(image), .. }] = &adoptions_of(&daemon, &container)?[..] else {
            anyhow::bail!("{:?}", adoptions_of(&daemon, &container)?);
        };
        ensure!(*image == format!("sha256:{IMAGE}"), "{image}");
        explained(&daemon)?;
        if network == Network::Bridge {
            ensure!(container.packets()? == 0, "{} packets left it", container.packets()?);
            // One that isn't the container's would be seen.
            container.inside(|| Ok(std::net::UdpSocket::bind("0.0.0.0:0")?.send_to(b"x", "198.51.100.7:9")?))?;
            ensure!(container.packets()? > 0, "nothing is seen");
        }
        inside.kill()?;
        inside.wait()?;
        container.stop()?;
        until(&daemon, |one| one["adopted"].as_array().is_some_and(Vec::is_empty))?;
        // The first round opens what stays open.
        let left = descriptors(&daemon, fewest)?;
        ensure!(left <= fewest, "{left} descriptors after round {round}, {fewest} before");
        fewest = left;
    }
    explained(&daemon)?;
    daemon.finish()
}

#[test]
fn a_container_outlives_the_daemon_governed() -> Result<()> {
    require_root!(Ok(()));
    let host = Host::new()?;
    let (_graph, mut daemon) = start_with("container", LABELLED)?;
    let container = host.start(&daemon, Engine::Docker, &[LABEL])?;
    let server = server(&container)?;
    steered_from_the_first(&daemon, &container, &server)?;
    daemon.kill9()?;
    ensure!(container.unit.attempt(&["tcp", "plain", OWN])? == "ECONNREFUSED");
    // One that is made while there is no daemon.
    let second = host.start(&daemon, Engine::Docker, &[LABEL])?;
    let beside = self::server(&second)?;
    ensure!(second.unit.attempt(&["tcp", "plain", OWN])? == "ECONNREFUSED");
    daemon.restart()?;
    for (container, server) in [(&container, &server), (&second, &beside)] {
        steered_from_the_first(&daemon, container, server)?;
        is_governed(&daemon, container)?;
    }
    explained(&daemon)?;
    container.stop()?;
    second.stop()?;
    daemon.finish()
}

#[test]
fn a_container_without_ipv6_is_governed() -> Result<()> {
    require_root!(Ok(()));
    let host = Host::new()?;
    let (_graph, daemon) = start_with("container", LABELLED)?;
    let container = host.start_in(&daemon, Engine::Docker, &[LABEL], Network::WithoutIpv6)?;
    let server = server(&container)?;
    steered_from_the_first(&daemon, &container, &server)?;
    is_governed(&daemon, &container)?;
    let by_ipv6 = container.unit.attempt(&["tcp", "plain", "[2001:db8::7]:443"])?;
    ensure!(by_ipv6 == "ECONNREFUSED", "{by_ipv6}");
    until(&daemon, |one| one["containment"] == "contained" && one["adopted"][0].is_object())?;
    explained(&daemon)?;
    container.stop()?;
    daemon.finish()
}

/// It gets to its own server, once the daemon knows that it is nobody's.
fn is_let_go(daemon: &Daemon, container: &Container, server: &TcpListener) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    while container.unit.attempt(&["connect", OWN])? != "ok" {
        ensure!(Instant::now() < deadline, "it isn't let go:\n{}", daemon.log());
    }
    ensure!(server.accept().is_ok());
    Ok(())
}

/// Of one whose file is broken it isn't known whose it is: that one is refused, and no other.
#[test]
fn a_container_that_cant_be_read_keeps_no_other_from_its_workload() -> Result<()> {
    require_root!(Ok(()));
    let host = Host::new()?;
    let (_graph, daemon) = start_with("container", LABELLED)?;
    let broken = host.start_broken(&daemon)?;
    let own_server = server(&broken)?;
    let own = host.start(&daemon, Engine::Docker, &[LABEL])?;
    steered_from_the_first(&daemon, &own, &server(&own)?)?;
    is_governed(&daemon, &own)?;
    let other = host.start(&daemon, Engine::Docker, &[("interceptor", "other")])?;
    is_let_go(&daemon, &other, &server(&other)?)?;
    let refused = broken.unit.attempt(&["tcp", "plain", OWN])?;
    ensure!(refused == "ECONNREFUSED" && own_server.accept().is_err(), "{refused}");
    let told = daemon.log().matches("whose a container is isn't known").count();
    ensure!(told == 1, "it was said {told} times:\n{}", daemon.log());
    broken.write_down(&daemon, Engine::Docker, &[LABEL])?;
    steered_from_the_first(&daemon, &broken, &own_server)?;
    for container in [broken, own, other] {
        container.stop()?;
    }
    daemon.finish()
}

/// Also one that was there before anybody looked for containers.
#[test]
fn a_container_that_cant_be_read_is_refused_by_a_reload_that_looks_for_it() -> Result<()> {
    require_root!(Ok(()));
    let host = Host::new()?;
    let (_graph, daemon) = start_with("container", "")?;
    let broken = host.start_broken(&daemon)?;
    let server = server(&broken)?;
    ensure!(broken.unit.attempt(&["connect", OWN])? == "ok" && server.accept().is_ok(), "nobody looks for it yet");
    let config = std::fs::read_to_string(daemon.config())?;
    std::fs::write(daemon.config(), format!("{config}\n{LABELLED}"))?;
    daemon.ask(&["policy", "reload"])?;
    let deadline = Instant::now() + Duration::from_secs(20);
    while broken.unit.attempt(&["connect", OWN])? != "ECONNREFUSED" {
        ensure!(Instant::now() < deadline, "it is free:\n{}", daemon.log());
    }
    while server.accept().is_ok() {}
    broken.write_down(&daemon, Engine::Docker, &[("interceptor", "other")])?;
    is_let_go(&daemon, &broken, &server)?;
    broken.stop()?;
    daemon.finish()
}

#[test]
fn a_container_without_the_label_is_let_alone() -> Result<()> {
    require_root!(Ok(()));
    let host = Host::new()?;
    let (_graph, daemon) = start_with("container", LABELLED)?;
    for (engine, labels) in [(Engine::Docker, &[("interceptor", "other")][..]), (Engine::Podman, &[])] {
        let container = host.start(&daemon, engine, labels)?;
        is_let_go(&daemon, &container, &server(&container)?)?;
        ensure!(daemon.json(&["sessions", "list"])?.as_array().is_some_and(Vec::is_empty), "{engine:?}");
        container.stop()?;
    }
    daemon.finish()
}

#[test]
fn a_container_of_podmans_is_governed_and_what_watches_over_it_is_not() -> Result<()> {
    require_root!(Ok(()));
    let host = Host::new()?;
    let (_graph, daemon) = start_with("container", LABELLED)?;
    let container = host.start(&daemon, Engine::Podman, &[LABEL])?;
    // conmon, a process of the host's root.
    let beside = container.path()?.replace("libpod-", "libpod-conmon-");
    let beside = interceptor_tests::remains::cgroup2()?.join(beside.trim_start_matches('/'));
    std::fs::create_dir(&beside)?;
    let script = r#"echo 0 > "$0/cgroup.procs" && exec sleep 60"#;
    let mut conmon = Command::new("/bin/sh").args(["-c", script]).arg(&beside).spawn()?;
    let judged = (|| {
        let server = server(&container)?;
        steered_from_the_first(&daemon, &container, &server)?;
        is_governed(&daemon, &container)?;
        let found = adoptions_of(&daemon, &container)?;
        let image = Some(format!("sha256:{IMAGE}"));
        ensure!(matches!(&found[..], [Change::Adopted { image: found, .. }] if *found == image), "{found:?}");
        let listed = until(&daemon, |one| one["adopted"].as_array().is_some_and(|cgroups| cgroups.len() == 1))?;
        ensure!(listed["containment"] == "contained", "{listed}");
        explained(&daemon)
    })();
    conmon.kill()?;
    conmon.wait()?;
    for _ in 0..100 {
        if std::fs::remove_dir(&beside).is_ok() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    judged?;
    container.stop()?;
    daemon.finish()
}

#[test]
fn the_image_of_a_container_that_is_adopted_by_its_cgroup_is_known() -> Result<()> {
    require_root!(Ok(()));
    let host = Host::new()?;
    let by_path = format!("[[workload]]\nname = \"svc\"\nmatch = {{ cgroup = \"/docker/{OURS}*\" }}\n");
    let (_graph, daemon) = start_with("container", &by_path)?;
    let container = host.start(&daemon, Engine::Docker, &[])?;
    let listed = until(&daemon, |one| one["adopted"][0].is_object())?;
    ensure!(listed["adopted"][0]["image"] == format!("sha256:{IMAGE}").as_str(), "{listed}");
    container.stop()?;
    daemon.finish()
}
