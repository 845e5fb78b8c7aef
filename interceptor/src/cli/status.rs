//! `interceptor status`.

use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;

use crate::control::client;
use crate::control::protocol::{Request, Serving, Status};

/// How to print it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

/// Prints whether the daemon serves; exits 0 for `yes` and `degraded`, 1 for `no` and where nobody answers.
pub fn execute(args: &Args, socket: &Path) -> ExitCode {
    let answer = client::call(socket, &Request::Status);
    let value = match answer {
        Ok(value) => value,
        Err(error) if args.json => {
            let nobody = serde_json::json!({ "serving": "no", "causes": [
                { "code": "daemon-unreachable", "message": error.to_string(), "next": "interceptor doctor" }] });
            super::print(format_args!("{nobody:#}\n"));
            return ExitCode::FAILURE;
        }
        Err(error) => {
            super::print("serving no\n");
            return super::fail(error);
        }
    };
    let status: Status = match serde_json::from_value(value.clone()) {
        Ok(status) => status,
        Err(error) => return super::fail(client::ClientError::Garbled(error.to_string())),
    };
    let printed = if args.json { super::print(format_args!("{value:#}\n")) } else { super::print(describe(&status)) };
    if status.serving == Serving::No { ExitCode::FAILURE } else { printed }
}

fn describe(status: &Status) -> String {
    let serving = match status.serving {
        Serving::Yes => "yes",
        Serving::Degraded => "degraded",
        Serving::No => "no",
    };
    let mut text = format!("serving {serving}\n");
    for cause in &status.causes {
        let _ = writeln!(text, "  {}: {}\n    {}", cause.code, cause.message, cause.next);
    }
    let policies = status.policies.as_deref().and_then(|digest| digest.get(..12)).unwrap_or("none");
    let _ = writeln!(text, "daemon {} pid {} since {}", status.version, status.pid, status.started);
    let _ = writeln!(text, "policy generation {} digest {policies}", status.generation);
    let _ = writeln!(text, "workloads {} connections {}", status.workloads, status.connections);
    for sink in &status.exports {
        let _ = write!(text, "export {} ({}) event {}, {} behind", sink.name, sink.kind, sink.seq, sink.behind);
        match (&sink.error, sink.age_ms) {
            (Some(error), _) => {
                let _ = writeln!(text, ", failing: {}", super::terminal::escape(error));
            }
            (None, Some(age)) => {
                let _ = writeln!(text, " for {}.{} s", age / 1_000, age % 1_000 / 100);
            }
            (None, None) => text.push('\n'),
        }
    }
    text
}

#[cfg(test)]
mod tests;
