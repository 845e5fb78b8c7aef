//! What an answer takes of a grant that is limited in bytes or rows. It is charged before the process gets it, so that
//! nothing beyond the limit goes on.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use http::response::Parts;
use http::{HeaderMap, HeaderName, StatusCode, header};

use super::live::Live;
use super::operation::cut_off;
use crate::approve::Desk;
use crate::error::{Blame, Fault};
use crate::ids::GrantId;
use crate::mask::coding::{Decoder, codings};
use crate::record::event::Spent;

mod rows;

use rows::Rows;

/// One operation's part of a grant.
pub(super) struct Charge {
    desk: Arc<Desk>,
    grant: GrantId,
    /// Whether rows are limited.
    by_rows: bool,
    counting: RefCell<Option<Counting>>,
    bytes: Cell<u64>,
    rows: Cell<u64>,
}

/// Counts rows in a body as the process gets it.
struct Counting {
    decoder: Decoder,
    rows: Rows,
}

impl Charge {
    /// None where the operation uses no grant that is limited so.
    ///
    /// # Errors
    /// The grant that it uses has ended.
    pub(super) fn of(live: &Live, grant: Option<GrantId>) -> Result<Option<Rc<Self>>, Fault> {
        let Some(grant) = grant else { return Ok(None) };
        let desk = Arc::clone(&live.session().worker.pipeline.desk);
        let (bytes, by_rows) = desk.limits(grant).ok_or_else(|| cut_off("grant-ended"))?;
        let (counting, spent, rows) = (RefCell::default(), Cell::default(), Cell::default());
        Ok((bytes || by_rows).then(|| Rc::new(Self { desk, grant, by_rows, counting, bytes: spent, rows })))
    }

    /// Prepares for the body of an answer.
    ///
    /// # Errors
    /// Rows are limited, and those of this body can't be counted.
    pub(super) fn begin(&self, live: &Live, parts: &Parts, has_body: bool) -> Result<(), Fault> {
        if !self.by_rows {
            return Ok(());
        }
        // Of a part of something it can't be told what its rows are.
        if matches!(parts.status, StatusCode::SWITCHING_PROTOCOLS | StatusCode::PARTIAL_CONTENT) {
            return Err(uncountable());
        }
        if !has_body {
            return Ok(());
        }
        let text = |name| one(&parts.headers, name);
        let rows = Rows::of(text(header::CONTENT_TYPE)?).ok_or_else(uncountable)?;
        let codings = codings(text(header::CONTENT_ENCODING)?).map_err(|_unknown| uncountable())?;
        let bound = live.session().limits().expansion;
        let decoder = Decoder::new(&codings, bound).map_err(|_unknown| uncountable())?;
        self.counting.replace(Some(Counting { decoder, rows }));
        Ok(())
    }

    /// Takes what these bytes cost.
    ///
    /// # Errors
    /// There isn't so much left: then nothing is taken, and they are not to go on.
    pub(super) fn take(&self, data: &[u8]) -> Result<(), Fault> {
        let mut rows = 0;
        if let Some(Counting { decoder, rows: counter }) = &mut *self.counting.borrow_mut() {
            let counted = decoder.push(data, &mut |piece| {
                rows += counter.push(piece);
                Ok(())
            });
            counted.map_err(|_broken| uncountable())?;
        }
        let bytes = data.len() as u64;
        if !self.desk.spend(self.grant, bytes, rows) {
            return Err(cut_off("grant-ended"));
        }
        self.bytes.set(self.bytes.get() + bytes);
        self.rows.set(self.rows.get() + rows);
        Ok(())
    }

    /// Takes what these bytes of a WebSocket cost, as they pass. Those that go beyond the limit end it.
    pub(super) fn note(&self, data: &[u8]) {
        // The desk ends what the grant let through.
        let _ = self.take(data);
    }

    /// What it came to.
    pub(super) fn spent(&self) -> Spent {
        Spent { grant: self.grant, bytes: self.bytes.get(), rows: self.rows.get() }
    }
}

/// The value of a field that is there once at most, and is text.
fn one(headers: &HeaderMap, name: HeaderName) -> Result<&str, Fault> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(""),
        (Some(value), None) => value.to_str().map_err(|_bytes| uncountable()),
        (Some(_), Some(_)) => Err(uncountable()),
    }
}

fn uncountable() -> Fault {
    Fault {
        code: "rows-uncountable",
        blame: Blame::Policy,
        told: "what lets this through is limited in rows, and those of the answer can't be counted".into(),
        next: "ask for JSON, JSON Lines or CSV",
    }
}
