//! `interceptor sessions replay`: what went back and forth, in its own time, with the verdicts between the lines.
//! What masks did is marked where it was noted as it was done, else where it shows. Everything that a process or a server
//! wrote is escaped.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use super::masked;
use super::whole::{self, Kept};
use super::{Failure, escape, time_of_day};
use crate::mask::places;
use crate::record::Content;
use crate::record::payload::Message;
use crate::record::query::{Operation, Story};
use page::Line;

mod body;
mod json;
mod marks;
mod page;

pub(super) use json::pretty;

/// The longest that is waited between two operations, whatever the recording says.
const LONGEST: Duration = Duration::from_secs(60);

/// Replays a session: `speed` times as fast as it was, 0 for at once.
pub(super) fn replay(out: &mut dyn Write, socket: &Path, id: &str, speed: f64) -> Result<(), Failure> {
    let story = whole::story(socket, id)?;
    play(out, &story, speed, |operation| whole::payload(socket, operation))
}

/// What is shown of an operation at one time.
#[derive(Clone, Copy)]
enum Mark<'a> {
    /// Its verdict, and what was sent.
    Begins(&'a Operation),
    /// What came back, and how it ended.
    Ends(&'a Operation),
}

/// The beginnings and ends of operations as they came: where some overlap, one begins before another ends.
fn timeline(operations: &[Operation]) -> Vec<Mark<'_>> {
    let mut marks = Vec::with_capacity(2 * operations.len());
    let mut latest = Timestamp::MIN;
    for operation in operations {
        // INVARIANT: verdicts stay in the chain's order and ends come behind their verdicts, whatever the clock did.
        latest = operation.decided_at.parse::<Timestamp>().map_or(latest, |at| at.max(latest));
        let ended = operation.finished_at.as_deref().and_then(|at| at.parse::<Timestamp>().ok());
        marks.push((latest, Mark::Begins(operation)));
        marks.push((ended.map_or(latest, |at| at.max(latest)), Mark::Ends(operation)));
    }
    marks.sort_by_key(|(at, _)| *at);
    marks.into_iter().map(|(_, mark)| mark).collect()
}

/// Shows a story, whose payloads `read` gives.
fn play(
    out: &mut dyn Write,
    story: &Story,
    speed: f64,
    mut read: impl FnMut(&Operation) -> Result<Kept, Failure>,
) -> Result<(), Failure> {
    head(out, story)?;
    let mut now = story.session.opened_at.parse().ok();
    // Answers to what is under way, and the operation whose request is the last that was shown.
    let mut answers: BTreeMap<&str, Message> = BTreeMap::new();
    let mut last: Option<&str> = None;
    for mark in timeline(&story.operations) {
        match mark {
            Mark::Begins(operation) => {
                wait(out, &mut now, &operation.decided_at, speed)?;
                if last.is_some() {
                    writeln!(out)?;
                }
                verdict(out, operation)?;
                if let Some(answer) = sent(out, operation, read(operation)?)? {
                    answers.insert(operation.operation.as_str(), answer);
                }
                last = Some(operation.operation.as_str());
            }
            Mark::Ends(operation) => {
                let answer = answers.remove(operation.operation.as_str());
                let follows = last == Some(operation.operation.as_str());
                if !follows && answer.is_none() && ended_well(operation) && operation.masked.is_empty() {
                    continue;
                }
                if let Some(finished) = &operation.finished_at {
                    wait(out, &mut now, finished, speed)?;
                }
                if !follows {
                    if last.is_some() {
                        writeln!(out)?;
                    }
                    let time = time_of_day(operation.finished_at.as_ref().unwrap_or(&operation.decided_at));
                    writeln!(out, "{time}  END  {}  {}", escape(&operation.action), escape(&operation.summary))?;
                }
                let marked = match &answer {
                    Some(answer) => {
                        let marked = message(out, '<', answer, is_masked(operation))?;
                        (!is_noted(answer)).then_some(marked)
                    }
                    None => None,
                };
                outcome(out, operation, marked)?;
                last = None;
            }
        }
    }
    if let Some(closed) = &story.session.closed_at {
        wait(out, &mut now, closed, speed)?;
        let reason = story.session.reason.as_deref().unwrap_or("unknown");
        writeln!(out, "{}  closed: {}{}", time_of_day(closed), escape(reason), cut_by(&story.session.cut_by))?;
    }
    Ok(out.flush()?)
}

/// Shows what was sent; gives what came back, for later.
fn sent(out: &mut dyn Write, operation: &Operation, kept: Kept) -> io::Result<Option<Message>> {
    match kept {
        Kept::Nothing => Ok(None),
        Kept::Gone(why) => {
            writeln!(out, "  what it sent and got can't be read: {}", escape(&why))?;
            Ok(None)
        }
        Kept::Content(content) => {
            let Content { request, response } = *content;
            message(out, '>', &request, is_masked(operation))?;
            Ok(response)
        }
    }
}

/// Whether there were masks; where there were none, nothing that looks like their work is.
fn is_masked(operation: &Operation) -> bool {
    !operation.basis.obligations.masks.is_empty() || !operation.masked.is_empty()
}

/// Whether it was noted of every value in the body whether it is masked, and the body is shown.
fn is_noted(message: &Message) -> bool {
    let is_shown = std::str::from_utf8(trimmed(&message.body)).is_ok();
    is_shown && message.masked.as_ref().is_some_and(|masked| masked.more.is_none())
}

fn ended_well(operation: &Operation) -> bool {
    matches!(operation.outcome.as_deref(), Some("done" | "denied"))
}

fn head(out: &mut dyn Write, story: &Story) -> io::Result<()> {
    let session = &story.session;
    let host = session.host.as_deref().unwrap_or(&session.original);
    writeln!(
        out,
        "{}: {} to {} ({}), {} operations",
        escape(&session.session),
        escape(&session.workload),
        escape(host),
        escape(session.target.as_deref().unwrap_or("no target")),
        story.operations.len()
    )?;
    writeln!(out, "`>` was sent, `<` came back; a `*` behind it marks a line in which something is masked")?;
    writeln!(out, "END: of what was still under way when something else began\n")
}

/// Waits as long as it took then.
fn wait(out: &mut dyn Write, now: &mut Option<Timestamp>, next: &str, speed: f64) -> io::Result<()> {
    let Ok(next) = next.parse::<Timestamp>() else { return Ok(()) };
    if let Some(now) = now.filter(|now| *now < next)
        && speed > 0.0
    {
        out.flush()?;
        let took = Duration::try_from(next.duration_since(now)).unwrap_or_default();
        std::thread::sleep(took.div_f64(speed).min(LONGEST));
    }
    *now = Some(now.map_or(next, |now| now.max(next)));
    Ok(())
}

fn verdict(out: &mut dyn Write, operation: &Operation) -> io::Result<()> {
    let policies = operation.basis.policies.join(", ");
    let by = match (operation.code.as_deref(), policies.is_empty()) {
        (None, true) => String::new(),
        (None, false) => format!(" by {policies}"),
        (Some(code), true) => format!(" ({code})"),
        (Some(code), false) => format!(" ({code}) by {policies}"),
    };
    let time = time_of_day(&operation.decided_at);
    let verdict = match operation.verdict.as_str() {
        "allow" => "ALLOW",
        "hold" => "HOLD",
        _ => "DENY",
    };
    writeln!(out, "{time}  {verdict}  {}  {}{}", escape(&operation.action), escape(&operation.summary), escape(&by))?;
    for reason in &operation.basis.reasons {
        writeln!(out, "  because {}", escape(reason))?;
    }
    Ok(())
}

/// How it ended. `marked`: how many values are marked in the answer; none if it isn't shown, or all that are in it are.
fn outcome(out: &mut dyn Write, operation: &Operation, marked: Option<u64>) -> io::Result<()> {
    if let Some(masked) = masked(operation) {
        writeln!(out, "  masked: {masked}")?;
        let all = operation.masked.values().fold(0u64, |all, count| all.saturating_add(*count));
        let unmarked = all.saturating_sub(marked.unwrap_or(all));
        if unmarked > 0 {
            writeln!(
                out,
                "  {unmarked} of them have no `*`: what is there now looks like any other value, or nothing is"
            )?;
        }
    }
    match operation.outcome.as_deref() {
        None => writeln!(out, "  no outcome: it is under way, or the daemon was killed\n"),
        Some(_) if ended_well(operation) => writeln!(out),
        Some(other) => writeln!(out, "  ended: {}{}\n", escape(other), cut_by(&operation.cut_by)),
    }
}

/// The policies that cut something, if it was: ` by no-more`.
fn cut_by(policies: &[String]) -> String {
    if policies.is_empty() { String::new() } else { format!(" by {}", escape(&policies.join(", "))) }
}

/// Shows a message; gives how many values in it are marked as masked.
fn message(out: &mut dyn Write, side: char, message: &Message, is_masked: bool) -> io::Result<u64> {
    let mut marked = line(out, side, &message.start, is_masked)?;
    for (name, value) in &message.headers {
        marked += line(out, side, &format!("{name}: {value}"), is_masked)?;
    }
    // Of one that is gone altogether it is told what was masked.
    let is_gone = message.partial.is_none() && message.masked.as_ref().is_some_and(|masked| !masked.places.is_empty());
    if !message.body.is_empty() || is_gone {
        line(out, side, "", false)?;
        match std::str::from_utf8(trimmed(&message.body)) {
            Ok(text) => {
                for line in body::lines(message, text) {
                    // What is masked shows, at best, where it isn't known.
                    let by_look = is_masked && (message.masked.is_none() || line.is_beyond);
                    marked += body_line(out, side, &line, by_look)?;
                }
            }
            Err(_) => {
                line(out, side, &format!("({} bytes that aren't text)", message.body.len()), false)?;
            }
        }
    }
    for (name, value) in &message.trailers {
        marked += line(out, side, &format!("{name}: {value}"), is_masked)?;
    }
    if message.masked.as_ref().is_some_and(|masked| masked.more.is_some()) {
        let most = places::MOST;
        writeln!(out, "  {side} … more than {most} values are masked: behind those a `*` marks only what shows it")?;
    }
    let bytes = message.bytes;
    match message.partial.as_deref() {
        None => {}
        Some("cut") => writeln!(out, "  {side} … cut here: {bytes} bytes in all")?,
        Some("headers-only") => writeln!(out, "  {side} … {bytes} bytes, which weren't to be kept")?,
        Some("opaque") => writeln!(out, "  {side} … {bytes} bytes of another protocol")?,
        Some("memory") => {
            writeln!(out, "  {side} … {bytes} bytes in all; too much was under way to keep the rest")?;
        }
        Some("unmasked") => writeln!(out, "  {side} … {bytes} bytes that couldn't be masked")?,
        Some(_) => writeln!(out, "  {side} … {bytes} bytes in a coding that can't be read")?,
    }
    Ok(marked)
}

/// A body that was cut may end in the middle of a character.
fn trimmed(body: &[u8]) -> &[u8] {
    match std::str::from_utf8(body) {
        Err(error) if error.error_len().is_none() => &body[..error.valid_up_to()],
        _ => body,
    }
}

/// Shows a line of a body; gives how many values in it are marked as masked. `by_look`: also those that show it.
fn body_line(out: &mut dyn Write, side: char, line: &Line, by_look: bool) -> io::Result<u64> {
    let marked = line.masked.max(if by_look { marks::masked(&line.text) } else { 0 });
    mark(out, side, &line.text, marked > 0 || line.is_masked)?;
    Ok(marked)
}

/// Shows a line of a head or a trailer; gives how many values in it show to be masked.
fn line(out: &mut dyn Write, side: char, text: &str, is_masked: bool) -> io::Result<u64> {
    let marked = if is_masked { marks::masked(text) } else { 0 };
    mark(out, side, text, marked > 0)?;
    Ok(marked)
}

fn mark(out: &mut dyn Write, side: char, text: &str, is_masked: bool) -> io::Result<()> {
    let mark = if is_masked || marks::is_left_out(text) { '*' } else { ' ' };
    writeln!(out, "  {side}{mark}{}", escape(text))
}

#[cfg(test)]
mod tests;
