//! The two walks. A connection, once: accept -> attribute -> detect -> admit. Each of its operations: decode ->
//! authenticate -> decide -> enforce -> record. The order of the stages is in this file and nowhere else; what a stage
//! does is in the file of its name.

mod admit;
mod answer;
mod authenticate;
mod charge;
mod connection;
mod counted;
mod credential;
mod digest;
mod gate;
mod hold;
mod live;
mod masking;
mod membership;
mod onward;
mod operation;
mod payload;
mod registry;
mod reply;
mod request;
mod ruling;
mod screen;
mod serve;
mod token;
mod websocket;
mod worker;

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use http::{Request, Response};
use hyper::body::Incoming;
use tokio::net::TcpStream;
use tokio::sync::watch;

pub use digest::ApprovalKey;
pub use gate::{CurrentLookup, RecordingGate};
pub use masking::Masking;
pub use registry::{Order, Registry};
pub use worker::{Worker, start_workers};

use crate::approve::Desk;
use crate::clock::Clock;
use crate::identity::Judge;
use crate::ids::LaunchId;
use crate::mask;
use crate::policy::Snapshot;
use crate::record::Keys;
use crate::transport::authority::Authority;
use crate::transport::dial::Dialer;
use crate::transport::names::Names;
use crate::transport::resolver::Resolver;
use crate::transport::taken::Ticket;
use crate::vault::Vault;
use crate::who::{Attribution, Callers};
use connection::Located;
use live::Live;
use reply::ReplyBody;

/// What decisions are made on and upstreams are reached by, of one generation.
pub struct World {
    /// Settings and policies.
    pub snapshot: Arc<Snapshot>,
    /// The way to upstreams, as those settings say.
    pub dialer: Arc<Dialer>,
    /// The credentials of its targets.
    pub vault: Arc<Vault>,
    /// What answers are masked for.
    pub masking: Arc<Masking>,
}

/// What all workers share.
pub struct Pipeline {
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The world of the moment; every live connection watches it.
    pub worlds: watch::Receiver<Arc<World>>,
    /// The CA for what clients see.
    pub authority: Arc<Authority>,
    /// Who tokens name.
    pub judge: Arc<Judge>,
    /// The keys that payloads are sealed under.
    pub keys: Arc<Keys>,
    /// What pseudonyms are made under, and the tokens for entity tags.
    pub mask_key: mask::Key,
    /// What held operations are known by.
    pub approval_key: ApprovalKey,
    /// What people are asked, and what they let through.
    pub desk: Arc<Desk>,
    /// Who called workloads at their published ports of late.
    pub callers: Arc<Callers>,
    /// The live connections.
    pub registry: Arc<Registry>,
    /// What each live launch has looked up.
    pub directory: Directory,
}

/// One launch's synthetic names, and the resolver that gives them out.
#[derive(Clone)]
pub struct Lookups {
    /// The names.
    pub names: Arc<Names>,
    /// The resolver.
    pub resolver: Arc<Resolver>,
}

/// What each live launch has looked up.
#[derive(Default)]
pub struct Directory(Mutex<HashMap<LaunchId, Lookups>>);

impl Directory {
    /// Enters a launch.
    pub fn enter(&self, launch: LaunchId, lookups: Lookups) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(launch, lookups);
    }

    /// Takes a launch out.
    pub fn leave(&self, launch: LaunchId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&launch);
    }

    /// A launch's.
    pub fn of(&self, launch: LaunchId) -> Option<Lookups> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&launch).cloned()
    }
}

/// A connection, from its first byte to its last.
pub async fn connection(worker: Rc<Worker>, stream: TcpStream, attribution: Attribution, ticket: Ticket) {
    if attribution.original.port() == 53 {
        // Look-ups are recorded, their connection isn't.
        drop(ticket);
        return gate::resolve_over_tcp(&worker, stream, attribution).await;
    }
    let located = Located::new(worker, attribution);
    let registered = located.register(stream, ticket);
    let session = registered.session();
    // Each stage on the heap, and gone when it is done: a connection that idles has only what serving it takes.
    let ending = match Box::pin(registered.detect()).await {
        Ok(detected) => match Box::pin(detected.admit()).await {
            Ok(admitted) => admitted.serve().await,
            Err(refused) => Box::pin(refused.tell()).await,
        },
        Err(ending) => ending,
    };
    session.close(ending);
}

/// An HTTP request, from its head to the last byte of its answer.
async fn operation(live: Rc<Live>, request: Request<Incoming>) -> Response<ReplyBody> {
    let decided = match request::decode(&live, request) {
        Ok(decoded) => match decoded.authenticate(&live).await {
            Ok(authenticated) => authenticated.decide(&live).await,
            Err(refused) => *refused,
        },
        Err(refused) => *refused,
    };
    match decided.record(&live) {
        Ok(permitted) => permitted.forward(live).await,
        Err(refused) => refused.tell(&live),
    }
}
