//! `interceptor record`: the database itself. What is in it is asked for with `interceptor sessions`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use nix::unistd::Uid;

use super::terminal::escape;
use crate::clock::{Clock, SystemClock};
use crate::config::RecordSettings;
use crate::control::client;
use crate::control::protocol::Request;
use crate::record::{self, Asker, Rotated};

/// What to do with the database.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Command {
    /// Seal the database, move it aside, and begin a new one that names it; recorded in both
    ///
    /// A damaged one is moved aside as it is. Where the daemon doesn't start because of that, give `--state`.
    Rotate {
        /// Do it without the daemon, in this state folder, as in /var/lib/interceptor; as root
        #[arg(long, value_name = "PATH")]
        state: Option<PathBuf>,
    },
}

/// Does it, through the daemon at `socket` unless a folder is named. Exits 0 when done, else 1.
pub fn execute(command: Command, socket: &Path) -> ExitCode {
    let Command::Rotate { state } = command;
    let rotated = match state {
        Some(dir) => {
            let clock: Arc<dyn Clock> = Arc::new(SystemClock);
            let by = Asker { uid: Uid::current().as_raw(), pid: std::process::id() };
            record::rotate(&dir, &RecordSettings::default(), &clock, by).map_err(|error| error.to_string())
        }
        None => client::call(socket, &Request::RecordRotate).map_err(|error| error.to_string()).and_then(|value| {
            serde_json::from_value::<Rotated>(value).map_err(|error| format!("the daemon's answer is another: {error}"))
        }),
    };
    match rotated {
        Ok(rotated) => super::print(describe(&rotated)),
        Err(error) => super::fail(escape(&error)),
    }
}

fn describe(rotated: &Rotated) -> String {
    let Rotated { previous, seq, digest, sealed, .. } = rotated;
    let last = seq.map_or("of which the last event isn't known".into(), |seq| format!("which ends with event {seq}"));
    let how = if *sealed { "sealed" } else { "damaged, so it couldn't be sealed" };
    let digest = match digest {
        Some(digest) => format!("BLAKE3 of that file: {digest}"),
        None => "the BLAKE3 of that file comes into the record as `record.hashed`, once it is read".into(),
    };
    format!(
        "the record goes on in a new database; the old one, {last}, is {previous} ({how})\n{digest}\n\
         check the link: interceptor sessions verify --db record.db --previous {previous}\n"
    )
}

#[cfg(test)]
mod tests;
