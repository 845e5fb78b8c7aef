//! Handing a batch to a sink, and knowing that it has it: an HTTP answer of success, or the end of a syslog connection
//! that the receiver read to its end. TLS is always verified.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use zeroize::Zeroizing;

use super::batch::{self, Item};
use super::{Dialing, ExportError};
use crate::config::{self, BatchFormat, ConfigError, ExportSettings, Host, SinkSettings};
use crate::identity::FetchError;
use crate::transport::dial::{DialError, Dialer, Stream};
use crate::transport::fetch::Fetcher;
use crate::transport::trust::Roots;

/// How long handing over one batch may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long the receiver of a stream is watched before it is ended: twice what the dial took, within these.
const QUIET: Duration = Duration::from_millis(100);
const LONGEST_QUIET: Duration = Duration::from_secs(2);

/// Why a batch wasn't handed over.
#[derive(Debug, thiserror::Error)]
pub(super) enum SinkError {
    #[error("{0}")]
    Post(#[from] FetchError),
    #[error("{0}")]
    Dial(#[from] DialError),
    #[error("the connection broke: {0}")]
    Broken(io::Error),
    #[error("the receiver ended the connection of its own accord")]
    Ended,
    #[error("the receiver didn't read the batch and end the connection within {} s", PATIENCE.as_secs())]
    Late,
    #[error("{0}")]
    Secret(ConfigError),
    #[error("the bearer token in `{}` has bytes that no header can have", .0.display())]
    Token(PathBuf),
    #[error("the receiver refused {0} log records; see its own log")]
    Rejected(i64),
}

impl SinkError {
    /// Whether less at once may be taken.
    pub(super) fn is_too_much(&self) -> bool {
        matches!(self, SinkError::Post(FetchError::Status(413)))
    }
}

/// A sink.
pub(super) struct Sink {
    dialing: Dialing,
    fetcher: Fetcher,
    way: SinkSettings,
    /// The name of this host.
    host: String,
}

impl Sink {
    /// A sink that is verified against its own roots, or as upstreams are.
    ///
    /// # Errors
    /// When its roots can't be read.
    pub(super) fn new(settings: &ExportSettings, dialing: &Dialing) -> Result<Self, ExportError> {
        let dialing = match &settings.ca {
            None => Arc::clone(dialing),
            Some(ca) => {
                let failed = |source| ExportError::Roots { name: settings.name.to_string(), source };
                let roots = Roots::only(ca).map_err(failed)?;
                let dialer = dialing().verifying(&roots).map_err(failed)?;
                let dialer = Arc::new(dialer);
                Arc::new(move || Arc::clone(&dialer))
            }
        };
        let fetching = Arc::clone(&dialing);
        let host = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Ok(Self { fetcher: Fetcher::new(move || fetching()), dialing, way: settings.sink.clone(), host })
    }

    /// Hands a batch over.
    ///
    /// # Errors
    /// When it isn't known that the sink has it; it may have it all the same.
    pub(super) async fn send(&self, items: &[Item]) -> Result<(), SinkError> {
        match &self.way {
            SinkSettings::Syslog { host, port } => {
                let bytes = batch::syslog(items, &self.host);
                let dialer = (self.dialing)();
                let sending = stream(&dialer, host, *port, &bytes);
                tokio::time::timeout(PATIENCE, sending).await.map_err(|_elapsed| SinkError::Late)?
            }
            SinkSettings::Http { url, format, bearer } => {
                let kind = match format {
                    BatchFormat::Lines => "application/x-ndjson",
                    BatchFormat::Array => "application/json",
                };
                self.post(url, bearer.as_deref(), kind, batch::objects(items, *format)).await.map(drop)
            }
            SinkSettings::Otlp { url, bearer } => {
                let body = batch::otlp(items, &self.host);
                let answer = self.post(url, bearer.as_deref(), "application/json", body).await?;
                rejected(&answer)
            }
        }
    }

    async fn post(
        &self,
        url: &str,
        bearer: Option<&Path>,
        kind: &'static str,
        body: Vec<u8>,
    ) -> Result<Bytes, SinkError> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        if let Some(path) = bearer {
            // Read each time: it may be replaced while the daemon runs.
            headers.insert(header::AUTHORIZATION, authorization(path)?);
        }
        Ok(self.fetcher.post(url, headers, body.into(), PATIENCE).await?)
    }
}

fn authorization(path: &Path) -> Result<HeaderValue, SinkError> {
    let secret = config::secret(path).map_err(SinkError::Secret)?;
    let mut field = Zeroizing::new(b"Bearer ".to_vec());
    field.extend_from_slice(secret.trim_ascii());
    let mut value = HeaderValue::from_bytes(&field).map_err(|_invalid| SinkError::Token(path.to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// A receiver of OTLP answers success also where it refused a part, and counts it.
fn rejected(answer: &[u8]) -> Result<(), SinkError> {
    let answer: Value = serde_json::from_slice(answer).unwrap_or_default();
    let count = &answer["partialSuccess"]["rejectedLogRecords"];
    match count.as_i64().or_else(|| count.as_str().and_then(|count| count.parse().ok())) {
        Some(count) if count > 0 => Err(SinkError::Rejected(count)),
        _ => Ok(()),
    }
}

/// Sends `bytes` on a connection of their own and ends it. Syslog has no answers: that the receiver ends its side after
/// ours is what says that it has read all (RFC 5425 section 4.4). One that closes with something unread resets the
/// connection; one that had closed before anything came would be taken for one that read, so it is waited for longer
/// than the way there and back before ours is ended.
async fn stream(dialer: &Dialer, host: &Host, port: u16, bytes: &[u8]) -> Result<(), SinkError> {
    let began = Instant::now();
    let mut stream = dialer.dial(host, port, Some(&[]), PATIENCE).await?.stream;
    let quiet = (began.elapsed() * 2).clamp(QUIET, LONGEST_QUIET);
    stream.write_all(bytes).await.map_err(SinkError::Broken)?;
    stream.flush().await.map_err(SinkError::Broken)?;
    if let Ok(ended) = tokio::time::timeout(quiet, end(&mut stream)).await {
        return Err(ended.err().unwrap_or(SinkError::Ended));
    }
    // Sends close_notify as well.
    stream.shutdown().await.map_err(SinkError::Broken)?;
    end(&mut stream).await
}

/// Waits for the end of what the receiver sends, which is nothing that counts.
async fn end(stream: &mut Stream) -> Result<(), SinkError> {
    let mut unasked = [0; 256];
    loop {
        match stream.read(&mut unasked).await {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            // It ended without a close_notify of its own, as many do.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(SinkError::Broken(error)),
        }
    }
}

#[cfg(test)]
mod tests;
