//! Groups that didn't fit into a token, looked up in Microsoft Graph: what is asked, how the answer is read, and for how
//! long it is believed. The address that the token itself gives is of a retired service, and its sender's choice: the
//! question is made from tenant and object. The daemon's own credential, and the call, are behind [`Directory`].

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tokio::time::{Instant, sleep_until};

use super::{FetchError, MAX_DOCUMENT, json};
use crate::clock::Clock;
use crate::fresh::Fresh;
use crate::ids::{ObjectId, TenantId};

/// How long an answer is believed.
const LIFE: SignedDuration = SignedDuration::from_mins(5);
/// How long it is at least from one question about a principal to the next, whatever became of the first: a workload may get
/// new tokens as often as it likes, and give up what it asked for.
const SPACE: Duration = Duration::from_millis(250);
/// How long an answer that nobody asks for is kept.
const KEPT: Duration = Duration::from_mins(5);
/// Principals whose groups are kept.
const MOST_PRINCIPALS: usize = 1024;
/// The most groups of one principal; Graph itself returns no more than 11,000.
const MOST_GROUPS: usize = 11_000;
/// The most pages of one answer.
const MOST_PAGES: usize = 32;

/// A request to Graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GraphRequest {
    /// `POST` with the body, or `GET` for a further page.
    pub method: &'static str,
    /// Its address.
    pub url: String,
    /// JSON; empty for `GET`.
    pub body: &'static str,
}

/// Who asks Graph, with a credential of the daemon's own for that tenant.
pub trait Directory: Send + Sync {
    /// The body of a 200 answer.
    fn ask<'a>(
        &'a self,
        tenant: TenantId,
        request: &'a GraphRequest,
    ) -> Pin<Box<dyn Future<Output = Result<Bytes, FetchError>> + Send + 'a>>;
}

/// Why a principal's groups are unknown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OverageError {
    /// Graph couldn't be asked, or said no.
    #[error("couldn't ask Graph for the principal's groups")]
    Ask(#[from] FetchError),
    /// The answer isn't a list of ids.
    #[error("Graph's answer about the principal's groups isn't a list of ids")]
    Malformed,
    /// More groups or pages than are read.
    #[error("the principal is in more groups than are looked up (11,000)")]
    TooMany,
    /// The next page is said to be somewhere else.
    #[error("Graph's answer continues on another host, which isn't followed")]
    Elsewhere,
}

impl OverageError {
    /// The stable code (docs/identity.md).
    pub fn code(&self) -> &'static str {
        "groups-unknown"
    }
}

/// One page of ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The ids of groups and directory roles.
    pub ids: Vec<ObjectId>,
    /// The address of the next page.
    pub next: Option<String>,
}

/// The first request about an object, at a Graph such as `https://graph.microsoft.com`.
pub fn request(graph: &str, oid: ObjectId) -> GraphRequest {
    GraphRequest {
        method: "POST",
        url: format!("{graph}/v1.0/directoryObjects/{oid}/getMemberObjects"),
        body: r#"{"securityEnabledOnly":false}"#,
    }
}

impl Page {
    /// Reads one answer of this Graph.
    ///
    /// # Errors
    /// That it isn't a list of ids, is too long, or continues elsewhere.
    pub fn parse(graph: &str, body: &[u8]) -> Result<Page, OverageError> {
        if body.len() > MAX_DOCUMENT {
            return Err(OverageError::TooMany);
        }
        let answer = json::object(body).map_err(|_| OverageError::Malformed)?;
        let values = answer.get("value").and_then(Value::as_array).ok_or(OverageError::Malformed)?;
        if values.len() > MOST_GROUPS {
            return Err(OverageError::TooMany);
        }
        let ids = values.iter().map(|value| value.as_str().and_then(|id| id.parse().ok()));
        let ids = ids.collect::<Option<Vec<ObjectId>>>().ok_or(OverageError::Malformed)?;
        let next = match answer.get("@odata.nextLink") {
            None | Some(Value::Null) => None,
            Some(Value::String(next)) if next.strip_prefix(graph).is_some_and(|path| path.starts_with('/')) => {
                Some(next.clone())
            }
            Some(_) => return Err(OverageError::Elsewhere),
        };
        Ok(Page { ids, next })
    }
}

/// The groups of principals whose tokens couldn't hold them.
pub struct Overage {
    graph: String,
    directory: Arc<dyn Directory>,
    clock: Arc<dyn Clock>,
    known: Fresh<(TenantId, ObjectId), Answered, OverageError>,
    /// When Graph was asked last.
    asked: Fresh<(TenantId, ObjectId), Instant>,
}

/// An answer about a principal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// The ids of its groups and directory roles.
    pub groups: Arc<[ObjectId]>,
    /// How many tokens had been issued, to all workloads, when it was asked for.
    pub seen: u64,
    at: Timestamp,
}

impl Answered {
    /// Until when it is believed.
    pub fn until(&self) -> Timestamp {
        self.at.saturating_add(LIFE).unwrap_or(self.at)
    }
}

impl Overage {
    /// Nothing known yet, asked at this Graph.
    pub fn new(graph: &str, directory: Arc<dyn Directory>, clock: Arc<dyn Clock>) -> Self {
        let (known, asked) = (Fresh::new(MOST_PRINCIPALS, KEPT), Fresh::new(MOST_PRINCIPALS, SPACE));
        Overage { graph: graph.trim_end_matches('/').to_owned(), directory, clock, known, asked }
    }

    /// A principal's groups, not older than five minutes, and asked for when at least `wanted` tokens had been issued; by
    /// now `seen` have. Those who ask at the same time, or for the same tokens, share one answer; a failure is not kept.
    ///
    /// # Errors
    /// Why they are unknown; a policy that needs them then denies.
    pub async fn groups(
        &self,
        principal: (TenantId, ObjectId),
        (wanted, seen): (u64, u64),
    ) -> Result<Answered, OverageError> {
        let wanted = wanted.min(seen);
        loop {
            let now = self.clock.now();
            let is_old = |known: &Answered| known.seen < wanted || now.duration_since(known.at).abs() >= LIFE;
            self.known.remove_if(&principal, is_old);
            match self.known.get_or_ask(&principal, self.look_up(principal, now, seen)).await {
                // It was being asked for already, before the last of these tokens came.
                Ok(answered) if answered.seen < wanted => {}
                answered => return answered.map_err(|error| (*error).clone()),
            }
        }
    }

    /// Asks once more where Graph couldn't be asked: it may be too busy for a moment, or take a token of the daemon's own no
    /// longer, which then has a new one.
    async fn look_up(
        &self,
        principal: (TenantId, ObjectId),
        at: Timestamp,
        seen: u64,
    ) -> Result<Answered, OverageError> {
        match self.ask(principal, at, seen).await {
            Err(OverageError::Ask(error)) => {
                tracing::debug!(%error, "Graph is asked once more for the groups of a principal");
                self.ask(principal, at, seen).await
            }
            answer => answer,
        }
    }

    /// The age of an answer counts from before it was asked for, and so do the tokens that had been issued. Of those who ask
    /// about a principal one is here at a time.
    async fn ask(&self, (tid, oid): (TenantId, ObjectId), at: Timestamp, seen: u64) -> Result<Answered, OverageError> {
        if let Some(last) = self.asked.get(&(tid, oid)) {
            sleep_until(last + SPACE).await;
        }
        self.asked.put((tid, oid), Instant::now());
        let mut groups = Vec::new();
        let mut request = request(&self.graph, oid);
        for _ in 0..MOST_PAGES {
            let page = Page::parse(&self.graph, &self.directory.ask(tid, &request).await?)?;
            groups.extend(page.ids);
            if groups.len() > MOST_GROUPS {
                return Err(OverageError::TooMany);
            }
            match page.next {
                Some(url) => request = GraphRequest { method: "GET", url, body: "" },
                None => return Ok(Answered { groups: groups.into(), seen, at }),
            }
        }
        Err(OverageError::TooMany)
    }
}

#[cfg(test)]
mod tests;
