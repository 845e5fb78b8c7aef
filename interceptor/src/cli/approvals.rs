//! `interceptor approvals`: what people are asked, and their answers. What governed processes wrote is escaped before it
//! is printed.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::io::{self, BufRead, IsTerminal, StdinLock, Stdout, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use jiff::Timestamp;
use nix::sys::termios::{FlushArg, tcflush};

use super::listing::Listing;
use super::login::{self, Browser, Failure};
use super::sessions::table;
use super::terminal::escape;
use crate::control::client::{self, ClientError};
use crate::control::protocol::{Request, ShownApproval, ToSign};
use crate::ids::ApprovalId;
use crate::policy::{Credential, Width};
use crate::record::approval::Approval;
use crate::record::event::{ApprovalRequest, as_whom};
use crate::who::NOBODY;

mod alike;
mod verify;

/// What to do with approvals.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Command {
    /// List what waits for an answer, the oldest first; with `--all`, for operators, what is closed
    List(Listing),
    /// Show one: who asks, for what exactly, why, and what a yes would let through
    Show {
        /// The approval's id, or the beginning of it
        #[arg(value_name = "ID")]
        id: String,
        /// Print a JSON object
        #[arg(long)]
        json: bool,
    },
    /// Say yes
    Approve {
        /// The approval's id, or the beginning of it
        #[arg(value_name = "ID")]
        id: String,
        /// How much the yes lets through: `show` says it in plain words
        #[arg(long, value_enum, default_value_t = Wide::Operation)]
        scope: Wide,
        /// What goes with it
        #[command(flatten)]
        how: How,
        /// Also to all that are alike: they are listed, and approved when you say so
        #[arg(long)]
        batch: bool,
        /// Don't ask before a batch is approved
        #[arg(long, requires = "batch")]
        yes: bool,
    },
    /// Say no
    Deny {
        /// The approval's id, or the beginning of it
        #[arg(value_name = "ID")]
        id: String,
        /// What goes with it
        #[command(flatten)]
        how: How,
    },
    /// Wait for questions, show each and ask for y or n; until Ctrl-C
    Watch {
        /// Sign the answers: sign in for each, or for all of a row, with a browser
        #[arg(long)]
        login: bool,
        /// How.
        #[command(flatten)]
        browser: Browser,
    },
    /// Check that the answers were signed by those who gave them
    Verify(verify::Args),
}

/// How an answer is given.
#[derive(Debug, Clone, clap::Args)]
pub struct How {
    /// What you say to it, for the record
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
    /// Sign it: sign in for this very answer, with a browser
    #[arg(long)]
    login: bool,
    #[command(flatten)]
    browser: Browser,
}

/// How much a yes lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Wide {
    /// This very operation
    Operation,
    /// Operations of its shape: other ids, values and bodies
    Shape,
    /// Every operation of its action on the target
    Action,
    /// Everything on the target
    Target,
}

/// How often `watch` looks for new questions.
const LOOK: Duration = Duration::from_millis(500);

/// How many lines of a body are shown.
const LINES: usize = 60;

/// Does it, through the daemon at `socket`.
pub fn execute(command: Command, socket: &Path) -> ExitCode {
    let done = match command {
        Command::List(listing) => list(socket, listing),
        Command::Show { id, json } => show(socket, &id, json),
        Command::Approve { id, scope, how, batch: true, yes } => {
            let signing = how.login.then_some(&how.browser);
            return login::said(alike::batch(socket, &id, (scope.into(), how.note.as_deref()), yes, signing));
        }
        Command::Approve { id, scope, how, .. } if how.login => return sign(socket, id, Some(scope.into()), how),
        Command::Deny { id, how } if how.login => return sign(socket, id, None, how),
        Command::Approve { id, scope, how, .. } => answer(socket, &id, true, Some(scope.into()), how.note),
        Command::Deny { id, how } => answer(socket, &id, false, None, how.note),
        Command::Watch { login, browser } => watch(socket, login.then_some(&browser)),
        Command::Verify(args) => return verify::execute(&args, socket),
    };
    match done {
        Ok(text) => super::print(text),
        Err(error) => super::fail(escape(&error.to_string())),
    }
}

impl From<Wide> for Width {
    fn from(wide: Wide) -> Self {
        match wide {
            Wide::Operation => Width::Operation,
            Wide::Shape => Width::Shape,
            Wide::Action => Width::Action,
            Wide::Target => Width::Target,
        }
    }
}

fn list(socket: &Path, Listing { all, limit, json }: Listing) -> Result<String, ClientError> {
    let value = client::call(socket, &Request::ApprovalsList { all, limit })?;
    if json {
        return Ok(format!("{value:#}\n"));
    }
    let approvals: Vec<Approval> = client::decoded(value)?;
    if approvals.is_empty() {
        return Ok("nothing waits for an answer\n".into());
    }
    let mut table = table(&["APPROVAL", "ASKED", "WORKLOAD", "TARGET", "OPERATION", "ASKED OF", "ANSWERS", "STATE"]);
    for row in alike::rows(&approvals) {
        let approval = row[0];
        let request = &approval.request;
        let state = approval.outcome.clone().unwrap_or_else(|| format!("open until {}", time_of_day(request.until)));
        table.add_row([
            request.approval.to_string(),
            approval.asked_at.strftime("%FT%TZ").to_string(),
            request.workload.to_string(),
            request.target.to_string(),
            match row.len() {
                1 => escape(&request.summary).into_owned(),
                count => format!("{}, {count} of them", escape(&request.shape.to_string())),
            },
            asked_of(approval),
            approval.answers.len().to_string(),
            state,
        ]);
    }
    let is_full = u32::try_from(approvals.len()).is_ok_and(|count| count >= limit);
    let more = if is_full { "there may be more: ask for them with `--limit`\n" } else { "" };
    Ok(format!("{table}\n{more}"))
}

fn show(socket: &Path, id: &str, json: bool) -> Result<String, ClientError> {
    let value = client::call(socket, &Request::ApprovalsShow { id: id.to_owned() })?;
    if json { Ok(format!("{value:#}\n")) } else { Ok(shown(&client::decoded(value)?)) }
}

fn answer(
    socket: &Path,
    id: &str,
    yes: bool,
    width: Option<Width>,
    note: Option<String>,
) -> Result<String, ClientError> {
    let request = Request::ApprovalsAnswer { id: id.to_owned(), yes, width, note };
    Ok(answered(&client::decoded(client::call(socket, &request)?)?))
}

/// Signs an answer: a yes of this width, or a no.
fn sign(socket: &Path, id: String, width: Option<Width>, how: How) -> ExitCode {
    login::said(signed(socket, &how.browser, id, width, how.note))
}

fn signed(
    socket: &Path,
    browser: &Browser,
    id: String,
    width: Option<Width>,
    note: Option<String>,
) -> Result<String, Failure> {
    let to_sign = ToSign { id, others: Vec::new(), yes: width.is_some(), width, note };
    Ok(answered(&login::sign(socket, browser, to_sign)?))
}

fn answered(approval: &Approval) -> String {
    let id = approval.request.approval;
    match approval.outcome.as_deref() {
        Some("granted") => {
            let terms = &approval.request.terms;
            format!("{id}: approved; it can be used {} within {} s\n", times(terms.grant_uses), terms.grant_for)
        }
        Some(outcome) => format!("{id}: {outcome}\n"),
        None => format!("{id}: your yes is noted; {} have to answer\n", asked_of(approval)),
    }
}

/// Shows each new question, with those that are alike, and takes the answer from the terminal. A daemon that goes away
/// once it has answered is waited for.
fn watch(socket: &Path, signing: Option<&Browser>) -> Result<String, ClientError> {
    let (out, input, interactive) = (io::stdout(), io::stdin().lock(), io::stdin().is_terminal());
    let seen = HashSet::new();
    let mut watch = Watch { socket, signing, out, input, interactive, seen, met: false, away: false };
    writeln!(watch.out, "waiting for questions; Ctrl-C ends").map_err(unprintable)?;
    loop {
        match watch.look() {
            Ok(true) => {}
            Ok(false) => return Ok("\n".into()),
            Err(error) if watch.met && is_away(&error) => watch.wait()?,
            Err(error) => return Err(error),
        }
        std::thread::sleep(LOOK);
    }
}

/// Whether the daemon may be on its way back: it is being started anew, or the socket is.
fn is_away(error: &ClientError) -> bool {
    use ClientError::{Broken, Forbidden, NotRunning, Silent};
    matches!(error, NotRunning(_) | Forbidden(_) | Silent(_) | Broken(_))
}

/// Somebody who watches.
struct Watch<'a> {
    socket: &'a Path,
    /// How answers are signed, if they are.
    signing: Option<&'a Browser>,
    out: Stdout,
    input: StdinLock<'static>,
    /// Whether a person types.
    interactive: bool,
    /// What was shown.
    seen: HashSet<ApprovalId>,
    /// Whether the daemon has ever answered.
    met: bool,
    /// Whether it doesn't now.
    away: bool,
}

impl Watch<'_> {
    /// Shows what is new, and takes the answers. False where nobody answers any more.
    fn look(&mut self) -> Result<bool, ClientError> {
        let (socket, signing, interactive) = (self.socket, self.signing, self.interactive);
        let open = client::call(socket, &Request::ApprovalsList { all: false, limit: 1000 })?;
        let mut open: Vec<Approval> = client::decoded(open)?;
        self.met = true;
        if std::mem::take(&mut self.away) {
            writeln!(self.out, "the daemon is back").map_err(unprintable)?;
        }
        let Self { out, input, seen, .. } = self;
        open.retain(|approval| !seen.contains(&approval.request.approval));
        for row in alike::rows(&open) {
            let id = row[0].request.approval;
            seen.insert(id);
            let first: ShownApproval = match client::call(socket, &Request::ApprovalsShow { id: id.to_string() }) {
                Ok(value) => client::decoded(value)?,
                // It is shown once that can be recorded.
                Err(error) if is_unrecorded(&error) => {
                    seen.remove(&id);
                    continue;
                }
                Err(ClientError::Refused { code, .. }) if alike::is_gone(&code) => continue,
                Err(error @ ClientError::Refused { .. }) => {
                    writeln!(out, "{id} {}", alike::unshown(&error)).map_err(unprintable)?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            if first.approval.outcome.is_some() {
                continue;
            }
            let question = shown(&first);
            let (others, mut all_of) = alike::shown(socket, &row[1..])?;
            let others = match all_of.len() {
                0 => others,
                count => format!("\nand {count} alike:\n{others}"),
            };
            all_of.insert(0, row[0]);
            let all = if all_of.len() > 1 { "a for all of them, " } else { "" };
            write!(out, "\n{question}{others}").map_err(unprintable)?;
            out.flush().map_err(unprintable)?;
            if interactive {
                // What was typed before it was shown is no answer to it.
                tcflush(io::stdin(), FlushArg::TCIFLUSH).map_err(|errno| unprintable(errno.into()))?;
            }
            write!(out, "approve exactly this? y, n, {all}or enter to decide later: ").map_err(unprintable)?;
            out.flush().map_err(unprintable)?;
            let mut line = String::new();
            if input.read_line(&mut line).map_err(unprintable)? == 0 {
                return Ok(false);
            }
            if !interactive {
                writeln!(out).map_err(unprintable)?;
            }
            let give = |width: Option<Width>| match signing {
                Some(browser) => signed(socket, browser, id.to_string(), width, None),
                None => Ok(answer(socket, &id.to_string(), width.is_some(), width, None)?),
            };
            let answered = match line.trim() {
                "y" | "yes" => give(Some(Width::Operation)),
                "n" | "no" => give(None),
                "a" | "all" if all_of.len() > 1 => {
                    seen.extend(row.iter().map(|approval| approval.request.approval));
                    match signing {
                        Some(browser) => {
                            let given = alike::sign_all(socket, browser, &all_of, Width::Operation, None);
                            if given.is_err() {
                                // It was none of them, as it is where one can't be answered any more.
                                seen.retain(|id| row.iter().all(|one| one.request.approval != *id));
                            }
                            given
                        }
                        None => alike::approve_all(socket, &all_of, Width::Operation, None).map_err(Failure::from),
                    }
                }
                _ => {
                    seen.extend(row.iter().map(|approval| approval.request.approval));
                    continue;
                }
            };
            match answered {
                Ok(text) => write!(out, "{text}").map_err(unprintable)?,
                Err(Failure::Client(error)) if !matches!(error, ClientError::Refused { .. }) => return Err(error),
                Err(error) => writeln!(out, "{}", escape(&error.to_string())).map_err(unprintable)?,
            }
        }
        Ok(true)
    }

    /// The daemon is away. Its questions are closed with it; one that is open still when it answers again is shown again.
    fn wait(&mut self) -> Result<(), ClientError> {
        self.seen.clear();
        if !std::mem::replace(&mut self.away, true) {
            writeln!(self.out, "the daemon doesn't answer; waiting until it does").map_err(unprintable)?;
        }
        Ok(())
    }
}

/// Whether the daemon refused something because it can't be recorded at the moment.
fn is_unrecorded(error: &ClientError) -> bool {
    matches!(error, ClientError::Refused { code, .. } if code == "record-unavailable")
}

fn unprintable(error: io::Error) -> ClientError {
    ClientError::Garbled(format!("can't print: {error}"))
}

/// A question in full, for people.
fn shown(shown: &ShownApproval) -> String {
    let ShownApproval { approval, waiting, exhibit, allows, names } = shown;
    let request = &approval.request;
    let mut text = String::new();
    let mut line = |label: &str, what: String| {
        let _ = writeln!(text, "{label:<10} {what}");
    };
    line("approval", format!("{}, asked {}", request.approval, approval.asked_at.strftime("%FT%TZ")));
    match (&approval.outcome, approval.closed_at) {
        (Some(outcome), Some(at)) => line("state", format!("{outcome} at {}", at.strftime("%FT%TZ"))),
        _ => line("state", format!("open until {}; {waiting} waiting", request.until.strftime("%FT%TZ"))),
    }
    let process = request.process.as_ref();
    let process = process.map_or_else(String::new, |one| format!(", process {} ({})", escape(&one.comm), one.pid));
    line("who", format!("workload {}{process}, {}", request.workload, request.behind()));
    line("as", identity(request.identity.as_deref(), request.credential, names));
    line("what", format!("{} on {}", escape(&request.summary), request.target));
    if request.shape.websocket {
        line("opens", alike::OPENS.into());
    }
    let reasons = if request.reasons.is_empty() { String::new() } else { format!(": {}", request.reasons.join("; ")) };
    line("because", format!("policy {} wants it approved{}", request.policies.join(", "), escape(&reasons)));
    if let Some(why) = &request.justification {
        line("they say", escape(why).into_owned());
    }
    for text in &request.terms.confirm {
        line("confirm", escape(text).into_owned());
    }
    line("asked of", asked_of(approval));
    for answer in &approval.answers {
        let yes = if answer.yes { "yes" } else { "no" };
        let note = answer.note.as_deref().map_or_else(String::new, |note| format!(": {note}"));
        let who = answer.person.as_deref().map_or_else(String::new, |person| format!(" ({person})"));
        let login = as_whom(answer.uid, answer.loginuid);
        let own = if answer.confirms { ", the initiator" } else { "" };
        let signed = match answer.signed {
            Some(true) => ", signed",
            Some(false) => ", signed in",
            None => "",
        };
        line("answer", format!("{yes} by uid {}{login}{who}{own}{signed}{}", answer.uid, escape(&note)));
    }
    for (index, allowed) in allows.iter().enumerate() {
        let uses = format!("{} within {} s", times(request.terms.grant_uses), request.terms.grant_for);
        let label = if index == 0 { "a yes" } else { "" };
        line(label, format!("--scope {} lets through {}, {uses}", allowed.width, allowed.told));
    }
    line("for", whose(request));
    if let Some(exhibit) = exhibit {
        let _ = writeln!(text, "\n  > {}", escape(&exhibit.start));
        for (name, value) in &exhibit.headers {
            let _ = writeln!(text, "  > {}", escape(&format!("{name}: {value}")));
        }
        let body = super::sessions::pretty(&exhibit.body);
        if !body.is_empty() {
            let _ = writeln!(text, "  >");
        }
        for line in body.lines().take(LINES) {
            let _ = writeln!(text, "  > {}", escape(line));
        }
        if body.lines().count() > LINES {
            let _ = writeln!(text, "  > … {} bytes in all; `--json` shows them", exhibit.bytes);
        }
        if let Some(partial) = &exhibit.partial {
            let _ = writeln!(text, "  > … the body isn't shown as it is: {partial}");
        }
    }
    text
}

fn identity(
    who: Option<&crate::record::event::Identity>,
    credential: Option<Credential>,
    names: &BTreeMap<String, String>,
) -> String {
    let name = |id: &str| names.get(id).map_or_else(String::new, |name| format!(" ({})", escape(name)));
    match who {
        Some(who) => {
            let id = who.principal.as_str();
            let client = who.client.map(|client| client.to_string());
            let client = client.map_or_else(String::new, |id| format!(", by application {id}{}", name(&id)));
            format!("{} {}{}{client}", who.kind.as_str(), escape(id), name(id))
        }
        None => match credential {
            Some(Credential::Injected) => "nobody: the target's own credential is put in".into(),
            Some(Credential::Foreign) => "nobody that is known: it brings a credential of its own".into(),
            _ => "nobody".into(),
        },
    }
}

/// Whose operations a yes is for.
fn whose(request: &ApprovalRequest) -> String {
    let launched = match request.initiator {
        NOBODY => String::new(),
        uid => format!(", launched by uid {uid}{}", as_whom(uid, request.loginuid)),
    };
    let identity = request.identity.as_ref().map_or("without a token", |identity| match identity.client {
        Some(_) => "as this identity by this application",
        None => "as this identity",
    });
    let called = if request.callers.is_empty() { "" } else { ", whoever calls it" };
    format!("workload {}{launched}, {identity}{called}; for nobody else", request.workload)
}

fn asked_of(approval: &Approval) -> String {
    let terms = &approval.request.terms;
    let count = if terms.approvals == 1 { String::new() } else { format!("{} of ", terms.approvals) };
    let initiator = (!terms.confirm.is_empty()).then(|| "its initiator".to_owned());
    terms.groups.iter().map(|group| format!("{count}{group}")).chain(initiator).collect::<Vec<_>>().join(" and ")
}

/// `once`, `7 times`.
pub(super) fn times(count: u64) -> String {
    if count == 1 { "once".into() } else { format!("{count} times") }
}

fn time_of_day(at: Timestamp) -> String {
    at.strftime("%TZ").to_string()
}

#[cfg(test)]
mod tests;
