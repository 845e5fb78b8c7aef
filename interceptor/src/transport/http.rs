//! HTTP on both sides of the proxy: hyper's settings, the hop upstream, the headers that belong to one hop only, bodies
//! that are counted and digested as they pass, and the bound on floods of HTTP/2 frames. Not here: what may be sent
//! (policy, pipeline).

use http::{HeaderMap, HeaderName, header};
use hyper::server::conn::{http1, http2};
use hyper_util::rt::TokioTimer;

use crate::config::Limits;

mod frames;
mod hop;
mod meter;

pub use frames::{Allowance, Guarded};
pub use hop::{Hop, Unanswered};
pub use meter::{BodyError, Meter, Metered, Overseer, RequestBody};

/// A version of HTTP that is mediated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.1, and 1.0.
    Http1,
    /// HTTP/2, in TLS only.
    Http2,
}

impl Version {
    /// Its name in ALPN (RFC 7301 section 6, RFC 9113 section 3.2).
    pub fn alpn(self) -> &'static [u8] {
        match self {
            Version::Http1 => b"http/1.1",
            Version::Http2 => b"h2",
        }
    }

    /// The version that was agreed on; HTTP/1.1 where nothing else was.
    pub fn of_alpn(agreed: Option<&[u8]>) -> Version {
        if agreed == Some(Version::Http2.alpn()) { Version::Http2 } else { Version::Http1 }
    }

    /// Its name for people.
    pub fn name(self) -> &'static str {
        match self {
            Version::Http1 => "HTTP/1.1",
            Version::Http2 => "HTTP/2",
        }
    }
}

/// How much of one stream's body may wait here for who is slow at the other end.
const STREAM_WINDOW: u32 = 128 * 1024;
/// The largest frame that is taken: the least that HTTP/2 lets anyone ask for.
const MAX_FRAME: u32 = 16 * 1024;
/// How much of one stream's body may wait to be sent.
const SEND_BUFFER: usize = 64 * 1024;

/// How much of all bodies of a connection may wait: as much as its streams may, so that those that stand still leave
/// room for the others.
fn connection_window(limits: &Limits) -> u32 {
    STREAM_WINDOW.saturating_mul(counted(limits.streams)).min(i32::MAX.unsigned_abs())
}

fn counted(limit: usize) -> u32 {
    u32::try_from(limit).unwrap_or(u32::MAX)
}

/// Header fields that mean something between two neighbours only (RFC 9110 section 7.6.1, and those that predate it).
const HOP_BY_HOP: [HeaderName; 7] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-connection"),
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Whether a field means something between two neighbours only.
pub fn is_hop_by_hop(name: &HeaderName) -> bool {
    HOP_BY_HOP.contains(name) || *name == header::TE
}

/// Takes out what belongs to the hop it came over: the listed fields and those that `Connection` names. `TE: trailers`
/// stays, with the `Connection: te` that goes with it in HTTP/1.1, because this proxy passes trailers on. A length beside a transfer
/// coding is no length (RFC 9112 section 6.3) and doesn't survive it.
pub fn strip_hop_by_hop(headers: &mut HeaderMap, version: Version) {
    if headers.contains_key(header::TRANSFER_ENCODING) {
        headers.remove(header::CONTENT_LENGTH);
    }
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let trailers = headers.get_all(header::TE).iter().any(|value| {
        value.to_str().is_ok_and(|te| te.split(',').any(|part| part.trim().eq_ignore_ascii_case("trailers")))
    });
    for name in HOP_BY_HOP.iter().chain(&named).chain([&header::TE]) {
        headers.remove(name);
    }
    if trailers {
        headers.insert(header::TE, header::HeaderValue::from_static("trailers"));
        if version == Version::Http1 {
            headers.insert(header::CONNECTION, header::HeaderValue::from_static("te"));
        }
    }
}

/// hyper's HTTP/1.1 server with our bounds. A client that half-closes after a complete request still gets its answer. Up to
/// twice as many header fields are taken, so that somewhat too many are told and recorded.
pub fn http1_server(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .half_close(true)
        .preserve_header_case(true)
        .auto_date_header(false)
        .header_read_timeout(limits.idle_timeout)
        .max_headers(limits.header_fields.saturating_mul(2))
        .max_buf_size(limits.header_bytes);
    builder
}

/// hyper's HTTP/2 server with our bounds, for a `LocalSet`. Extended CONNECT (RFC 8441) isn't offered: h2 resets such a
/// stream. A header list is taken up to twice the bound, so that one that is somewhat too large is told and recorded.
pub fn http2_server(limits: &Limits) -> http2::Builder<Local> {
    let mut builder = http2::Builder::new(Local);
    builder
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .max_concurrent_streams(counted(limits.streams))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(connection_window(limits))
        .max_frame_size(MAX_FRAME)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(counted(limits.header_bytes.saturating_mul(2)))
        .max_local_error_reset_streams(LOCAL_RESETS);
    builder
}

/// How many streams of a connection may be broken by their client before the connection is ended.
const LOCAL_RESETS: usize = 100;

/// Runs what hyper has to run beside a connection on the thread that the connection is on.
#[derive(Debug, Clone, Copy)]
pub struct Local;

impl<F> hyper::rt::Executor<F> for Local
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

#[cfg(test)]
mod tests;
