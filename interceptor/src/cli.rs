//! The command line: one verb a file. Exit status 0 done, 1 refused or failed, 2 usage; `run` exits as its command does.

use std::fmt::Display;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

pub mod adopt;
pub mod approvals;
pub mod break_glass;
pub mod ca;
pub mod completions;
pub mod config;
pub mod daemon;
pub mod doctor;
pub mod grants;
pub mod ledger;
pub mod listing;
pub mod login;
pub mod mask;
pub mod notify;
pub mod policy;
pub mod record;
pub mod run;
pub mod sessions;
pub mod status;
mod tell;
pub mod terminal;
pub mod uninstall;
pub mod upgrade;
pub mod workloads;

/// Just-in-time access control under MCP servers: what they send is steered, decided by policy, and recorded.
#[derive(Debug, Parser)]
#[command(name = "interceptor", version, arg_required_else_help = true, subcommand_required = true)]
#[command(after_help = "Exit status: 0 done, 1 refused or failed, 2 wrong usage; that of the command for `run`.")]
struct Arguments {
    /// The configuration file.
    #[arg(long, global = true, value_name = "PATH", default_value = "/etc/interceptor/config.toml")]
    config: PathBuf,
    /// The daemon's control socket. Default: `control_socket` of the configuration if it can be read, else
    /// /run/interceptor/control.sock.
    #[arg(long, global = true, value_name = "PATH", env = "INTERCEPTOR_SOCKET")]
    socket: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Be the daemon, in the foreground; as root.
    ///
    /// SIGHUP loads settings and policies again, SIGTERM lets operations finish for up to `limits.drain` and ends it.
    /// Launched workloads live on: they can connect to nothing until the daemon is back.
    Daemon,
    /// Launch a command as a workload under control.
    Run(run::Args),
    /// Whether the daemon serves (yes, degraded, no), and what stands in the way.
    Status(status::Args),
    /// What this host lacks, and how to mend it; as root.
    Doctor,
    /// Make a unit of systemd one that can be contained, by a drop-in; as root.
    Adopt(adopt::Args),
    /// Remove that drop-in; as root.
    Release(adopt::Args),
    /// Check, load and explain policies.
    #[command(subcommand)]
    Policy(policy::Command),
    /// Try masks and their detectors.
    #[command(subcommand)]
    Mask(mask::Command),
    /// The workloads, launched and adopted.
    #[command(subcommand)]
    Workloads(workloads::Command),
    /// What the kernel saw of each workload, beside what the proxy handled; what is unexplained has to be 0.
    Ledger(ledger::Args),
    /// What was recorded.
    #[command(subcommand)]
    Sessions(sessions::Command),
    /// What people are asked before it goes on, and their answers.
    #[command(subcommand)]
    Approvals(approvals::Command),
    /// Sign in as the person that you are, to answer what is asked of you.
    Login(login::Args),
    /// Be signed in no longer.
    Logout,
    /// What is let through for a time.
    #[command(subcommand)]
    Grants(grants::Command),
    /// What comes into force in an emergency.
    #[command(subcommand)]
    BreakGlass(break_glass::Command),
    /// The channels that people are told by.
    #[command(subcommand)]
    Notify(notify::Command),
    /// The record's database.
    #[command(subcommand)]
    Record(record::Command),
    /// The certificate authority that workloads trust.
    #[command(subcommand)]
    Ca(ca::Command),
    /// Check the configuration file, or print its schema.
    #[command(subcommand)]
    Config(config::Command),
    /// Whether this binary can take over from the daemon that runs; as root.
    Upgrade(upgrade::Args),
    /// Remove what the daemon leaves on a host, but for the record; as root.
    Uninstall(uninstall::Args),
    /// Print the completions for a shell.
    Completions(completions::Args),
}

/// Does what the command line says.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version go to stdout and are no failure.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let Arguments { config, socket, verb } = arguments;
    let socket = socket.unwrap_or_else(|| socket_of(&config));
    match verb {
        Verb::Daemon => daemon::execute(&config),
        Verb::Run(args) => run::execute(args, &socket),
        Verb::Status(args) => status::execute(&args, &socket),
        Verb::Doctor => doctor::execute(&config, &socket),
        Verb::Adopt(args) => adopt::adopt(&args, &config, &socket),
        Verb::Release(args) => adopt::release(&args, &config, &socket),
        Verb::Policy(command) => policy::execute(command, &config, &socket),
        Verb::Mask(command) => mask::execute(&command, &config),
        Verb::Workloads(command) => workloads::execute(&command, &socket),
        Verb::Ledger(args) => ledger::execute(&args, &socket),
        Verb::Sessions(command) => sessions::execute(command, &socket),
        Verb::Approvals(command) => approvals::execute(command, &socket),
        Verb::Login(args) => login::login(&args, &socket),
        Verb::Logout => login::logout(&socket),
        Verb::Grants(command) => grants::execute(command, &socket),
        Verb::BreakGlass(command) => break_glass::execute(command, &socket),
        Verb::Notify(command) => notify::execute(&command, &socket),
        Verb::Record(command) => record::execute(command, &socket),
        Verb::Ca(command) => ca::execute(&command, &config),
        Verb::Config(command) => config::execute(&command, &config),
        Verb::Upgrade(args) => upgrade::execute(&args, &config, &socket),
        Verb::Uninstall(args) => uninstall::execute(&args, &config, &socket),
        Verb::Completions(args) => completions::execute(&args, &mut Arguments::command()),
    }
}

/// The control socket that the configuration names, if it can be read by this user and is sound.
fn socket_of(config: &Path) -> PathBuf {
    crate::config::Settings::load(config)
        .map_or_else(|_| PathBuf::from("/run/interceptor/control.sock"), |settings| settings.paths.control_socket)
}

/// Prints to stdout. A reader that went away (`| head`) is no failure of ours, anything else is.
fn print(text: impl Display) -> ExitCode {
    let mut stdout = io::stdout().lock();
    match write!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => fail(format_args!("can't write: {error}")),
        _ => ExitCode::SUCCESS,
    }
}

/// Prints why it failed to stderr.
fn fail(why: impl Display) -> ExitCode {
    let _ = writeln!(io::stderr().lock(), "interceptor: {why}");
    ExitCode::FAILURE
}

/// Prints each fault with its place underlined, to stderr.
fn fail_underlined(error: impl miette::Diagnostic + Send + Sync + 'static) -> ExitCode {
    let _ = writeln!(io::stderr().lock(), "{:?}", miette::Report::new(error));
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests;
