//! Following the chain for one sink: from its cursor on, a batch at a time, again and again until it is acknowledged.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::SinkState;
use super::batch::Item;
use super::cursor::{Cursor, Position};
use super::sink::{Sink, SinkError};
use crate::clock::Clock;
use crate::record::{QueryError, Reader, Record, checkpoint};

/// How often it is looked for something new.
const LOOK: Duration = Duration::from_millis(250);

/// How long the first pause after a failure is; each further one is twice as long.
const PAUSE: Duration = Duration::from_millis(500);

/// The longest pause.
const LONGEST: Duration = Duration::from_secs(60);

/// The most events of a batch, and the most bytes of their bodies; a single event may be larger.
const EVENTS: u32 = 500;
const BYTES: usize = 512 << 10;

/// The most checkpoints of a batch.
const CHECKPOINTS: usize = 100;

/// How many databases are looked at, from the newest back, for the one in which a cursor goes on.
const ASIDE: usize = 16;

/// Why a step wasn't made.
#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error("{0}")]
    Sink(#[from] SinkError),
    #[error("{0}")]
    Read(#[from] QueryError),
    #[error("the checkpoints can't be read: {0}")]
    Checkpoints(std::io::Error),
    #[error("how far the export is can't be written: {0}; check the state folder and its disk")]
    Cursor(std::io::Error),
}

/// One sink and how far it is.
pub(super) struct Follower {
    record: Arc<Record>,
    sink: Sink,
    cursor: Cursor,
    state: Arc<Mutex<SinkState>>,
    clock: Arc<dyn Clock>,
    /// The most events that the sink takes at once, as far as is known.
    events: u32,
    /// As of which new database the cursor is known to be in the newest.
    renewals: Option<u64>,
}

impl Follower {
    pub(super) fn new(
        record: Arc<Record>,
        sink: Sink,
        cursor: Cursor,
        state: Arc<Mutex<SinkState>>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { record, sink, cursor, state, clock, events: EVENTS, renewals: None }
    }

    /// Sends for as long as it is polled.
    pub(super) async fn run(mut self) {
        let mut pause = PAUSE;
        loop {
            match self.step().await {
                Ok(true) => pause = PAUSE,
                Ok(false) => tokio::time::sleep(LOOK).await,
                Err(error) => {
                    let name = self.state().name.clone();
                    metrics::counter!("interceptor_export_failures_total", "sink" => name.clone()).increment(1);
                    let told = error.to_string();
                    if self.state().failing.as_ref() != Some(&told) {
                        tracing::warn!(sink = name, error = told, "the record can't be sent; it is tried again");
                    }
                    self.state().failing = Some(told);
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST);
                }
            }
        }
    }

    /// Sends a batch, if there is anything to send, and moves the cursor. Gives whether there was.
    async fn step(&mut self) -> Result<bool, StepError> {
        let (items, next) = self.gather()?;
        let Some(first) = items.first() else {
            let mut state = self.state();
            state.waiting_since = None;
            state.failing = None;
            return Ok(false);
        };
        let since = first.at().unwrap_or_else(|| self.clock.now());
        self.state().waiting_since.get_or_insert(since);
        if let Err(error) = self.sink.send(&items).await {
            if error.is_too_much() && self.events > 1 {
                self.events = (self.events / 2).max(1);
            }
            return Err(error.into());
        }
        self.cursor.advance(next).map_err(StepError::Cursor)?;
        self.events = EVENTS;
        let at = self.cursor.at();
        self.anchor(at)?;
        let mut state = self.state();
        (state.seq, state.anchored, state.failing, state.waiting_since) = (at.seq, at.anchored, None, None);
        let name = state.name.clone();
        metrics::counter!("interceptor_export_messages_total", "sink" => name).increment(items.len() as u64);
        Ok(true)
    }

    /// What comes after the cursor, and where the cursor is after that.
    fn gather(&mut self) -> Result<(Vec<Item>, Position), StepError> {
        let mut next = self.cursor.at().clone();
        let mut links = Vec::new();
        let mut database = self.record.database().to_owned();
        let health = self.record.health();
        if self.renewals != Some(health.renewals) || health.seq != next.seq {
            (database, next) = self.place(next)?;
            let renewals = (database == self.record.database()).then_some(health.renewals);
            if std::mem::replace(&mut self.renewals, renewals) != renewals {
                self.anchor(&next)?;
            }
            links = Reader::open(&database)?.links(next.seq, self.events, BYTES)?;
        }
        let signed = checkpoint::follow(&database, next.checkpoints, CHECKPOINTS);
        let mut signed = signed.map_err(StepError::Checkpoints)?.into_iter().peekable();
        let mut items = Vec::new();
        let mut take = |items: &mut Vec<Item>, next: &mut Position| {
            while let Some(one) = signed.next_if(|one| one.checkpoint.seq <= next.seq) {
                next.checkpoints = one.end;
                next.anchored = one.checkpoint.seq;
                items.push(Item::Checkpoint(one));
            }
        };
        take(&mut items, &mut next);
        for link in links {
            (next.seq, next.hash) = (link.seq, link.hash.clone());
            items.push(Item::Event(link));
            take(&mut items, &mut next);
        }
        Ok((items, next))
    }

    /// Tells the record what the sink has of the newest database, if it is there already. What it has of an older one is no
    /// anchor of anything in this one.
    fn anchor(&self, at: &Position) -> Result<(), QueryError> {
        self.renewals.map_or(Ok(()), |renewals| self.record.anchored(at.anchored, renewals))
    }

    /// The database in which the cursor goes on, and where. A database that was moved aside is sent to its end first.
    fn place(&self, at: Position) -> Result<(PathBuf, Position), StepError> {
        let newest = self.record.database();
        let (mut database, mut after) = (newest.to_owned(), None);
        for _ in 0..ASIDE {
            let reader = Reader::open(&database)?;
            if reader.has_link(at.seq, &at.hash)? {
                let is_all = reader.last_seq()? == at.seq
                    && checkpoint::follow(&database, at.checkpoints, 1).map_err(StepError::Checkpoints)?.is_empty();
                return Ok(match after {
                    Some(after) if is_all => (after, Position::default()),
                    _ => (database, at),
                });
            }
            let Some(begun) = reader.begun()? else { break };
            let before = database.with_file_name(begun.previous);
            if !before.exists() {
                break;
            }
            after = Some(std::mem::replace(&mut database, before));
        }
        tracing::warn!(seq = at.seq, "the record is another one than was sent; it is sent from its beginning");
        Ok((newest.to_owned(), Position::default()))
    }

    fn state(&self) -> MutexGuard<'_, SinkState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
