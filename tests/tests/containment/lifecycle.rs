//! What a launch keeps of its caller, how it ends, and what it costs.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use interceptor::launch::channel::{self, Received, ToClient, ToInit};
use interceptor::launch::{self, LaunchError};
use interceptor_tests::require_root;

use super::fixture::{Launcher, UID};

fn shell(launcher: &Launcher, script: &str) -> super::fixture::Outcome {
    launcher.run(&["sh", "-c", script])
}

fn exited(status: u8) -> Option<ToClient> {
    Some(ToClient::Exited(status))
}

#[test]
fn statuses_are_the_commands() {
    require_root!();
    let launcher = Launcher::new();
    for status in [0, 1, 7, 255] {
        assert_eq!(shell(&launcher, &format!("exit {status}")).end, exited(status));
    }
    assert_eq!(shell(&launcher, "kill -TERM $$").end, Some(ToClient::Signaled(15)));
    assert_eq!(shell(&launcher, "kill -KILL $$").end, Some(ToClient::Signaled(9)));
}

#[test]
fn a_command_that_cant_be_executed_says_why() {
    require_root!();
    let launcher = Launcher::new();
    let failed = |command: &str| match launcher.run(&[command]).end {
        Some(ToClient::Failed { status, message, next }) => (status, message, next),
        other => panic!("{command}: {other:?}"),
    };
    let (status, message, _) = failed("no-such-command");
    assert_eq!((status, message.as_str()), (127, "command `no-such-command` was not found"));
    assert_eq!(failed("/etc/passwd").0, 126);
    fs::write("/tmp/interceptor-test-command", "#!/bin/sh\n").unwrap();
    let (status, _, next) = failed("/tmp/interceptor-test-command");
    fs::remove_file("/tmp/interceptor-test-command").unwrap();
    assert_eq!(status, 127);
    assert!(next.contains("`/tmp` is private"), "{next}");

    let script = launcher.folder.join("script");
    fs::write(&script, "echo from a script: $1\n").unwrap();
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    assert_eq!(launcher.run(&[script.to_str().unwrap(), "x"]).output, "from a script: x\n");
}

#[test]
fn bytes_pass_as_they_are() {
    require_root!();
    let launcher = Launcher::new();
    let bytes: Vec<u8> = (0..2_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let (input, mut writer) = std::io::pipe().unwrap();
    let (mut reader, output) = std::io::pipe().unwrap();
    let launched = launcher
        .start(&["cat"], |order| {
            order.stdio[0] = input.into();
            order.stdio[1] = output.into();
        })
        .unwrap();
    let sent = bytes.clone();
    let write = std::thread::spawn(move || writer.write_all(&sent).unwrap());
    let mut received = Vec::new();
    reader.read_to_end(&mut received).unwrap();
    write.join().unwrap();
    assert!(received == bytes, "{} of {} bytes", received.len(), bytes.len());
    assert_eq!(launched.finish().end, exited(0));
}

#[test]
fn the_callers_directory_umask_and_limits_are_kept() {
    require_root!();
    let launcher = Launcher::new();
    let outcome = shell(&launcher, "pwd; umask; ulimit -n; ps -o pid= -p $$");
    let ours = |what: &str| {
        let output = Command::new("sh").args(["-c", what]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let expected = format!("{}\n{}{}", launcher.home.display(), ours("umask"), ours("ulimit -n"));
    assert!(outcome.output.starts_with(&expected), "{outcome:?}, expected {expected}");
    assert_eq!(outcome.output.lines().last().unwrap().trim(), "2", "the first process after process 1");
}

#[test]
fn signals_reach_the_command() {
    require_root!();
    let launcher = Launcher::new();
    let project = project(&launcher);
    for (signal, name) in [(2, "INT"), (15, "TERM"), (1, "HUP"), (10, "USR1")] {
        let script = format!("trap 'echo got {name}; exit 3' {name}; : >project/{name}; while :; do sleep 0.02; done");
        let launched = launcher.start(&["sh", "-c", &script], |_| {}).unwrap();
        wait_for_start(&launched.channel);
        // The shell sets its trap a moment after it was started; until then the signal would kill it.
        wait_for_file(&project.join(name));
        channel::send(&launched.channel, &ToInit::Signal(signal), None).unwrap();
        let outcome = launched.finish();
        assert_eq!(outcome.end, exited(3), "{outcome:?}");
        assert!(outcome.output.contains(&format!("got {name}")));
    }
}

#[test]
fn stop_and_continue_reach_the_group() {
    require_root!();
    let launcher = Launcher::new();
    let script = "sleep 2; echo on";
    let launched = launcher.start(&["sh", "-c", script], |_| {}).unwrap();
    wait_for_start(&launched.channel);
    channel::send(&launched.channel, &ToInit::Signal(20), None).unwrap();
    let ended = launched.running.wait(Duration::from_secs(4)).unwrap();
    assert!(!ended, "it is stopped");
    channel::send(&launched.channel, &ToInit::Signal(18), None).unwrap();
    let outcome = launched.finish();
    assert_eq!((outcome.end, outcome.output.as_str()), (exited(0), "on\n"));
}

#[test]
fn the_end_of_the_command_is_the_end_of_all() {
    require_root!();
    let launcher = Launcher::new();
    let launched = launcher.start(&["sh", "-c", "setsid sleep 300 & sleep 300 & exit 4"], |_| {}).unwrap();
    let began = Instant::now();
    assert!(launched.running.wait(Duration::from_secs(5)).unwrap());
    // Nothing of it is given time to end by itself, which would be five seconds.
    assert!(began.elapsed() < Duration::from_secs(4));
    let procs = launched.running.workload().cgroup.join("cgroup.procs");
    assert_eq!(fs::read_to_string(procs).unwrap().trim(), "", "nothing lives on");
    assert_eq!(launched.finish().end, exited(4));
}

#[test]
fn the_death_of_the_client_ends_all() {
    require_root!();
    let launcher = Launcher::new();
    let project = project(&launcher);
    let stubborn = "trap '' TERM HUP; setsid sh -c \"trap '' TERM; : >project/other; sleep 300\" & : >project/one; while :; do sleep 1; done";
    // They are given five seconds.
    for (script, files, at_least, at_most) in [("sleep 300", &[][..], 0, 4), (stubborn, &["one", "other"][..], 4, 10)] {
        let mut launched = launcher.start(&["sh", "-c", script], |_| {}).unwrap();
        wait_for_start(&launched.channel);
        files.iter().for_each(|file| wait_for_file(&project.join(file)));
        let (channel, _) = channel::pair().unwrap();
        let began = Instant::now();
        drop(std::mem::replace(&mut launched.channel, channel));
        assert!(launched.running.wait(Duration::from_secs(20)).unwrap());
        let took = began.elapsed().as_secs();
        assert!((at_least..at_most).contains(&took), "{script}: {took} s");
        launched.running.clean_up();
    }
}

#[test]
fn a_launch_that_isnt_let_go_leaves_nothing() {
    require_root!();
    let launcher = Launcher::new();
    let (order, _channel) = launcher.order(&["touch", "marker"]);
    let (cgroup, folder) = (order.workloads.join(order.id.to_string()), order.folder.clone());
    let prepared = launch::prepare(order).unwrap();
    assert!(cgroup.exists() && prepared.netns().is_some());
    drop(prepared);
    assert!(!cgroup.exists() && !folder.exists());
    assert!(!launcher.home.join("marker").exists());
}

#[test]
fn a_restarted_daemon_finds_its_workloads() {
    require_root!();
    let launcher = Launcher::new();
    let launched = launcher.start(&["sleep", "300"], |_| {}).unwrap();
    wait_for_start(&launched.channel);
    let workload = Arc::clone(launched.running.workload());
    let revived = launch::revive(&workload.folder).alive().expect("it lives");
    assert_eq!(revived.workload().init, workload.init);
    assert_eq!(revived.workload().settings.name, workload.settings.name);
    revived.kill().unwrap();
    assert!(revived.wait(Duration::from_secs(5)).unwrap());
    assert!(launched.running.wait(Duration::from_secs(5)).unwrap());
    let ended = launch::revive(&workload.folder);
    assert!(matches!(&ended, launch::Revived::Ended(Some(name)) if *name == workload.settings.name), "{ended:?}");
    assert!(!workload.folder.exists() && !workload.cgroup.exists(), "what it left is removed");
    launched.running.clean_up();
}

#[test]
fn root_isnt_contained() {
    require_root!();
    let launcher = Launcher::new();
    let me = std::process::id();
    let refused = launcher.start(&["true"], |order| {
        order.caller = launch::Caller::read(me, launch::hold(me).unwrap(), 0, 0).unwrap();
    });
    assert!(matches!(refused.map(drop), Err(LaunchError::User { .. })));
}

#[test]
fn a_terminal_of_its_own() {
    require_root!();
    let launcher = Launcher::new();
    let launched = launcher.start(&["sh", "-c", "tty; stty size; echo >/dev/tty; read x; echo got $x"], |order| {
        order.tty = Some((31, 97))
    });
    let launched = launched.unwrap();
    let Received::Message(ToClient::Pty, Some(master)) = channel::receive(&launched.channel).unwrap() else {
        panic!("no terminal")
    };
    let mut master = fs::File::from(master);
    master.write_all(b"typed\n").unwrap();
    let mut said = Vec::new();
    let mut chunk = [0; 4096];
    // The end of a terminal whose other side is closed is EIO.
    while let Ok(count @ 1..) = master.read(&mut chunk) {
        said.extend_from_slice(&chunk[..count]);
    }
    let said = String::from_utf8(said).unwrap();
    for expected in ["/dev/pts/0", "31 97", "got typed"] {
        assert!(said.contains(expected), "{expected}: {said:?}");
    }
    assert_eq!(launched.finish().end, exited(0));
}

#[test]
fn two_hundred_at_once() {
    require_root!();
    let launcher = Launcher::new();
    let began = Instant::now();
    std::thread::scope(|scope| {
        let launches: Vec<_> = (0..200)
            .map(|n| {
                let launcher = &launcher;
                scope.spawn(move || launcher.run(&["sh", "-c", &format!("echo {n}")]))
            })
            .collect();
        for (n, launch) in launches.into_iter().enumerate() {
            let outcome = launch.join().unwrap();
            assert_eq!((outcome.end, outcome.output), (exited(0), format!("{n}\n")), "{}", outcome.errors);
        }
    });
    println!("200 launches at once: {:?}", began.elapsed());
}

#[test]
fn a_launch_costs_at_most_20_ms() {
    require_root!();
    let launcher = Launcher::new();
    let median = |act: &dyn Fn() -> Duration| {
        let mut took: Vec<Duration> = (0..20).map(|_| act()).collect();
        took.sort();
        took[10]
    };
    let bare = median(&|| {
        let began = Instant::now();
        assert!(Command::new("true").stdin(Stdio::null()).status().unwrap().success());
        began.elapsed()
    });
    let launched = median(&|| {
        let (order, channel) = launcher.order(&["true"]);
        let began = Instant::now();
        let running = launch::prepare(order).unwrap().go().unwrap();
        while !matches!(channel::receive::<ToClient>(&channel).unwrap(), Received::Message(ToClient::Exited(0), _)) {}
        let took = began.elapsed();
        running.clean_up();
        took
    });
    println!("bare exec {bare:?}, launch {launched:?}");
    assert!(launched <= bare + Duration::from_millis(20), "bare {bare:?}, launched {launched:?}");
}

/// A folder of the user's, in which the command can make files.
fn project(launcher: &Launcher) -> PathBuf {
    let folder = launcher.home.join("project");
    fs::create_dir(&folder).unwrap();
    chown(&folder, Some(UID), Some(UID)).unwrap();
    folder
}

/// Waits until the command has made a file.
fn wait_for_file(path: &Path) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !path.exists() {
        assert!(Instant::now() < deadline, "`{}` isn't made", path.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn wait_for_start(channel: &OwnedFd) {
    let first = channel::receive::<ToClient>(channel).unwrap();
    assert!(matches!(first, Received::Message(ToClient::Started, _)), "{first:?}");
}
