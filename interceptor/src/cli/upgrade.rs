//! `interceptor upgrade --check`: whether this binary can take over from the daemon that runs, and what it would keep.

use std::path::Path;
use std::process::ExitCode;

use interceptor_common::LAYOUT;

use crate::config::Settings;
use crate::control::client;
use crate::control::protocol::{Request, Status};
use crate::launch;
use crate::record::Reader;

/// What is asked.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only say whether it can be done: to upgrade is to replace the binary and to restart the daemon
    #[arg(long, required = true)]
    check: bool,
}

/// Says it; exits 1 if this binary can't take over.
pub fn execute(args: &Args, config: &Path, socket: &Path) -> ExitCode {
    debug_assert!(args.check, "clap requires it");
    let settings = match Settings::load_trusted(config) {
        Ok(settings) => settings,
        Err(error) => return super::fail_underlined(error),
    };
    let mut said = vec![format!("this binary    {}", env!("CARGO_PKG_VERSION"))];
    match client::call(socket, &Request::Status).map(serde_json::from_value::<Status>) {
        Ok(Ok(status)) => said.push(format!("the daemon     {}, pid {}", status.version, status.pid)),
        Ok(Err(_)) => said.push("the daemon     of another version".into()),
        Err(error) => said.push(format!("the daemon     {error}")),
    }
    let mut trouble = Vec::new();
    let database = settings.paths.state.join("record.db");
    if database.exists() {
        match Reader::open(&database) {
            Ok(_) => said.push("the record     can be read, and is brought up to date at the start".into()),
            Err(error) => trouble.push(format!("the record can't be used by this binary: {error}")),
        }
    }
    let layouts = std::fs::read_dir(&settings.paths.pins).into_iter().flatten().flatten();
    let layouts: Vec<String> = layouts.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    match layouts.iter().find(|layout| *layout != LAYOUT) {
        Some(other) => trouble.push(format!(
            "what is pinned has the layout `{other}`, this binary has `{LAYOUT}`: end the workloads, then `interceptor uninstall \
             --pins`, then upgrade"
        )),
        None if layouts.is_empty() => said.push("the pins       none".into()),
        None => said.push(format!("the pins       of the layout {LAYOUT}: workloads live on, their connections are refused \
             until the new daemon serves")),
    }
    let launches = std::fs::read_dir(settings.paths.runtime.join("workloads")).into_iter().flatten().flatten();
    for entry in launches {
        if let Some(why) = launch::unreadable(&entry.path()) {
            let name = entry.file_name();
            trouble.push(format!(
                "the launched workload `{}` can't be taken over by this binary: {why}; end it, then upgrade",
                name.display()
            ));
        }
    }
    let said = said.join("\n");
    if trouble.is_empty() {
        return super::print(format_args!("{said}\nit can take over: replace the binary, then restart the daemon\n"));
    }
    let _ = super::print(format_args!("{said}\n"));
    super::fail(trouble.join("\n"))
}
