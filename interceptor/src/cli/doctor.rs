//! `interceptor doctor`: what this host has and lacks. Each finding is a line: `ok`, `warn` or `missing`, and how to
//! mend it. Changes nothing.

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::bpf;
use crate::cli::ca;
use crate::clock::{Clock, SystemClock};
use crate::config::{Settings, Trust, policy_sources};
use crate::control::client;
use crate::control::protocol::{Launched, Request, Serving, Status};

/// Prints the findings; exits 1 if something essential is missing.
pub fn execute(config: &Path, socket: &Path) -> ExitCode {
    let mut findings = vec![root()];
    findings.extend(kernel());
    findings.extend([cgroup(), bpffs(), descriptors(), clock()]);
    match Settings::load_trusted(config) {
        Ok(settings) => {
            findings.push(Finding::ok("configuration", config.display()));
            findings.extend(rewriters(&settings));
            findings.extend([policies(&settings), authority(&settings), record(&settings)]);
        }
        Err(error) => {
            let mend =
                "`interceptor config check` underlines it; a configuration without workloads and targets may be empty";
            findings.push(Finding::missing("configuration", error, mend));
        }
    }
    findings.push(daemon(socket));
    findings.extend(holes(socket));
    let essential = findings.iter().any(|finding| finding.state == State::Missing);
    let printed = super::print(findings.iter().map(Finding::line).collect::<String>());
    if essential { ExitCode::FAILURE } else { printed }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Ok,
    Warn,
    Missing,
}

#[derive(Debug)]
struct Finding {
    state: State,
    name: String,
    detail: String,
    mend: String,
}

impl Finding {
    fn ok(name: impl Into<String>, detail: impl ToString) -> Self {
        Self { state: State::Ok, name: name.into(), detail: detail.to_string(), mend: String::new() }
    }

    fn warn(name: impl Into<String>, detail: impl ToString, mend: &str) -> Self {
        Self { state: State::Warn, name: name.into(), detail: detail.to_string(), mend: mend.into() }
    }

    fn missing(name: impl Into<String>, detail: impl ToString, mend: &str) -> Self {
        Self { state: State::Missing, name: name.into(), detail: detail.to_string(), mend: mend.into() }
    }

    fn line(&self) -> String {
        let state = match self.state {
            State::Ok => "ok",
            State::Warn => "warn",
            State::Missing => "missing",
        };
        let mut line = format!("{state:8}{}", self.name);
        if !self.detail.is_empty() {
            let _ = write!(line, ": {}", self.detail);
        }
        if !self.mend.is_empty() {
            let _ = write!(line, "\n        -> {}", self.mend);
        }
        line.push('\n');
        line
    }
}

fn root() -> Finding {
    if nix::unistd::geteuid().is_root() {
        Finding::ok("root", "")
    } else {
        Finding::missing("root", "these checks need it, as the daemon does", "sudo interceptor doctor")
    }
}

fn kernel() -> Vec<Finding> {
    bpf::probe()
        .into_iter()
        .map(|found| match found.trouble {
            None => Finding::ok(found.name, ""),
            Some(trouble) if found.required => Finding::missing(found.name, trouble, ""),
            Some(trouble) => Finding::warn(found.name, trouble, ""),
        })
        .collect()
}

/// Programs of others that could lead an adopted workload's connects elsewhere, where something is adopted.
fn rewriters(settings: &Settings) -> Option<Finding> {
    if settings.workloads.iter().all(|workload| workload.adopt.is_empty()) {
        return None;
    }
    let others = bpf::adopt::Adopter::others(&settings.paths.pins);
    Some(match others.as_slice() {
        [] => Finding::ok("other programs on connect", ""),
        others => Finding::warn(
            "other programs on connect",
            others.join(", "),
            "make sure that they leave 127.0.0.1 and ::1 alone (Cilium, Azure's GuestProxyAgent), or run the workload by \
             `interceptor run`, out of their reach",
        ),
    })
}

/// The holes of the workloads that there are, by the daemon.
fn holes(socket: &Path) -> Vec<Finding> {
    let Ok(value) = client::call(socket, &Request::Workloads) else { return Vec::new() };
    let Ok(workloads) = serde_json::from_value::<Vec<Launched>>(value) else { return Vec::new() };
    let found = workloads.iter().flat_map(|one| one.holes.iter().map(move |hole| (one, hole)));
    found
        .map(|(one, hole)| {
            let (what, mend) = hole.split_once("; ").unwrap_or((hole, ""));
            Finding::warn(format!("workload {} ({})", one.workload, one.containment), what, mend)
        })
        .collect()
}

fn cgroup() -> Finding {
    let mend = "mount -t cgroup2 none /sys/fs/cgroup/unified, or boot with systemd.unified_cgroup_hierarchy=1";
    let Some(mount) = mounted("cgroup2") else { return Finding::missing("cgroup.kill", "cgroup2 isn't mounted", mend) };
    // The root has no cgroup.kill; every child has it, from Linux 5.14.
    let children = fs::read_dir(&mount).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut groups = children.filter(|path| path.join("cgroup.procs").exists()).peekable();
    if groups.peek().is_none() || groups.any(|path| path.join("cgroup.kill").exists()) {
        Finding::ok("cgroup.kill", mount.display())
    } else {
        Finding::missing("cgroup.kill", "this kernel can't end a cgroup at once", "use Linux 6.1 or later")
    }
}

fn bpffs() -> Finding {
    match mounted("bpf") {
        Some(mount) => Finding::ok("bpffs mount", mount.display()),
        None => Finding::warn(
            "bpffs mount",
            "not mounted; the daemon mounts it at its start",
            "mount -t bpf bpf /sys/fs/bpf",
        ),
    }
}

/// The mount point of the first filesystem of this type in /proc/self/mountinfo (proc(5)).
fn mounted(kind: &str) -> Option<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo").ok()?;
    text.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        (after.split(' ').next() == Some(kind)).then(|| PathBuf::from(before.split(' ').nth(4).unwrap_or("/")))
    })
}

fn descriptors() -> Finding {
    let wanted = 16 * 1024;
    match nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE) {
        Ok((_, hard)) if hard >= wanted => Finding::ok("open files", format_args!("up to {hard}")),
        Ok((_, hard)) => {
            let detail = format!("at most {hard}: each connection takes two, and a third while a request is answered");
            Finding::warn("open files", detail, "LimitNOFILE=65536 in the service's unit, or `ulimit -Hn 65536`")
        }
        Err(error) => Finding::warn("open files", error, "ulimit -Hn"),
    }
}

fn clock() -> Finding {
    // Certificates and time-boxes depend on it; a host that believes in its birth year issues what nobody accepts.
    let now = SystemClock.now();
    let released = jiff::Timestamp::from_second(1_750_000_000).unwrap_or(now);
    if now >= released {
        Finding::ok("clock", now.strftime("%Y-%m-%dT%H:%M:%SZ"))
    } else {
        Finding::missing("clock", format_args!("it shows {now}"), "timedatectl set-ntp true")
    }
}

fn policies(settings: &Settings) -> Finding {
    let dir = &settings.paths.policy;
    match policy_sources(dir, Trust::Daemon) {
        Ok(sources) if sources.is_empty() => Finding::warn(
            "policies",
            format_args!("there is no `*.cedar` in `{}`: everything is denied", dir.display()),
            "docs/policy.md shows how to write one",
        ),
        Ok(sources) => Finding::ok("policies", format_args!("files {} in {}", sources.len(), dir.display())),
        Err(error) => Finding::missing("policies", error, "`interceptor policy check` says more"),
    }
}

fn authority(settings: &Settings) -> Finding {
    let path = ca::authority_file(&settings.paths.state);
    let mode = fs::symlink_metadata(&path).map(|found| found.mode());
    match (ca::certificate(&path), mode) {
        (Ok(_), Ok(mode)) if mode & 0o077 != 0 => {
            let detail = format!("`{}` can be read by others", path.display());
            Finding::missing(
                "authority",
                detail,
                "chmod 600 it; if they may have read it, remove it and start the daemon",
            )
        }
        (Ok((_, fingerprint)), _) => Finding::ok("authority", fingerprint),
        (Err(error), _) if error.kind() == std::io::ErrorKind::NotFound => {
            Finding::ok("authority", "it is made when the daemon first starts")
        }
        (Err(error), _) => Finding::missing("authority", format_args!("`{}`: {error}", path.display()), ""),
    }
}

fn record(settings: &Settings) -> Finding {
    let path = settings.paths.state.join("record.db");
    let mut header = [0; 16];
    let read = fs::File::open(&path).and_then(|mut file| std::io::Read::read_exact(&mut file, &mut header));
    match read {
        Ok(()) if &header == b"SQLite format 3\0" => {
            Finding::ok("record", "`interceptor sessions verify` checks its chain")
        }
        Ok(()) => {
            let detail = format!("`{}` isn't an SQLite database", path.display());
            Finding::missing("record", detail, "restore it from a backup, or move it away")
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Finding::ok("record", "it is made when the daemon first starts")
        }
        Err(error) => Finding::missing("record", format_args!("`{}`: {error}", path.display()), ""),
    }
}

fn daemon(socket: &Path) -> Finding {
    let status = client::call(socket, &Request::Status).map(serde_json::from_value::<Status>);
    match status {
        Ok(Ok(status)) if status.serving == Serving::Yes => Finding::ok("daemon", format_args!("pid {}", status.pid)),
        Ok(Ok(status)) => {
            let causes: Vec<_> =
                status.causes.iter().map(|cause| format!("{} ({})", cause.message, cause.next)).collect();
            let detail = causes.join("; ");
            if status.serving == Serving::No {
                Finding::missing("daemon", format_args!("it serves nothing: {detail}"), "")
            } else {
                Finding::warn("daemon", format_args!("it is degraded: {detail}"), "")
            }
        }
        Ok(Err(error)) => Finding::missing("daemon", client::ClientError::Garbled(error.to_string()), ""),
        Err(error) => Finding::missing("daemon", error, ""),
    }
}
