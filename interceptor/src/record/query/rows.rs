//! Rows of the database, as queries give them.

use std::collections::BTreeMap;

use rusqlite::Row;
use serde::Deserialize;

use super::super::event::{Identity, Kept};
use super::{Basis, Body, Launch, Operation, QueryError, Session};

pub(super) fn session(row: &Row<'_>) -> Result<Session, QueryError> {
    let process: Option<String> = row.get(3)?;
    let (principals, cut_by): (String, Option<String>) = (row.get(12)?, row.get(13)?);
    Ok(Session {
        session: row.get(0)?,
        launch: row.get(1)?,
        workload: row.get(2)?,
        process: process.as_deref().map(serde_json::from_str).transpose()?,
        original: row.get(4)?,
        host: row.get(5)?,
        target: row.get(6)?,
        opened_at: row.get(7)?,
        closed_at: row.get(8)?,
        reason: row.get(9)?,
        operations: count(row, 10)?.unwrap_or(0),
        denied: count(row, 11)?.unwrap_or(0),
        principals: serde_json::from_str(&principals)?,
        names: BTreeMap::new(),
        cut_by: cut_by.as_deref().map(serde_json::from_str).transpose()?.unwrap_or_default(),
    })
}

pub(super) fn launched(row: &Row<'_>) -> rusqlite::Result<Launch> {
    Ok(Launch {
        launch: row.get(0)?,
        workload: row.get(1)?,
        initiator: row.get(2)?,
        uid: row.get(3)?,
        pid: row.get(4)?,
        command: row.get(5)?,
        containment: row.get(6)?,
        started_at: row.get(7)?,
        ended_at: row.get(8)?,
        status: row.get(9)?,
    })
}

/// What of a verdict only its event has.
#[derive(Deserialize)]
struct Decided {
    basis: Basis,
    identity: Option<Identity>,
}

pub(in crate::record) fn operation(row: &Row<'_>) -> Result<Operation, QueryError> {
    let body: Option<String> = row.get(9)?;
    let Decided { basis, identity } = serde_json::from_str(&body.unwrap_or_default())?;
    let masked: Option<String> = row.get(22)?;
    let (spent, cut_by): (Option<String>, Option<String>) = (row.get(25)?, row.get(26)?);
    Ok(Operation {
        operation: row.get(0)?,
        session: row.get(1)?,
        launch: row.get(2)?,
        workload: row.get(3)?,
        target: row.get(4)?,
        action: row.get(5)?,
        summary: row.get(6)?,
        verdict: row.get(7)?,
        code: row.get(8)?,
        basis,
        decided_at: row.get(10)?,
        finished_at: row.get(11)?,
        outcome: row.get(12)?,
        status: row.get(13)?,
        request: Body { bytes: count(row, 14)?, digest: row.get(15)? },
        response: Body { bytes: count(row, 16)?, digest: row.get(17)? },
        initiator: row.get(18)?,
        credential: row.get(19)?,
        identity,
        names: BTreeMap::new(),
        payload: match (row.get(20)?, count(row, 21)?) {
            (Some(digest), Some(bytes)) => Some(Kept { digest, bytes }),
            _ => None,
        },
        masked: masked.as_deref().map(serde_json::from_str).transpose()?.unwrap_or_default(),
        approval: row.get(23)?,
        service_request: row.get(24)?,
        spent: spent.as_deref().map(serde_json::from_str).transpose()?,
        cut_by: cut_by.as_deref().map(serde_json::from_str).transpose()?.unwrap_or_default(),
    })
}

fn count(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<u64>> {
    Ok(row.get::<_, Option<i64>>(column)?.map(i64::cast_unsigned))
}
