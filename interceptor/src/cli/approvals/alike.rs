//! Questions that are alike: of one workload, initiator, identity and target, one shape, on the same terms. They are one
//! row, and one answer can be for all that were shown.

use std::io::{self, BufRead, Write};
use std::path::Path;

use super::{answer, unprintable};
use crate::cli::terminal::escape;
use crate::control::client::{self, ClientError};
use crate::control::protocol::{Request, ShownApproval};
use crate::policy::Width;
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
    one.outcome.is_none() && other.outcome.is_none() && key(one) == key(other)
}

/// How much of a body is shown of one of many, in characters.
const SHOWN: usize = 2000;

/// Each of them as it is written to the terminal: what is approved with others is seen as well. One that was closed
/// meanwhile is left out.
///
/// # Errors
/// The daemon can't be asked.
pub(super) fn shown(socket: &Path, row: &[&Approval]) -> Result<String, ClientError> {
    let mut text = String::new();
    for approval in row {
        let id = approval.request.approval.to_string();
        match client::call(socket, &Request::ApprovalsShow { id }) {
            Ok(value) => text += &lines(&client::decoded(value)?),
            Err(ClientError::Refused { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(text)
}

/// The lines of one of them: its first line, and its body in one.
fn lines(one: &ShownApproval) -> String {
    let request = &one.approval.request;
    let why = request.justification.as_deref().map_or_else(String::new, |why| format!("; they say: {}", escape(why)));
    let start = one.exhibit.as_ref().map_or(request.summary.as_str(), |exhibit| exhibit.start.as_str());
    let mut text = format!("  {}  {}{why}\n", request.approval, escape(start));
    let body = one.exhibit.as_ref().map_or("", |exhibit| exhibit.body.as_str());
    let line = body.split_whitespace().collect::<Vec<_>>().join(" ");
    if !line.is_empty() {
        let more = if line.chars().count() > SHOWN { " …" } else { "" };
        text += &format!("      {}{more}\n", escape(&line.chars().take(SHOWN).collect::<String>()));
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

/// Shows an approval with those that are alike, and says yes to all of them once that is confirmed, by `is_confirmed` or on
/// the terminal. Only what was shown is approved, whatever comes in between.
pub(super) fn batch(
    socket: &Path,
    id: &str,
    (width, note): (Width, Option<&str>),
    is_confirmed: bool,
) -> Result<String, ClientError> {
    let open = client::call(socket, &Request::ApprovalsList { all: false, limit: 1000 })?;
    let open: Vec<Approval> = client::decoded(open)?;
    let (id, rows) = (id.to_ascii_lowercase(), rows(&open));
    let row = rows.iter().find(|row| row.iter().any(|one| one.request.approval.to_string().starts_with(&id)));
    let Some(row) = row else {
        // The daemon says what is wrong with it.
        return answer(socket, &id, true, Some(width), note.map(str::to_owned));
    };
    let mut out = io::stdout();
    let of = &row[0].request;
    let all = shown(socket, row)?;
    write!(out, "{} on {}, {}:\n{all}", escape(&of.shape.to_string()), of.target, of.workload).map_err(unprintable)?;
    if !is_confirmed {
        write!(out, "approve all {}? y or n: ", row.len()).map_err(unprintable)?;
        out.flush().map_err(unprintable)?;
        let mut line = String::new();
        io::stdin().lock().read_line(&mut line).map_err(unprintable)?;
        if !matches!(line.trim(), "y" | "yes") {
            return Ok("nothing is approved\n".into());
        }
    }
    approve_all(socket, row, width, note)
}

#[cfg(test)]
mod tests;
