//! A session with all of its operations, and what each sent and got: asked of the daemon piece by piece, because one
//! answer holds only so much.

use std::path::Path;

use serde_json::Value;

use super::Failure;
use crate::control::client::{self, ClientError};
use crate::control::protocol::Request;
use crate::record::Content;
use crate::record::query::{Operation, Story};

/// What was kept of an operation.
pub(super) enum Kept {
    /// What it sent and got.
    Content(Box<Content>),
    /// Nothing was kept.
    Nothing,
    /// It can't be read any more, and why.
    Gone(String),
}

/// The session whose id begins with `id`, with every operation.
pub(super) fn story(socket: &Path, id: &str) -> Result<Story, Failure> {
    gather(id, |request| client::call(socket, request))
}

fn gather(id: &str, mut ask: impl FnMut(&Request) -> Result<Value, ClientError>) -> Result<Story, Failure> {
    let value = ask(&Request::SessionsShow { id: id.to_owned() })?;
    let mut story: Story = serde_json::from_value(value)?;
    while story.omitted > 0
        && let Some(last) = story.operations.last()
    {
        let more = after(&mut ask, &story.session.session, last)?;
        if more.is_empty() {
            break;
        }
        story.omitted = story.omitted.saturating_sub(more.len() as u64);
        story.operations.extend(more);
    }
    Ok(story)
}

/// An operation with those of its session behind it, where nothing else is recorded of the session.
pub(super) fn rest(socket: &Path, session: &str, first: Operation) -> Result<Vec<Operation>, Failure> {
    let mut operations = vec![first];
    while let Some(last) = operations.last() {
        match after(|request| client::call(socket, request), session, last) {
            Ok(more) if more.is_empty() => break,
            Ok(more) => operations.extend(more),
            // What isn't there belongs to nobody.
            Err(error) if is_unknown(&error) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(operations)
}

/// Whether the daemon says that there is no such thing.
pub(super) fn is_unknown(error: &Failure) -> bool {
    matches!(error, Failure::Client(ClientError::Refused { code, .. }) if code == "not-found")
}

/// Operations of a session behind `last`, as many as fit into one answer.
fn after(
    mut ask: impl FnMut(&Request) -> Result<Value, ClientError>,
    session: &str,
    last: &Operation,
) -> Result<Vec<Operation>, Failure> {
    let (session, after) = (session.to_owned(), last.operation.clone());
    Ok(serde_json::from_value(ask(&Request::SessionsOperations { session, after })?)?)
}

/// What an operation sent and got.
pub(super) fn payload(socket: &Path, operation: &Operation) -> Result<Kept, Failure> {
    if operation.payload.is_none() {
        return Ok(Kept::Nothing);
    }
    match client::call(socket, &Request::PayloadRead { operation: operation.operation.clone() }) {
        Ok(Value::Null) => Ok(Kept::Gone("it was pruned".into())),
        Ok(value) => match Content::from_json(&value) {
            Some(content) => Ok(Kept::Content(Box::new(content))),
            None => Err(Failure::Client(ClientError::Garbled("a payload".into()))),
        },
        Err(ClientError::Refused { code, message, .. }) if code == "payload-erased" || code == "record-unreadable" => {
            Ok(Kept::Gone(message))
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests;
