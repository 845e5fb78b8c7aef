//! `interceptor adopt` and `interceptor release`: the drop-in that makes a unit of systemd one that can be contained.

use std::fmt::Write;
use std::path::Path;
use std::process::{Command, ExitCode};

use super::tell;
use crate::adopt::DropIn;
use crate::config::{Adopt, Settings};
use crate::control::protocol::HostCommand;

/// The unit, and how far to go.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The unit, by its whole name, as in crm-mcp.service
    #[arg(long, value_name = "NAME")]
    unit: String,
    /// Restart the unit, so that it holds at once
    #[arg(long, conflicts_with = "dry_run")]
    restart: bool,
    /// Only show what would be done
    #[arg(long)]
    dry_run: bool,
}

/// Writes the drop-in. That is recorded first.
pub fn adopt(args: &Args, config: &Path, socket: &Path) -> ExitCode {
    let tell = |settings: &Settings| tell::of_unit(HostCommand::Adopt, &args.unit, settings, socket);
    match write(Path::new("/"), args, config, tell) {
        Ok((said, _)) if args.dry_run => super::print(said),
        Ok((said, otherwise)) => finish(said, args, otherwise, true),
        Err(error) => super::fail(error),
    }
}

/// Removes the drop-in. That is recorded first.
pub fn release(args: &Args, config: &Path, socket: &Path) -> ExitCode {
    let tell = |settings: &Settings| tell::of_unit(HostCommand::Release, &args.unit, settings, socket);
    match remove(Path::new("/"), args, config, tell) {
        Ok(said) if args.dry_run => super::print(said),
        Ok(said) => finish(said, args, "what the drop-in took away is back once it is restarted", false),
        Err(error) => super::fail(error),
    }
}

/// Writes the drop-in below `root`, once `tell` has told of it: what to say of it, and what is so once the unit is restarted.
fn write(
    root: &Path,
    args: &Args,
    config: &Path,
    tell: impl FnOnce(&Settings),
) -> Result<(String, &'static str), String> {
    let (drop_in, settings) = drop_in(root, args, config)?;
    let otherwise = if is_listed(&settings, &args.unit) {
        "it is under control once it is restarted"
    } else {
        "it can be contained once it is restarted, and is under control once a workload adopts it"
    };
    let path = drop_in.path.display().to_string();
    if args.dry_run {
        let text = &drop_in.text;
        return Ok((format!("would write {path}:\n\n{text}\n{}", stanza(&settings, &args.unit)), otherwise));
    }
    tell(&settings);
    let was_there = drop_in.is_written();
    drop_in.write().map_err(|error| error.to_string())?;
    let mut said = if was_there { format!("{path} is as it should be\n") } else { format!("wrote {path}\n") };
    said += &stanza(&settings, &args.unit);
    Ok((said, otherwise))
}

/// Removes the drop-in below `root`, once `tell` has told of it: what to say of it.
fn remove(root: &Path, args: &Args, config: &Path, tell: impl FnOnce(&Settings)) -> Result<String, String> {
    let (drop_in, settings) = drop_in(root, args, config)?;
    let path = drop_in.path.display().to_string();
    let mut said = String::new();
    if args.dry_run {
        let state = if drop_in.is_there() { "would remove" } else { "there is no" };
        let _ = writeln!(said, "{state} {path}");
    } else {
        tell(&settings);
        let was_there = drop_in.remove().map_err(|error| error.to_string())?;
        said = if was_there { format!("removed {path}\n") } else { format!("there was no {path}\n") };
    }
    if is_listed(&settings, &args.unit) {
        let _ = writeln!(
            said,
            "`{}` is still adopted: remove it from the `match` of its `[[workload]]`, then `interceptor policy reload`",
            args.unit
        );
    }
    Ok(said)
}

fn drop_in(root: &Path, args: &Args, config: &Path) -> Result<(DropIn, Settings), String> {
    let settings = Settings::load(config).map_err(|error| error.to_string())?;
    let runtime = &settings.paths.runtime;
    let drop_in = DropIn::new(root, &args.unit, &runtime.join("trust.pem"), &runtime.join("authority.pem"));
    Ok((drop_in.map_err(|error| error.to_string())?, settings))
}

fn is_listed(settings: &Settings, unit: &str) -> bool {
    settings.workloads.iter().flat_map(|workload| &workload.adopt).any(|adopt| *adopt == Adopt::Unit(unit.to_owned()))
}

/// What the configuration lacks for it, if it lacks something.
fn stanza(settings: &Settings, unit: &str) -> String {
    if is_listed(settings, unit) {
        return String::new();
    }
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let name: String = unit.trim_end_matches(".service").chars().map(plain).take(63).collect();
    let name = name.trim_matches('-');
    format!(
        "no workload adopts it yet; add this to the configuration, then `interceptor policy reload`:\n\n\
         [[workload]]\nname = \"{name}\"\nmatch = {{ unit = {} }}\n\n",
        toml::Value::String(unit.into())
    )
}

/// Tells systemd, and restarts the unit or says that it has to be. One that is adopted has to be in our slice then.
fn finish(mut said: String, args: &Args, otherwise: &str, is_adopted: bool) -> ExitCode {
    if !Path::new("/run/systemd/system").exists() {
        let _ = writeln!(said, "systemd doesn't run here: {otherwise}");
        return super::print(said);
    }
    let restart = ["restart", &args.unit];
    let steps: &[&[&str]] = if args.restart { &[&["daemon-reload"], &restart] } else { &[&["daemon-reload"]] };
    for step in steps {
        let done = Command::new("systemctl").args(*step).status();
        if !done.as_ref().is_ok_and(std::process::ExitStatus::success) {
            let _ = super::print(said);
            let why = done.map_or_else(|error| error.to_string(), |status| status.to_string());
            return super::fail(format_args!("`systemctl {}` failed: {why}", step.join(" ")));
        }
        let _ = writeln!(said, "systemctl {}: done", step.join(" "));
    }
    if is_adopted {
        let shown = Command::new("systemctl").args(["show", "--property=Slice,ControlGroup", &args.unit]).output();
        let shown = shown.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        if let Some(place) = misplaced(&shown, &args.unit, args.restart) {
            let _ = super::print(said);
            return super::fail(format_args!(
                "systemd puts {unit} at `{place}`, where nobody looks for it: see in `systemctl cat {unit}` who says so, and \
                 remove it, or adopt it by `match = {{ cgroup = … }}`",
                unit = args.unit
            ));
        }
    }
    if !args.restart {
        let _ = writeln!(said, "{otherwise}: systemctl restart {}", args.unit);
    }
    super::print(said)
}

/// Where a unit is, or will be, if that isn't our slice, by what `systemctl show` says of it. One that wasn't restarted is still
/// where it was.
fn misplaced(shown: &str, unit: &str, is_restarted: bool) -> Option<String> {
    let of = |name: &str| {
        shown.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).filter(|text| !text.is_empty())
    };
    let slice = of("Slice").filter(|slice| *slice != "interceptor.slice");
    let cgroup = of("ControlGroup").filter(|path| is_restarted && *path != format!("/interceptor.slice/{unit}"));
    slice.or(cgroup).map(str::to_owned)
}

#[cfg(test)]
mod tests;
