//! Doing what was decided: dialling and forwarding take a [`Permit`] that only policy can make and a [`Recorded`] that
//! only the record can make, both by value. Forgetting to decide, or to record, doesn't compile.

mod inject;

use std::io;
use std::pin::pin;

use http::{Request, Response};
use hyper::body::Incoming;

pub use inject::{inject, unavailable};

use crate::config::{Host, Limits};
use crate::error::{Blame, Fault};
use crate::policy::Permit;
use crate::record::Recorded;
use crate::transport::dial::{Dialer, Upstream};
use crate::transport::http::{Hop, Metered, Unanswered};

/// Dials the target's name, as a `connect` that was permitted and recorded.
///
/// # Errors
/// The dialler's: what stood between us and the upstream.
pub async fn connect(
    permit: Permit,
    recorded: Recorded,
    dialer: &Dialer,
    to: (&Host, u16),
    alpn: Option<&[Vec<u8>]>,
    limits: &Limits,
) -> Result<Upstream, Fault> {
    drop((permit, recorded));
    dialer.dial(to.0, to.1, alpn, limits.dial_timeout).await.map_err(|error| Fault::from(&error))
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Unforwarded {
    /// The connection was closed before anything of the request was sent: the right to send it is still good.
    #[error("{fault}")]
    Unsent {
        /// What to say if it isn't tried again.
        fault: Fault,
        /// The permit, unused.
        permit: Box<Permit>,
        /// The proof that it was recorded.
        recorded: Recorded,
        /// The request.
        request: Box<Request<Metered>>,
    },
    /// It was sent, at least in part.
    #[error(transparent)]
    Failed(#[from] Fault),
}

/// Forwards one request that was permitted and recorded, and waits for the head of its answer.
///
/// # Errors
/// `upstream-timeout` when no answer began in time (counted from the last progress of the request's body),
/// `upstream-closed` when the connection broke.
pub async fn forward(
    permit: Permit,
    recorded: Recorded,
    hop: &mut Hop,
    request: Request<Metered>,
    limits: &Limits,
) -> Result<Response<Incoming>, Unforwarded> {
    let sent = request.body().meter().clone();
    let mut answer = pin!(hop.send(request));
    let head = loop {
        let so_far = sent.bytes();
        match tokio::time::timeout(limits.response_timeout, answer.as_mut()).await {
            Err(_elapsed) if sent.bytes() > so_far => {}
            head => break head,
        }
    };
    match head {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(failed)) => {
            let (fault, unsent) = match failed {
                Unanswered::Closed(request) => (fault_of(CLOSED), Some(request)),
                Unanswered::Broken(mut broken) => (upstream_fault(broken.error()), broken.take_message().map(Box::new)),
            };
            match unsent {
                Some(request) => Err(Unforwarded::Unsent { fault, permit: Box::new(permit), recorded, request }),
                None => Err(fault.into()),
            }
        }
        Err(_elapsed) => Err(Unforwarded::Failed(Fault {
            code: "upstream-timeout",
            blame: Blame::Upstream,
            told: format!("the server did not begin to answer within {} s", limits.response_timeout.as_secs()),
            next: "try again later; the request may have taken effect",
        })),
    }
}

/// What went wrong between us and the upstream, without its text: that can repeat what was sent.
pub fn upstream_fault(error: &hyper::Error) -> Fault {
    if error.is_parse_too_large() {
        return section_too_large();
    }
    let source = std::error::Error::source(error);
    let broken = source.and_then(|source| source.downcast_ref::<h2::Error>());
    let (code, told) = if error.is_parse() {
        ("upstream-malformed", "the server's answer is not valid HTTP/1.1")
    } else if source.and_then(|source| source.downcast_ref()).is_some_and(is_undecodable) {
        let told =
            "the server's answer is not valid HTTP/1.1 in its body, or has more trailers than `limits.header_fields`";
        ("upstream-malformed", told)
    } else if error.is_user() {
        ("client-gone", "the request's body ended before it was complete")
    } else {
        match broken {
            Some(broken) if broken.is_library() => {
                let told = "the server's answer is not valid HTTP/2, or its header section is far larger than `limits.header_bytes`";
                ("upstream-malformed", told)
            }
            Some(broken) if broken.is_reset() => ("upstream-reset", "the server reset the request's stream"),
            _ => CLOSED,
        }
    };
    fault_of((code, told))
}

/// Whether reading failed because hyper can't make sense of the chunks or trailers of a body; not because TLS can't.
fn is_undecodable(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData)
        && !error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>())
}

/// An answer's header section, or its trailers, are larger than the configuration takes.
pub fn section_too_large() -> Fault {
    Fault {
        code: "upstream-malformed",
        blame: Blame::Upstream,
        told: "the server's answer has more or larger header fields than this host's Interceptor takes".into(),
        next: "ask for less; or the operator raises `limits.header_bytes` or `limits.header_fields`",
    }
}

const CLOSED: (&str, &str) = ("upstream-closed", "the server closed the connection before its answer was complete");

fn fault_of((code, told): (&'static str, &'static str)) -> Fault {
    let blame = if code == "client-gone" { Blame::Client } else { Blame::Upstream };
    Fault { code, blame, told: told.into(), next: "try again; the request may have taken effect" }
}
