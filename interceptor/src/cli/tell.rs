//! Telling the record of what a command is about to do to the host by itself: through the daemon, or in the state folder where
//! none runs. What can't be recorded is said on stderr, and done all the same: a host whose record is broken can be mended.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::Uid;

use super::terminal::escape;
use crate::clock::SystemClock;
use crate::config::Settings;
use crate::control::client::{self, ClientError};
use crate::control::protocol::{HostCommand, Request, words};
use crate::record;
use crate::record::event::What;

/// How long it may take to write the event.
const PATIENCE: Duration = Duration::from_secs(10);

/// Has `command` on `unit` recorded.
pub(super) fn of_unit(command: HostCommand, unit: &str, settings: &Settings, socket: &Path) {
    match client::call(socket, &Request::HostCommand { command, unit: unit.to_owned() }) {
        Ok(_null) => {}
        Err(ClientError::NotRunning(_)) => without_the_daemon(&words(command.as_str(), unit), settings),
        Err(error) => warn(&error.to_string()),
    }
}

/// Has `command` recorded where no daemon runs.
pub(super) fn without_the_daemon(command: &str, settings: &Settings) {
    let (uid, pid) = (Uid::current().as_raw(), std::process::id());
    let event = What::ControlRequest { uid, pid, request: command.to_owned(), refused: None };
    let entered = record::enter(&settings.paths.state, &settings.record, Arc::new(SystemClock), event, PATIENCE);
    if let Err(error) = entered {
        warn(&error.to_string());
    }
}

fn warn(why: &str) {
    let _ = writeln!(io::stderr().lock(), "interceptor: this isn't recorded: {}", escape(why));
}
