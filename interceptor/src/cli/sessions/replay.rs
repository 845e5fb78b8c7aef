//! `interceptor sessions replay`: what went back and forth, in its own time, with the verdicts between the lines.
//! Everything that a process or a server wrote is escaped.

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use super::masked;
use super::whole::{self, Kept};
use super::{Failure, escape, time_of_day};
use crate::detect::secrets::MARK;
use crate::record::payload::Message;
use crate::record::query::{Operation, Story};

mod json;

pub(super) use json::pretty;

/// The longest that is waited between two operations, whatever the recording says.
const LONGEST: Duration = Duration::from_secs(60);

/// Replays a session: `speed` times as fast as it was, 0 for at once.
pub(super) fn replay(out: &mut dyn Write, socket: &Path, id: &str, speed: f64) -> Result<(), Failure> {
    let story = whole::story(socket, id)?;
    head(out, &story)?;
    let mut now = story.session.opened_at.parse().ok();
    for operation in &story.operations {
        wait(out, &mut now, &operation.decided_at, speed)?;
        verdict(out, operation)?;
        match whole::payload(socket, operation)? {
            Kept::Nothing => {}
            Kept::Gone(why) => writeln!(out, "  what it sent and got can't be read: {}", escape(&why))?,
            Kept::Content(content) => {
                message(out, '>', &content.request)?;
                if let Some(response) = &content.response {
                    if let Some(finished) = &operation.finished_at {
                        wait(out, &mut now, finished, speed)?;
                    }
                    message(out, '<', response)?;
                }
            }
        }
        outcome(out, operation)?;
    }
    if let Some(closed) = &story.session.closed_at {
        wait(out, &mut now, closed, speed)?;
        let reason = story.session.reason.as_deref().unwrap_or("unknown");
        writeln!(out, "{}  closed: {}", time_of_day(closed), escape(reason))?;
    }
    Ok(out.flush()?)
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
    writeln!(out, "`>` was sent, `<` came back; a `*` behind it marks a line in which something is masked\n")
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
    let verdict = if operation.verdict == "allow" { "ALLOW" } else { "DENY" };
    writeln!(out, "{time}  {verdict}  {}  {}{}", escape(&operation.action), escape(&operation.summary), escape(&by))?;
    for reason in &operation.basis.reasons {
        writeln!(out, "  because {}", escape(reason))?;
    }
    Ok(())
}

fn outcome(out: &mut dyn Write, operation: &Operation) -> io::Result<()> {
    if let Some(masked) = masked(operation) {
        writeln!(out, "  masked: {masked}")?;
    }
    match operation.outcome.as_deref() {
        None => writeln!(out, "  no outcome: it is under way, or the daemon was killed\n"),
        Some("done" | "denied") => writeln!(out),
        Some(other) => writeln!(out, "  ended: {}\n", escape(other)),
    }
}

fn message(out: &mut dyn Write, side: char, message: &Message) -> io::Result<()> {
    line(out, side, &message.start)?;
    for (name, value) in &message.headers {
        line(out, side, &format!("{name}: {value}"))?;
    }
    if !message.body.is_empty() {
        line(out, side, "")?;
        match std::str::from_utf8(trimmed(&message.body)) {
            Ok(text) => {
                for text in json::pretty(text).unwrap_or_else(|| text.to_owned()).lines() {
                    line(out, side, text)?;
                }
            }
            Err(_) => line(out, side, &format!("({} bytes that aren't text)", message.body.len()))?,
        }
    }
    for (name, value) in &message.trailers {
        line(out, side, &format!("{name}: {value}"))?;
    }
    match message.partial.as_deref() {
        None => Ok(()),
        Some("cut") => writeln!(out, "  {side} … cut here: {} bytes in all", message.bytes),
        Some("headers-only") => writeln!(out, "  {side} … {} bytes, which weren't to be kept", message.bytes),
        Some("opaque") => writeln!(out, "  {side} … {} bytes of another protocol", message.bytes),
        Some("memory") => {
            writeln!(out, "  {side} … {} bytes in all; too much was under way to keep the rest", message.bytes)
        }
        Some("unmasked") => writeln!(out, "  {side} … {} bytes that couldn't be masked", message.bytes),
        Some(_) => writeln!(out, "  {side} … {} bytes in a coding that can't be read", message.bytes),
    }
}

/// A body that was cut may end in the middle of a character.
fn trimmed(body: &[u8]) -> &[u8] {
    match std::str::from_utf8(body) {
        Err(error) if error.error_len().is_none() => &body[..error.valid_up_to()],
        _ => body,
    }
}

fn line(out: &mut dyn Write, side: char, text: &str) -> io::Result<()> {
    let mark =
        if [MARK, "***", "[redacted", "@masked.invalid"].iter().any(|mark| text.contains(mark)) { '*' } else { ' ' };
    writeln!(out, "  {side}{mark}{}", escape(text))
}

#[cfg(test)]
mod tests;
