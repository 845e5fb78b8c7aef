//! Questions that are alike: of one workload, initiator, identity and target, one shape, on the same terms. They are one
//! row, and one answer can be for all that were shown.

use std::io::{self, BufRead, Write};
use std::path::Path;

use super::{answer, answered, signed, unprintable};
use crate::cli::login::{self, Browser, Failure};
use crate::cli::terminal::escape;
use crate::control::client::{self, ClientError};
use crate::control::protocol::{Exhibit, Request, Response, ShownApproval, ToSign};
use crate::policy::{Shape, Width};
use crate::record::approval::Approval;

/// The questions in rows of those that are alike, in the order of their firsts. What is closed is alike to nothing.
pub(super) fn rows(approvals: &[Approval]) -> Vec<Vec<&Approval>> {
    let mut rows: Vec<Vec<&Approval>> = Vec::new();
    for approval in approvals {
        match rows.iter_mut().find(|row| is_alike(row[0], approval)) {
            Some(row) => row.push(approval),
            None => rows.push(vec![approval]),
        }
    }
    rows
}

fn is_alike(one: &Approval, other: &Approval) -> bool {
    let key = |approval: &'_ Approval| {
        let request = &approval.request;
        let who = request.identity.as_ref().map(|identity| (identity.principal.clone(), identity.client));
        let asker = (request.workload.clone(), request.initiator, request.loginuid, who);
        (asker, request.target.clone(), request.shape.clone(), request.terms.clone())
    };
    // The list cuts what is long: nobody knows whether the rest is alike.
    let is_cut = |shape: &Shape| {
        [&shape.method, &shape.path].into_iter().chain(shape.keys.last()).any(|text| text.ends_with('…'))
    };
    one.outcome.is_none() && other.outcome.is_none() && !is_cut(&one.request.shape) && key(one) == key(other)
}

/// What a question about a WebSocket is about, besides what is shown of it.
pub(super) const OPENS: &str = "a WebSocket: whatever is said over it afterwards, by either side, isn't looked at";

/// How much of a body is shown of one of many, in characters.
const SHOWN: usize = 2000;

/// Each of them as it is written to the terminal, and those that it shows: nothing else is approved with others. One that
/// was closed meanwhile is left out; of one that can't be shown it is said.
///
/// # Errors
/// The daemon can't be asked.
pub(super) fn shown<'a>(socket: &Path, row: &[&'a Approval]) -> Result<(String, Vec<&'a Approval>), ClientError> {
    let (mut text, mut seen) = (String::new(), Vec::new());
    for approval in row.iter().copied() {
        let id = approval.request.approval.to_string();
        match client::call(socket, &Request::ApprovalsShow { id: id.clone() }) {
            Ok(value) => {
                let one: ShownApproval = client::decoded(value)?;
                if let Some(exhibit) = one.exhibit.as_ref().filter(|_| one.approval.outcome.is_none()) {
                    text += &lines(&one, exhibit);
                    seen.push(approval);
                }
            }
            Err(ClientError::Refused { code, .. }) if is_gone(&code) => {}
            Err(error @ ClientError::Refused { .. }) => text += &format!("  {id}  {}\n", unshown(&error)),
            Err(error) => return Err(error),
        }
    }
    Ok((text, seen))
}

/// Whether a refusal to show a question says that it isn't one any more.
pub(super) fn is_gone(code: &str) -> bool {
    code == "not-found"
}

/// What is said of a question that can't be shown.
pub(super) fn unshown(error: &ClientError) -> String {
    format!("can't be shown, so it isn't approved here: {}", escape(&error.to_string()))
}

/// The lines of one of them: its first line, its header fields, and its body in one line.
fn lines(one: &ShownApproval, exhibit: &Exhibit) -> String {
    let request = &one.approval.request;
    let why = request.justification.as_deref().map_or_else(String::new, |why| format!("; they say: {}", escape(why)));
    let mut text = format!("  {}  {}{why}\n", request.approval, escape(&exhibit.start));
    for (name, value) in &exhibit.headers {
        text += &format!("      {}\n", escape(&format!("{name}: {value}")));
    }
    let line = exhibit.body.split_whitespace().collect::<Vec<_>>().join(" ");
    if !line.is_empty() {
        let bytes = exhibit.bytes;
        let more = if line.chars().count() > SHOWN { format!(" … {bytes} bytes in all") } else { String::new() };
        text += &format!("      {}{more}\n", escape(&line.chars().take(SHOWN).collect::<String>()));
    }
    if let Some(partial) = &exhibit.partial {
        text += &format!("      … the body isn't shown as it is: {}\n", escape(partial));
    }
    text
}

/// Says yes to each of those that were shown. One that was closed meanwhile doesn't keep the others from it.
pub(super) fn approve_all(
    socket: &Path,
    row: &[&Approval],
    width: Width,
    note: Option<&str>,
) -> Result<String, ClientError> {
    let mut told = String::new();
    for approval in row {
        let id = approval.request.approval.to_string();
        match answer(socket, &id, true, Some(width), note.map(str::to_owned)) {
            Ok(text) => told += &text,
            Err(error @ ClientError::Refused { .. }) => told += &format!("{id}: {}\n", escape(&error.to_string())),
            Err(error) => return Err(error),
        }
    }
    Ok(told)
}

/// As [`approve_all`], with one sign-in that signs the list of them.
pub(super) fn sign_all(
    socket: &Path,
    browser: &Browser,
    row: &[&Approval],
    width: Width,
    note: Option<&str>,
) -> Result<String, Failure> {
    let mut ids: Vec<String> = row.iter().map(|approval| approval.request.approval.to_string()).collect();
    if ids.is_empty() {
        return Ok(String::new());
    }
    let (all, others) = (ids.clone(), ids.split_off(1));
    let to_sign = ToSign { id: ids.remove(0), others, yes: true, width: Some(width), note: note.map(str::to_owned) };
    let given = login::sign_all(socket, browser, to_sign)?;
    let mut told = String::new();
    for (id, response) in all.iter().zip(given) {
        match response {
            Response::Done(approval) => told += &answered(&client::decoded(approval)?),
            Response::Refused { code, message, next } => {
                let error = ClientError::Refused { code, message, next };
                told += &format!("{id}: {}\n", escape(&error.to_string()));
            }
        }
    }
    Ok(told)
}

/// Shows an approval with those that are alike, and says yes to all of them once that is confirmed, by `is_confirmed` or on
/// the terminal. Only what was shown is approved, whatever comes in between. `signing`: how it is signed, if it is.
pub(super) fn batch(
    socket: &Path,
    id: &str,
    (width, note): (Width, Option<&str>),
    is_confirmed: bool,
    signing: Option<&Browser>,
) -> Result<String, Failure> {
    let open = client::call(socket, &Request::ApprovalsList { all: false, limit: 1000 })?;
    let open: Vec<Approval> = client::decoded(open)?;
    let (id, rows) = (id.to_ascii_lowercase(), rows(&open));
    let row = rows.iter().find(|row| row.iter().any(|one| one.request.approval.to_string().starts_with(&id)));
    let Some(row) = row else {
        // The daemon says what is wrong with it.
        let note = note.map(str::to_owned);
        return match signing {
            Some(browser) => signed(socket, browser, id, Some(width), note),
            None => Ok(answer(socket, &id, true, Some(width), note)?),
        };
    };
    let mut out = io::stdout();
    let of = &row[0].request;
    let (all, seen) = shown(socket, row)?;
    let all = if of.shape.websocket { format!("each opens {OPENS}\n{all}") } else { all };
    write!(out, "{} on {}, {}:\n{all}", escape(&of.shape.to_string()), of.target, of.workload).map_err(unprintable)?;
    if seen.is_empty() {
        return Ok("nothing is approved\n".into());
    }
    if !is_confirmed {
        write!(out, "approve all {}? y or n: ", seen.len()).map_err(unprintable)?;
        out.flush().map_err(unprintable)?;
        let mut line = String::new();
        io::stdin().lock().read_line(&mut line).map_err(unprintable)?;
        if !matches!(line.trim(), "y" | "yes") {
            return Ok("nothing is approved\n".into());
        }
    }
    match signing {
        Some(browser) => sign_all(socket, browser, &seen, width, note),
        None => Ok(approve_all(socket, &seen, width, note)?),
    }
}

#[cfg(test)]
mod tests;
