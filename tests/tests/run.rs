//! `interceptor run` against a live daemon: it ends as the command ends, stands for it in a shell and at a terminal, and
//! is refused where it couldn't hold what it promises. Who may use the control socket is here as well.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use interceptor::ids::LaunchId;
use interceptor::record::event::What;
use interceptor_tests::daemon::{Daemon, Order, READ_ONLY, UID};
use interceptor_tests::graph::Graph;
use interceptor_tests::{recorded, require_root};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A daemon; what it is asked never reaches an upstream here.
fn daemon() -> Result<Daemon> {
    daemon_with("")
}

fn daemon_with(workload: &str) -> Result<Daemon> {
    let graph = Graph::start(&[])?;
    Daemon::start(&Order { purpose: "run", workload: workload.to_owned(), ..Order::for_graph(&graph, READ_ONLY) })
}

/// Nothing of any launch is left, and the daemon ends in order.
fn finish(daemon: Daemon) -> Result<()> {
    within(Duration::from_secs(20), || match remains(&daemon)?.as_slice() {
        [] => Ok(()),
        left => bail!("left behind: {left:?}"),
    })?;
    daemon.finish()
}

/// What launches have left: cgroups, pins, folders.
fn remains(daemon: &Daemon) -> Result<Vec<PathBuf>> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().contains("wl_") {
                found.push(entry.path());
            } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                walk(&entry.path(), found);
            }
        }
    }
    let mut found = Vec::new();
    for folder in [daemon.cgroup(), daemon.pins(), &daemon.room().join("run")] {
        walk(folder, &mut found);
    }
    Ok(found)
}

/// The cgroup of the only launch there is.
fn launched(daemon: &Daemon) -> Result<PathBuf> {
    let found = remains(daemon)?.into_iter().find(|path| path.starts_with(daemon.cgroup()));
    found.context("no launch has a cgroup")
}

fn within<T>(patience: Duration, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        match attempt() {
            Err(_) if Instant::now() < deadline => sleep(Duration::from_millis(20)),
            other => return other,
        }
    }
}

fn said(output: &Output) -> String {
    format!("{}: {}{}", output.status, String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A command under `interceptor run` that has said its first line, `ready`.
struct Started {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Started {
    fn new(mut command: Command) -> Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut output = BufReader::new(child.stdout.take().context("its output")?);
        let mut line = String::new();
        output.read_line(&mut line)?;
        ensure!(line == "ready\n", "it said `{line}`");
        Ok(Self { child, output })
    }

    fn shell(daemon: &Daemon, script: &str) -> Result<Self> {
        Self::new(daemon.run(&["sh", "-c", script]))
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(self.child.id().cast_signed()), signal)?)
    }

    /// Its state, as /proc has it: `S`, `T`, …
    fn state(&self) -> Result<String> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let after = stat.rsplit_once(") ").context("a line of /proc/PID/stat")?.1;
        Ok(after.chars().take(1).collect())
    }
}

#[test]
fn it_ends_as_the_command_ended() -> Result<()> {
    require_root!(Ok(()));
    let daemon = daemon()?;
    for status in [0, 7] {
        let output = daemon.run(&["sh", "-c", &format!("exit {status}")]).output()?;
        ensure!(output.status.code() == Some(status), "{}", said(&output));
    }
    for (command, status) in [("no-such-command", 127), ("/etc/passwd", 126)] {
        let output = daemon.run(&[command]).output()?;
        ensure!(output.status.code() == Some(status) && said(&output).contains(command), "{}", said(&output));
    }
    for signal in [Signal::SIGTERM, Signal::SIGKILL, Signal::SIGINT] {
        let output = daemon.run(&["sh", "-c", &format!("kill -{} $$", signal as i32)]).output()?;
        ensure!(output.status.signal() == Some(signal as i32), "{signal}: {}", said(&output));
    }
    finish(daemon)
}

#[test]
fn signals_are_forwarded() -> Result<()> {
    require_root!(Ok(()));
    let daemon = daemon()?;
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let script = format!("trap 'echo got; exit 3' {}; echo ready; while :; do sleep 0.02; done", signal as i32);
        let mut started = Started::shell(&daemon, &script)?;
        started.signal(signal)?;
        let mut rest = String::new();
        started.output.read_to_string(&mut rest)?;
        ensure!(started.child.wait()?.code() == Some(3) && rest == "got\n", "{signal}: `{rest}`");
    }
    finish(daemon)
}

#[test]
fn job_control_stops_and_continues_both() -> Result<()> {
    require_root!(Ok(()));
    let daemon = daemon()?;
    let script = "echo ready; while :; do echo tick; sleep 0.02; done";
    let mut started = Started::shell(&daemon, script)?;
    started.signal(Signal::SIGTSTP)?;
    within(Duration::from_secs(20), || {
        ensure!(started.state()? == "T", "`interceptor run` isn't stopped");
        Ok(())
    })?;
    let ticks = |started: &mut Started| -> Result<usize> {
        use nix::fcntl::{FcntlArg, OFlag, fcntl};
        // What came so far: the pipe is read until it is empty.
        fcntl(started.output.get_ref(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let (mut count, mut chunk) = (started.output.buffer().len(), [0; 4096]);
        started.output.consume(count);
        while let Ok(read @ 1..) = started.output.get_mut().read(&mut chunk) {
            count += read;
        }
        Ok(count)
    };
    // What goes on says something fifty times a second.
    within(Duration::from_secs(20), || {
        ticks(&mut started)?;
        sleep(Duration::from_millis(500));
        ensure!(ticks(&mut started)? == 0, "the command goes on though it was stopped");
        Ok(())
    })?;
    started.signal(Signal::SIGCONT)?;
    within(Duration::from_secs(20), || {
        ensure!(ticks(&mut started)? > 0, "the command doesn't continue");
        Ok(())
    })?;
    started.signal(Signal::SIGTERM)?;
    ensure!(started.child.wait()?.signal() == Some(15));
    finish(daemon)
}

#[test]
fn its_death_ends_the_workloads_whole_tree() -> Result<()> {
    require_root!(Ok(()));
    let daemon = daemon()?;
    let script = "trap '' TERM HUP; setsid sh -c \"trap '' TERM; sleep 300\" & echo ready; while :; do sleep 1; done";
    let mut started = Started::shell(&daemon, script)?;
    let cgroup = launched(&daemon)?;
    started.signal(Signal::SIGKILL)?;
    started.child.wait()?;
    within(Duration::from_secs(20), || {
        let procs = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
        ensure!(procs.trim().is_empty(), "these live on: {procs}");
        Ok(())
    })?;
    finish(daemon)
}

#[test]
fn where_no_workload_fits_the_stanza_to_add_is_told_and_fits() -> Result<()> {
    require_root!(Ok(()));
    let daemon = daemon()?;
    let run = || {
        let mut command = Command::new(daemon.binary("interceptor"));
        command.env_clear().env("PATH", "/usr/bin:/bin").current_dir("/").uid(UID + 1).gid(UID + 1);
        command.arg("run").arg("--socket").arg(daemon.socket()).args(["--", "id", "-u"]);
        command
    };
    let output = run().output()?;
    let message = said(&output);
    ensure!(output.status.code() == Some(2), "{message}");
    let stanza = message.find("[[workload]]\n").with_context(|| format!("no stanza: {message}"))?;
    let mut config = fs::read_to_string(daemon.config())?;
    config.push('\n');
    for line in message[stanza..].lines().take_while(|line| !line.trim().is_empty()) {
        config.push_str(line);
        config.push('\n');
    }
    fs::write(daemon.config(), config)?;
    daemon.ask(&["policy", "reload"])?;
    let output = run().output()?;
    ensure!(output.status.success() && output.stdout == format!("{}\n", UID + 1).as_bytes(), "{}", said(&output));
    finish(daemon)
}

#[test]
fn another_user_only_as_the_workload_says() -> Result<()> {
    require_root!(Ok(()));
    let daemon = daemon_with("user = \"nobody\"")?;
    let run = |user: &str| {
        let mut command = daemon.as_user(&daemon.binary("interceptor"));
        command.current_dir("/").arg("run").arg("--socket").arg(daemon.socket());
        command.args(["--workload", "crm", "--user", user, "--", "id", "-un"]);
        command
    };
    let output = run("nobody").output()?;
    ensure!(output.status.success() && output.stdout == b"nobody\n", "{}", said(&output));
    for user in ["root", "daemon"] {
        let output = run(user).output()?;
        let message = said(&output);
        ensure!(output.status.code() == Some(1) && message.contains("--user"), "{user}: {message}");
        ensure!(message.contains("(workload-user)"), "{user}: {message}");
    }
    let output = run("nobody").uid(UID + 1).gid(UID + 1).output()?;
    let message = said(&output);
    ensure!(output.status.code() == Some(1) && message.contains("(workload-not-yours)"), "somebody else: {message}");
    finish(daemon)
}

/// `interceptor run -t` on a terminal of its own: what it shows is read from, and keys are written to, the master.
fn at_a_terminal(daemon: &Daemon, command: &[&str]) -> Result<(Child, File)> {
    let size = nix::pty::Winsize { ws_row: 31, ws_col: 97, ws_xpixel: 0, ws_ypixel: 0 };
    let pty = nix::pty::openpty(&size, None)?;
    let slave = || -> Result<OwnedFd> { Ok(pty.slave.try_clone()?) };
    let mut run = daemon.as_user(Path::new("setsid"));
    run.args(["--ctty", "--wait"]).arg(daemon.binary("interceptor"));
    run.arg("run").arg("--socket").arg(daemon.socket()).args(["--workload", "crm", "-t", "--"]).args(command);
    // The terminal is the user's, as it is where somebody logs in.
    nix::unistd::fchown(&pty.slave, Some(UID.into()), None)?;
    let child = run.stdin(slave()?).stdout(slave()?).stderr(slave()?).spawn()?;
    Ok((child, pty.master.into()))
}

/// What is shown until `until` was.
fn shown(master: &mut File, until: &str) -> Result<String> {
    let mut text = String::new();
    let mut chunk = [0; 1024];
    while !text.contains(until) {
        match master.read(&mut chunk) {
            Ok(count @ 1..) => text += &String::from_utf8_lossy(&chunk[..count]),
            _ => bail!("the terminal ended after `{text}`, before `{until}`"),
        }
    }
    Ok(text)
}

#[test]
fn a_terminal_is_one_inside_too() -> Result<()> {
    require_root!(Ok(()));
    let daemon = daemon()?;
    let script = "tty; stty size; trap 'echo interrupted; exit 9' INT; echo ready; while :; do sleep 0.02; done";
    let (mut child, mut master) = at_a_terminal(&daemon, &["sh", "-c", script])?;
    let text = shown(&mut master, "ready")?;
    ensure!(text.contains("/dev/pts/") && text.contains("31 97"), "{text}");
    // Ctrl-C: a key to us, a signal to the command.
    master.write_all(b"\x03")?;
    shown(&mut master, "interrupted")?;
    ensure!(child.wait()?.code() == Some(9));

    let output = daemon.run(&["tty"]).stdin(Stdio::null()).output()?;
    ensure!(output.stdout == b"not a tty\n", "{}", said(&output));
    finish(daemon)
}

#[test]
fn a_changed_window_is_changed_inside_too() -> Result<()> {
    require_root!(Ok(()));
    let daemon = daemon()?;
    let script = "trap 'stty size; exit 4' WINCH; echo ready; while :; do sleep 0.02; done";
    let (mut child, mut master) = at_a_terminal(&daemon, &["sh", "-c", script])?;
    shown(&mut master, "ready")?;
    interceptor::launch::channel::set_terminal_size(&master, 12, 34)?;
    shown(&mut master, "12 34")?;
    ensure!(child.wait()?.code() == Some(4));
    finish(daemon)
}

#[test]
fn a_caller_in_other_namespaces_is_refused() -> Result<()> {
    require_root!(Ok(()));
    let daemon = daemon()?;
    for options in [&["--mount"][..], &["--net"], &["--ipc"], &["--pid", "--fork", "--mount-proc"]] {
        let output = Command::new("unshare")
            .args(options)
            .args(["setpriv", &format!("--reuid={UID}"), &format!("--regid={UID}"), "--clear-groups"])
            .arg(daemon.binary("interceptor"))
            .arg("run")
            .arg("--socket")
            .arg(daemon.socket())
            .args(["--workload", "crm", "--", "true"])
            .current_dir("/")
            .output()?;
        let message = said(&output);
        ensure!(output.status.code() == Some(1), "{options:?}: {message}");
        ensure!(message.contains("namespace") && message.contains("on the host itself"), "{options:?}: {message}");
        ensure!(message.contains("(caller-refused)"), "{options:?}: {message}");
    }
    finish(daemon)
}

#[test]
fn what_is_run_elsewhere_is_refused() -> Result<()> {
    require_root!(Ok(()));
    let daemon = daemon()?;
    for command in ["docker", "/usr/bin/podman", "systemd-run", "sudo"] {
        let output = daemon.run(&[command, "run", "server"]).output()?;
        let message = said(&output);
        ensure!(output.status.code() == Some(1) && message.contains("can't be contained"), "{message}");
        ensure!(message.contains("(command-refused)"), "{message}");
        ensure!(message.contains("under `interceptor run`") || message.contains("after `--`"), "{message}");
    }
    finish(daemon)
}

#[test]
fn the_control_socket_isnt_for_workloads() -> Result<()> {
    require_root!(Ok(()));
    let daemon = daemon()?;
    // It can't be seen inside …
    let socket = daemon.socket();
    let output = daemon.run(&["ls", socket.to_str().context("a path in UTF-8")?]).output()?;
    ensure!(!output.status.success(), "{}", said(&output));
    // … nor be handed in …
    let connection = OwnedFd::from(UnixStream::connect(&socket)?);
    let output = daemon.run(&["cat"]).stdin(connection).output()?;
    let message = said(&output);
    ensure!(output.status.code() == Some(1) && message.contains("a connection to the service at"), "{message}");
    ensure!(message.contains("(descriptor-refused)"), "{message}");
    // … and who gets to it nevertheless is known by its cgroup, root too.
    let mut started = Started::shell(&daemon, "echo ready; read line")?;
    let procs = launched(&daemon)?.join("cgroup.procs");
    let after = recorded::last(&daemon.database())?;
    for request in [&["status"][..], &["sessions", "list"], &["policy", "reload"]] {
        let mut asking = Command::new("sh");
        asking.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]).arg(&procs).arg(daemon.binary("interceptor"));
        let output = asking.args(request).env("INTERCEPTOR_SOCKET", &socket).output()?;
        ensure!(output.status.code() == Some(1), "{request:?}: {}", said(&output));

        // Where the kernel refuses the connection itself, the daemon is asked by one that was made before.
        let pid = Pid::from_raw(daemon.pid()?.cast_signed());
        kill(pid, Signal::SIGSTOP)?;
        let asking = daemon.interceptor(request).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let connected = within(Duration::from_secs(20), || {
            let table = String::from_utf8_lossy(&fs::read("/proc/net/unix")?).into_owned();
            // A connection that waits to be accepted: `… 02 INODE PATH`, with the path that was bound before it got its name.
            let folder = socket.parent().context("a folder")?.to_string_lossy();
            let waits = |line: &str| line.contains(" 02 ") && line.contains(&*folder);
            ensure!(table.lines().any(waits), "it doesn't connect");
            Ok(())
        });
        let moved = fs::write(&procs, asking.id().to_string());
        kill(pid, Signal::SIGCONT)?;
        connected.and(moved.map_err(Into::into))?;
        let output = asking.wait_with_output()?;
        let message = said(&output);
        ensure!(output.status.code() == Some(1) && message.contains("governed process"), "{request:?}: {message}");
    }
    within(Duration::from_secs(20), || {
        let events = recorded::events(&daemon.database(), after)?;
        let is_refusal = |what: &What| matches!(what, What::ControlRequest { refused: Some(why), uid: 0, .. } if why == "inside-workload");
        let count = events.iter().filter(|(_, event)| is_refusal(&event.what)).count();
        ensure!(count >= 3, "{count} of 3 refusals are recorded");
        Ok(())
    })?;
    drop(started.child.stdin.take());
    started.child.wait()?;
    finish(daemon)
}

#[test]
fn only_operators_read_the_record_and_reload() -> Result<()> {
    require_root!(Ok(()));
    let daemon = daemon()?;
    let ask = |arguments: &[&str]| {
        let mut command = daemon.as_user(&daemon.binary("interceptor"));
        command.arg("--socket").arg(daemon.socket()).args(arguments);
        command
    };
    let requests = [
        &["sessions", "verify"][..],
        &["sessions", "prune", "--older-than", "30d"],
        &["sessions", "erase", "ses_"],
        &["sessions", "hold", "ses_"],
        &["policy", "reload"],
        &["policy", "show"],
        &["workloads", "list"],
        &["grants", "list"],
        &["break-glass", "list"],
    ];
    for request in requests {
        let output = ask(request).output()?;
        let message = said(&output);
        ensure!(output.status.code() == Some(1) && message.contains("not-an-operator"), "{request:?}: {message}");
    }
    let output = ask(&["status"]).output()?;
    ensure!(output.status.success(), "{}", said(&output));
    finish(daemon)
}

#[test]
fn what_a_daemon_killed_in_the_middle_of_launches_left_is_removed() -> Result<()> {
    require_root!(Ok(()));
    let mut daemon = daemon()?;
    daemon.kill9()?;
    let (cgroups, folders) = (daemon.cgroup().join("workloads"), daemon.room().join("run/workloads"));
    let id = || LaunchId::new().to_string();
    // A cgroup and nothing else, a folder and nothing else, and a process 1 of which nothing can be read.
    fs::create_dir(cgroups.join(id()))?;
    fs::create_dir(folders.join(id()))?;
    let unread = id();
    fs::create_dir(cgroups.join(&unread))?;
    fs::create_dir(folders.join(&unread))?;
    fs::write(folders.join(&unread).join("launch.json"), "{\"start_time\":")?;
    let mut process = Command::new("sleep").arg("300").spawn()?;
    fs::write(cgroups.join(&unread).join("cgroup.procs"), process.id().to_string())?;
    ensure!(remains(&daemon)?.len() == 4, "{:?}", remains(&daemon)?);
    daemon.restart()?;
    ensure!(process.wait()?.signal() == Some(9), "it lives on");
    finish(daemon)
}

#[test]
fn ids_that_name_nothing_are_told_apart() -> Result<()> {
    require_root!(Ok(()));
    let daemon = daemon()?;
    for (id, code) in [("ses_zzz", "not-found"), ("op_0", "malformed-id"), ("ses_!", "malformed-id")] {
        let output = daemon.interceptor(&["sessions", "show", id]).output()?;
        ensure!(output.status.code() == Some(1) && said(&output).contains(&format!("({code})")), "{}", said(&output));
    }
    let status =
        Command::new(daemon.binary("interceptor")).args(["--socket", "/nowhere", "status", "--json"]).output()?;
    ensure!(status.status.code() == Some(1) && said(&status).contains("daemon-unreachable"), "{}", said(&status));
    finish(daemon)
}

#[test]
fn the_command_outlives_the_daemon_and_its_status_arrives() -> Result<()> {
    require_root!(Ok(()));
    let mut daemon = daemon()?;
    let mut started = Started::shell(&daemon, "echo ready; read line; echo \"$line\"; exit 7")?;
    daemon.kill9()?;
    daemon.restart()?;
    let listed = daemon.json(&["workloads", "list"])?;
    ensure!(listed.as_array().is_some_and(|list| list.len() == 1), "{listed}");
    let mut input = started.child.stdin.take().context("its input")?;
    writeln!(input, "on")?;
    let mut rest = String::new();
    started.output.read_to_string(&mut rest)?;
    ensure!(started.child.wait()?.code() == Some(7) && rest == "on\n", "{rest}");
    finish(daemon)
}

#[test]
fn a_workload_with_a_hole_runs_only_where_that_is_accepted() -> Result<()> {
    require_root!(Ok(()));
    let refusing = daemon_with("home = \"full\"\n")?;
    let mark = refusing.home().join("ran");
    let output = refusing.run(&["touch", mark.to_str().context("a path in UTF-8")?]).stdin(Stdio::null()).output()?;
    let message = said(&output);
    ensure!(!output.status.success() && message.contains("not-contained"), "{message}");
    ensure!(message.contains("shows keys and start-up files") && message.contains("containment ="), "{message}");
    ensure!(!mark.exists(), "it ran");
    finish(refusing)?;
    let accepting = daemon_with("home = \"full\"\ncontainment = \"steered\"\n")?;
    let mut started = Started::shell(&accepting, "echo ready; read line; exit 7")?;
    let listed = accepting.json(&["workloads", "list"])?;
    ensure!(listed[0]["containment"] == "steered", "{listed}");
    ensure!(listed[0]["holes"].to_string().contains("shows keys and start-up files"), "{listed}");
    let mut doctor = accepting.interceptor(&["doctor"]);
    let foretold = said(&doctor.arg("--config").arg(accepting.config()).stdin(Stdio::null()).output()?);
    ensure!(foretold.contains("workload crm (steered): `home = \"full\"` shows keys"), "{foretold}");
    drop(started.child.stdin.take());
    ensure!(started.child.wait()?.code() == Some(7));
    finish(accepting)
}
