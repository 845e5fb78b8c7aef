//! `interceptor uninstall`: removes what the daemon leaves on a host. The record stays, unless it is to go.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::tell;
use crate::adopt::{Engines, Tree};
use crate::bpf;
use crate::bpf::adopt::Adopter;
use crate::config::Settings;
use crate::control::client;
use crate::control::protocol::Request;
use crate::ids::WorkloadName;

/// How far to go.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Remove the state folder as well: the record, its keys and the certificate authority
    #[arg(long, conflicts_with = "pins")]
    purge_record: bool,
    /// Remove only what is pinned in the kernel
    #[arg(long)]
    pins: bool,
    /// Only show what would be removed
    #[arg(long)]
    dry_run: bool,
}

/// Does it, where no daemon runs.
pub fn execute(args: &Args, config: &Path, socket: &Path) -> ExitCode {
    if !nix::unistd::geteuid().is_root() {
        return super::fail("only root may do this");
    }
    let settings = match Settings::load(config) {
        Ok(settings) => settings,
        Err(error) => return super::fail_underlined(error),
    };
    let mount = match bpf::cgroup2() {
        Ok(mount) => mount,
        Err(error) => return super::fail(error),
    };
    let cgroup = mount.join(&settings.cgroup);
    // One that hangs doesn't answer, and runs all the same.
    if has_processes(&cgroup.join("daemon")) || client::call(socket, &Request::Status).is_ok() {
        return super::fail("the daemon runs: stop it first, as in `systemctl stop interceptor`");
    }
    if let Some(alive) = living(&cgroup.join("workloads")) {
        return super::fail(format_args!(
            "the launched workload `{alive}` lives: end it first, or it would go on without a way to anything"
        ));
    }
    match adopted(&settings, mount) {
        Ok(None) => {}
        Ok(Some((workload, cgroup))) => {
            return super::fail(format_args!(
                "the adopted workload `{workload}` has processes in `{cgroup}`: stop them first, or they would go on without a proxy"
            ));
        }
        Err(error) => return super::fail(format_args!("what is adopted can't be looked for: {error}")),
    }
    let mut folders = vec![settings.paths.pins.clone()];
    if !args.pins {
        folders.push(settings.paths.runtime.clone());
        if args.purge_record {
            folders.push(settings.paths.state.clone());
        }
    }
    // With the record goes what would say it.
    if !args.dry_run && !args.purge_record {
        tell::without_the_daemon(if args.pins { "uninstall --pins" } else { "uninstall" }, &settings);
    }
    let mut said = String::new();
    for folder in folders.into_iter().filter(|folder| folder.exists()) {
        said += &format!("{} {}\n", if args.dry_run { "would remove" } else { "removed" }, folder.display());
        if !args.dry_run
            && let Err(error) = fs::remove_dir_all(&folder)
        {
            return super::fail(format_args!("`{}` can't be removed: {error}", folder.display()));
        }
    }
    if !args.pins && cgroup.exists() {
        said += &format!("{} {}\n", if args.dry_run { "would remove" } else { "removed" }, cgroup.display());
        if !args.dry_run
            && let Err(error) = remove_cgroups(&cgroup)
        {
            return super::fail(format_args!("`{}` can't be removed: {error}", cgroup.display()));
        }
    }
    if !args.pins {
        let state = settings.paths.state.display();
        said += &match (args.purge_record, settings.paths.state.exists()) {
            (false, true) => format!("kept {state}: the record (`--purge-record` removes it)\n"),
            _ => String::new(),
        };
        said +=
            "left to you: the configuration, the binary, its units, and drop-ins (`interceptor release --unit NAME`)\n";
    }
    super::print(said)
}

/// A launched workload that has processes.
fn living(workloads: &Path) -> Option<String> {
    let entries = fs::read_dir(workloads).into_iter().flatten().flatten();
    entries
        .into_iter()
        .find(|entry| has_processes(&entry.path()))
        .and_then(|entry| entry.file_name().into_string().ok())
}

fn has_processes(cgroup: &Path) -> bool {
    fs::read_to_string(cgroup.join("cgroup.procs")).is_ok_and(|pids| !pids.is_empty())
}

/// An adopted workload that has processes, and the cgroup that they are in, where hooks hold them.
fn adopted(settings: &Settings, mount: PathBuf) -> io::Result<Option<(WorkloadName, String)>> {
    if !Adopter::is_left(&settings.paths.pins) {
        return Ok(None);
    }
    let tree = Tree::new(mount, Engines::new(settings.paths.docker.clone(), settings.paths.podman.clone()));
    for workload in settings.workloads.iter().filter(|workload| !workload.adopt.is_empty()) {
        for cgroup in tree.of(workload)?.cgroups {
            // One that is gone has none.
            if tree.processes(&cgroup.path).is_ok_and(|pids| !pids.is_empty()) {
                return Ok(Some((workload.name.clone(), cgroup.path)));
            }
        }
    }
    Ok(None)
}

fn remove_cgroups(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)?.flatten().filter(|entry| entry.path().is_dir()) {
        remove_cgroups(&entry.path())?;
    }
    fs::remove_dir(folder)
}
