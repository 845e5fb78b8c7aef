//! Which `[[workload]]` a launch is for: by the caller's uid and groups and the command's file name.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use nix::unistd::{Uid, User};

use super::{Caller, LaunchError};
use crate::config::{Match, WorkloadSettings};
use crate::ids::WorkloadName;

const CONTAINER: &str = "its containers are started by another daemon, out of reach: run the server's own command \
     under `interceptor run`, inside the container's image or on the host";
const ELSEWHERE: &str = "it has something else start the command, out of reach: name the command itself after `--`";
const OTHER_USER: &str =
    "set-uid programs have no effect inside: set the workload's `user`, and name the command itself after `--`";

/// Commands that have their work done by processes outside the workload, or need rights that no workload has.
const REFUSED: [(&str, &str); 22] = [
    ("docker", CONTAINER),
    ("docker-compose", CONTAINER),
    ("podman", CONTAINER),
    ("podman-compose", CONTAINER),
    ("nerdctl", CONTAINER),
    ("ctr", CONTAINER),
    ("lxc", CONTAINER),
    ("incus", CONTAINER),
    ("flatpak", CONTAINER),
    ("snap", CONTAINER),
    ("distrobox", CONTAINER),
    ("toolbox", CONTAINER),
    ("systemd-run", ELSEWHERE),
    ("machinectl", ELSEWHERE),
    ("run0", ELSEWHERE),
    ("at", ELSEWHERE),
    ("batch", ELSEWHERE),
    ("crontab", ELSEWHERE),
    ("sudo", OTHER_USER),
    ("su", OTHER_USER),
    ("doas", OTHER_USER),
    ("pkexec", OTHER_USER),
];

/// Chooses the workload: the one that is `named`, else the first in the file's order that fits the caller and the
/// command. `user` is what the caller asked to run as; it must be what the workload's `user` says.
///
/// # Errors
/// [`LaunchError::NoMatch`] with the stanza to add, [`LaunchError::NotForCaller`], [`LaunchError::User`], or
/// [`LaunchError::Command`].
pub fn choose(
    workloads: &[Arc<WorkloadSettings>],
    caller: &Caller,
    named: Option<&WorkloadName>,
    user: Option<&str>,
    argv: &[Vec<u8>],
) -> Result<Arc<WorkloadSettings>, LaunchError> {
    let command = command_name(argv)?;
    let chosen = match named {
        Some(name) => workloads
            .iter()
            .find(|workload| workload.name == *name)
            .filter(|workload| may_launch(&workload.matches, caller, &command))
            .ok_or_else(|| LaunchError::NotForCaller(name.clone()))?,
        None => workloads
            .iter()
            .filter(|workload| user.is_none() || workload.user.as_deref() == user)
            .find(|workload| fits(&workload.matches, caller, &command))
            .ok_or_else(|| no_match(caller, user, &command))?,
    };
    if user.is_some() && chosen.user.as_deref() != user {
        return Err(LaunchError::User {
            message: format!("workload `{}` isn't for running as user `{}`", chosen.name, user.unwrap_or_default()),
            next: "leave `--user` out, or set the same `user` in its `[[workload]]`",
        });
    }
    Ok(Arc::clone(chosen))
}

/// The file name of the command, which must be one that can be contained.
fn command_name(argv: &[Vec<u8>]) -> Result<String, LaunchError> {
    let refused = |message: String, next| Err(LaunchError::Command { message, next });
    let Some(command) = argv.first().filter(|command| !command.is_empty()) else {
        return refused("there is no command".into(), "name the command after `--`");
    };
    let name = Path::new(OsStr::from_bytes(command)).file_name().unwrap_or_default().to_string_lossy().into_owned();
    match REFUSED.iter().find(|(refused, _)| *refused == name) {
        Some((_, next)) => refused(format!("`{name}` can't be contained"), next),
        None => Ok(name),
    }
}

/// Whether the caller may name this workload.
fn may_launch(matches: &Match, caller: &Caller, command: &str) -> bool {
    caller.operator || fits(matches, caller, command)
}

/// Whether the workload is chosen for this caller and command. What is empty isn't tested; a workload without any `match`
/// is for operators, who name it.
fn fits(matches: &Match, caller: &Caller, command: &str) -> bool {
    let Match { uids, gids, command: wanted } = matches;
    let tested = !uids.is_empty() || !gids.is_empty() || wanted.is_some();
    tested
        && (uids.is_empty() || uids.contains(&caller.uid))
        && (gids.is_empty() || gids.iter().any(|&gid| caller.in_group(gid)))
        && wanted.as_ref().is_none_or(|wanted| wanted == command)
}

fn no_match(caller: &Caller, user: Option<&str>, command: &str) -> LaunchError {
    let name = workload_name(command);
    let quoted = toml::Value::String(command.into());
    let mut stanza =
        format!("[[workload]]\nname = \"{name}\"\nmatch = {{ uid = {}, command = {quoted} }}\n", caller.uid);
    if let Some(user) = user.or_else(|| (caller.uid == 0).then_some("…")) {
        stanza.push_str(&format!("user = {}\n", toml::Value::String(user.into())));
    }
    let who = User::from_uid(Uid::from_raw(caller.uid)).ok().flatten().map(|user| format!(" ({})", user.name));
    let asked = format!("uid {}{} asked for `{command}`", caller.uid, who.unwrap_or_default());
    LaunchError::NoMatch { asked, stanza }
}

/// A workload name made of a command's.
fn workload_name(command: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let name: String = command.chars().map(plain).take(63).collect();
    let name = name.trim_matches('-');
    if name.is_empty() { "server".into() } else { name.into() }
}

#[cfg(test)]
mod tests;
