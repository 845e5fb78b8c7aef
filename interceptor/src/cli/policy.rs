//! `interceptor policy`: check files without a daemon, load them into the running one, show what is in force, and explain
//! a verdict, of an operation that was recorded or of one that is only asked about.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::de::DeserializeOwned;

use crate::clock::{Clock, SystemClock};
use crate::config::{self, ConfigError, Host, Settings, Trust};
use crate::control::client;
use crate::control::protocol::{Explained, Reloaded, Request};
use crate::ids::{ClientId, OperationId, PrincipalId, WorkloadName};
use crate::policy::{
    self, Asker, Authentic, Bound, CanonicalPath, Cited, Credential, Explanation, HttpRequest, InForce, Operation,
    PolicyErrors, Principal, PrincipalKind, Question, SCHEMA, Snapshot, Source,
};
use crate::record::event::TokenIssued;

/// What to do with policies.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Check the policy files, without root and without a daemon: each fault is underlined.
    Check {
        /// The folder with the `*.cedar` files [default: the configuration's]
        dir: Option<PathBuf>,
    },
    /// Load settings and policies into the running daemon; broken ones are refused and change nothing.
    Reload,
    /// Show the policies that are in force.
    Show {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print the Cedar schema: what policies can talk about.
    Schema,
    /// Explain a verdict: that of a recorded operation, or what would be decided.
    Explain(Box<Explain>),
}

/// A recorded operation, or a question.
#[derive(Debug, clap::Args)]
pub struct Explain {
    /// A recorded operation: `op_…`
    #[arg(value_name = "OPERATION", required_unless_present = "workload", conflicts_with_all = ["workload", "target", "dir"])]
    operation: Option<OperationId>,
    /// Ask for this workload
    #[arg(long, requires = "target")]
    workload: Option<WorkloadName>,
    /// Ask for this target
    #[arg(long, requires = "workload")]
    target: Option<String>,
    /// Ask for a request with this method; without it, for a connection
    #[arg(long, requires = "path", conflicts_with = "resolve")]
    method: Option<String>,
    /// The request's path, with its query
    #[arg(long, requires = "method")]
    path: Option<String>,
    /// Ask for a WebSocket that the request opens
    #[arg(long, requires = "method")]
    websocket: bool,
    /// Ask for a look-up of the name
    #[arg(long)]
    resolve: bool,
    /// The name or address [default: the target's first]
    #[arg(long)]
    host: Option<Host>,
    /// The port [default: the target's first]
    #[arg(long)]
    port: Option<u16>,
    /// The uid of the person who launched the workload
    #[arg(long, default_value_t = nix::unistd::getuid().as_raw())]
    initiator: u32,
    /// The identity that its token names: `TENANT/OBJECT` [default: no token]
    #[arg(long, value_name = "ID", conflicts_with = "resolve", requires = "method")]
    principal: Option<PrincipalId>,
    /// What that identity is
    #[arg(long, requires = "principal", default_value = "service-principal", value_parser = kind)]
    kind: PrincipalKind,
    /// The application that the token was issued to
    #[arg(long, value_name = "ID", requires = "principal")]
    client: Option<ClientId>,
    /// A group of the identity: `TENANT/ID`; can be repeated
    #[arg(long, value_name = "GROUP", requires = "principal")]
    group: Vec<String>,
    /// A role of the identity: `TENANT/AUDIENCE/VALUE`; can be repeated
    #[arg(long, value_name = "ROLE", requires = "principal")]
    role: Vec<String>,
    /// When it is asked, in RFC 3339 [default: now]
    #[arg(long)]
    at: Option<Timestamp>,
    /// The folder with the `*.cedar` files [default: the configuration's]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Why a verb failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Config(#[from] ConfigError),
    #[error("{0}")]
    Policy(#[from] PolicyErrors),
    #[error("{0}")]
    Client(#[from] client::ClientError),
    #[error("the daemon answered what this version doesn't understand: {0}; use an `interceptor` of its version")]
    Answer(serde_json::Error),
    #[error("{0}")]
    Question(String),
    #[error("{0}; until it can be, nothing of it passes: see `interceptor status`")]
    NotAdopted(String),
    #[error("can't write: {0}")]
    Write(#[from] io::Error),
}

/// Does it; `config` is the configuration file, `socket` the daemon's control socket.
pub fn execute(command: Command, config: &Path, socket: &Path) -> ExitCode {
    match run(command, config, socket) {
        Ok(()) => ExitCode::SUCCESS,
        // A reader that went away (`| head`) is no failure.
        Err(Failure::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            let text = match failure {
                Failure::Config(error @ ConfigError::Invalid(_)) => format!("{:?}", miette::Report::new(error)),
                Failure::Policy(errors) => errors.render(io::stderr().is_terminal(), 120),
                other => format!("interceptor: {other}"),
            };
            // Where nothing can be written, the exit status still tells.
            let _ = writeln!(io::stderr().lock(), "{}", text.trim_end());
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command, config: &Path, socket: &Path) -> Result<(), Failure> {
    match command {
        Command::Check { dir } => {
            let snapshot = load(config, dir.as_deref())?;
            let color = io::stderr().is_terminal();
            warn(snapshot.warnings().iter().map(|warning| warning.render(color, 120)));
            print(format_args!("ok: {}\n", counted(&snapshot.in_force())))
        }
        Command::Reload => {
            let Reloaded { now, restart_needed_for, not_adopted, warnings } = ask(socket, &Request::PolicyReload)?;
            warn(warnings.iter().map(|warning| format!("warning: {}", plain(warning))));
            let restart = match restart_needed_for.as_slice() {
                [] => String::new(),
                changed => format!("; what changed of {} needs a restart of the daemon", changed.join(", ")),
            };
            let begins = if not_adopted.is_some() { "in force" } else { "ok" };
            print(format_args!("{begins}: generation {}, {}{restart}\n", now.generation, counted(&now)))?;
            not_adopted.map_or(Ok(()), |why| Err(Failure::NotAdopted(why)))
        }
        Command::Show { json } => {
            let now: InForce = ask(socket, &Request::PolicyShow)?;
            if json { print_json(&now) } else { show(&now) }
        }
        Command::Schema => print(SCHEMA),
        Command::Explain(explain) => {
            let told: Explained = match &explain.operation {
                Some(operation) => ask(socket, &Request::PolicyExplain { operation: operation.to_string() })?,
                None => Explained { explanation: what_if(&explain, config)?, token: None, names: BTreeMap::new() },
            };
            if explain.json { print_json(&told) } else { tell(&told) }
        }
    }
}

/// The policies of `dir`, or of the folder that the configuration names, in the host's time zone. It decides nothing
/// that is carried out, so anybody's files will do.
fn load(config: &Path, dir: Option<&Path>) -> Result<Snapshot, Failure> {
    let settings = Settings::load(config)?;
    let read = |sources: Vec<_>| sources.into_iter().map(|(name, text)| Source { name, text }).collect();
    let sources = config::policy_sources(dir.unwrap_or(&settings.paths.policy), Trust::Unchecked)?;
    let break_glass = config::break_glass_sources(&settings.paths.break_glass, Trust::Unchecked)?;
    Ok(Snapshot::load_with(Arc::new(settings), read(sources), read(break_glass), 0)?.in_zone(TimeZone::system()))
}

fn what_if(explain: &Explain, config: &Path) -> Result<Explanation, Failure> {
    let (Some(workload), Some(target)) = (&explain.workload, &explain.target) else {
        return Err(Failure::Question("name an operation, or `--workload` and `--target`".into()));
    };
    let snapshot = load(config, explain.dir.as_deref())?;
    let settings = &snapshot.settings;
    let Some(workload) = settings.workloads.iter().find(|known| known.name == *workload) else {
        return Err(Failure::Question(format!("no `[[workload]]` is named `{workload}`")));
    };
    let Some(target) = settings.targets.iter().find(|known| known.name.as_str() == target) else {
        return Err(Failure::Question(format!("no `[[target]]` is named `{target}`")));
    };
    let host = explain.host.clone().or_else(|| {
        target.hosts.iter().find_map(|pattern| match pattern {
            config::HostPattern::Exact(host) => Some(host.clone()),
            config::HostPattern::Wildcard(_) => None,
        })
    });
    let (Some(host), Some(port)) = (host, explain.port.or_else(|| target.ports.first().copied())) else {
        return Err(Failure::Question(format!("target `{}` lists no single host; add `--host`", target.name)));
    };
    let ambiguous = |error: policy::AmbiguousPath| Failure::Question(format!("the path is refused with 400: {error}"));
    let (path, query) = match explain.path.as_deref().unwrap_or("/").split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (explain.path.as_deref().unwrap_or("/"), None),
    };
    let path = CanonicalPath::parse(path).map_err(ambiguous)?;
    query.map_or(Ok(()), policy::check_query).map_err(ambiguous)?;
    let operation = match (&explain.method, &host) {
        (Some(method), host) => Operation::Http(HttpRequest {
            method,
            host,
            port,
            tls: !target.cleartext,
            path: &path,
            query,
            credential: credential(explain, query, target.credential.is_some()),
            websocket: explain.websocket,
        }),
        (None, Host::Name(name)) if explain.resolve => Operation::Resolve { name },
        (None, _) if explain.resolve => return Err(Failure::Question(format!("`{host}` is no name to look up"))),
        (None, host) => Operation::Connect { host, port },
    };
    let principal = explain.principal();
    let asker = Asker {
        workload: workload.name.clone(),
        classes: workload.classes.clone(),
        initiator: explain.initiator,
        loginuid: None,
    };
    let principal = principal.as_ref();
    let question = Question { asker: &asker, principal, target, operation, digest: None, using: None };
    Ok(policy::explain(&snapshot, &question, explain.at.unwrap_or_else(|| SystemClock.now())))
}

impl Explain {
    /// The identity that is asked for, as if its token had been seen issued to the workload.
    fn principal(&self) -> Option<Principal> {
        self.principal.clone().map(|id| Principal {
            id,
            kind: self.kind,
            client: self.client,
            groups: Some(self.group.clone()),
            roles: self.role.clone(),
            authentic: Authentic::Issuer,
            bound: Bound::IssuedHere,
        })
    }
}

fn kind(text: &str) -> Result<PrincipalKind, String> {
    let kinds = [
        PrincipalKind::User,
        PrincipalKind::ServicePrincipal,
        PrincipalKind::ManagedIdentity,
        PrincipalKind::AgentIdentity,
        PrincipalKind::AgentUser,
    ];
    let known = kinds.map(PrincipalKind::as_str).join("`, `");
    kinds.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| format!("it is one of `{known}`"))
}

/// What a request with this query and nothing else to authenticate it, or a token, has; `injected`: the target has a
/// credential of its own.
fn credential(explain: &Explain, query: Option<&str>, injected: bool) -> Credential {
    match policy::foreign([], query).is_empty() {
        true if explain.principal.is_some() => Credential::Entra,
        true if injected => Credential::Injected,
        true => Credential::None,
        false => Credential::Foreign,
    }
}

fn ask<T: DeserializeOwned>(socket: &Path, request: &Request) -> Result<T, Failure> {
    serde_json::from_value(client::call(socket, request)?).map_err(Failure::Answer)
}

fn counted(now: &InForce) -> String {
    let count = |count: usize, one: &str, many: &str| format!("{count} {}", if count == 1 { one } else { many });
    let policies = count(now.policies.len(), "policy", "policies");
    let emergency = match now.break_glass.len() {
        0 => String::new(),
        more => format!(", {more} more in an emergency"),
    };
    format!("{policies} in {}{emergency}", count(now.sources.len(), "file", "files"))
}

fn show(now: &InForce) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    writeln!(out, "// generation {}, {}, digest {}", now.generation, counted(now), now.digest)?;
    if let Some(why) = &now.sealed {
        writeln!(out, "// everything is denied: {}", plain(why))?;
    }
    for source in &now.sources {
        writeln!(out, "\n// {}\n{}", plain(&source.name), plain(source.text.trim_end()))?;
    }
    Ok(out.flush()?)
}

fn tell(explained: &Explained) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let told = &explained.explanation;
    match &told.code {
        Some(code) => writeln!(out, "{} ({})", told.verdict, plain(code))?,
        None => writeln!(out, "{}", told.verdict)?,
    }
    for reason in &told.basis.reasons {
        writeln!(out, "  {}", plain(reason))?;
    }
    if let Some(grant) = told.basis.grant {
        writeln!(out, "  let through by {grant}")?;
    }
    if let Some(glass) = told.basis.break_glass {
        writeln!(out, "  let through because the glass was broken: {glass}")?;
    }
    if let Some(seconds) = told.basis.obligations.max_session {
        writeln!(out, "  the connection lives {seconds} s at most")?;
    }
    if let Some(token) = &explained.token {
        asked_by(&mut out, token, &explained.names)?;
    }
    cite(&mut out, "determined by", &told.determining)?;
    for id in told.basis.policies.iter().filter(|id| told.determining.iter().all(|cited| cited.id != **id)) {
        writeln!(out, "\ndetermined by `{}` of generation {}, which isn't in force", plain(id), told.basis.generation)?;
    }
    cite(&mut out, "near: for this target and action, but its condition isn't met", &told.near)?;
    if let Some(asked) = &told.asked {
        writeln!(out, "\nas policy saw it, at {}:", asked.at)?;
        writeln!(out, "  {} {} {}", plain(&asked.principal), plain(&asked.action), plain(&asked.resource))?;
        let context = serde_json::to_string_pretty(&asked.context).map_err(Failure::Answer)?;
        writeln!(out, "  context {}", plain(&context).replace('\n', "\n  "))?;
        for (key, values) in &asked.query {
            writeln!(out, "  query {}: {}", plain(key), plain(&values.join(", ")))?;
        }
    }
    Ok(out.flush()?)
}

/// The token that it was asked with: whom it names, and what else it says.
fn asked_by(out: &mut impl Write, token: &TokenIssued, names: &BTreeMap<String, String>) -> Result<(), Failure> {
    let named = |id: &str| match names.get(id) {
        Some(name) => format!("{} ({})", plain(name), plain(id)),
        None => plain(id),
    };
    let issued = &token.issued;
    writeln!(out, "\nasked as {}, {}", named(issued.principal.as_str()), issued.kind.as_str())?;
    if let Some(client) = &issued.client {
        writeln!(out, "  by application {}", named(&client.to_string()))?;
    }
    writeln!(out, "  token {}: for {}", token.token, plain(&issued.audiences.join(", ")))?;
    writeln!(
        out,
        "  bound {}, authentic {}, until {}",
        issued.bound.as_str(),
        issued.authentic.as_str(),
        issued.expiry
    )?;
    if let Some(uti) = &issued.uti {
        writeln!(out, "  uti {}", plain(uti))?;
    }
    match &issued.groups {
        None => writeln!(out, "  groups: the token doesn't tell them")?,
        Some(groups) if groups.is_empty() => writeln!(out, "  groups: none")?,
        Some(groups) => groups.iter().try_for_each(|group| writeln!(out, "  group {}", named(group)))?,
    }
    issued.roles.iter().try_for_each(|role| writeln!(out, "  role {}", named(role)))?;
    Ok(())
}

fn cite(out: &mut impl Write, why: &str, cited: &[Cited]) -> Result<(), Failure> {
    for policy in cited {
        writeln!(
            out,
            "\n{why}: {} `{}` ({}:{})",
            plain(&policy.effect),
            plain(&policy.id),
            plain(&policy.file),
            policy.line
        )?;
        writeln!(out, "  {}", plain(&policy.text).replace('\n', "\n  "))?;
    }
    Ok(())
}

/// Text as a terminal may get it: control characters but the line feed are escaped.
fn plain(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut plain, character| {
        if character.is_control() && !matches!(character, '\n' | '\t') {
            plain.extend(character.escape_default());
        } else {
            plain.push(character);
        }
        plain
    })
}

/// Tells what isn't an error, beside the answer.
fn warn(warnings: impl Iterator<Item = String>) {
    for warning in warnings {
        // Where nothing can be written, it is done all the same.
        let _ = writeln!(io::stderr().lock(), "{}", warning.trim_end());
    }
}

fn print(text: impl Display) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    write!(out, "{text}")?;
    Ok(out.flush()?)
}

fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(Failure::Answer)?;
    print(format_args!("{text}\n"))
}

#[cfg(test)]
mod tests;
