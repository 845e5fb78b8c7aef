//! Telling by a post: over verified TLS, without redirects, signed where the form is our own.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, header};
use jiff::Timestamp;
use zeroize::Zeroizing;

use super::body::body;
use super::deliver::{Deliver, Delivering, PATIENCE, Undelivered};
use super::notice::Notice;
use super::sign;
use crate::config::{self, ConfigError, Form, Place, is_post_url};
use crate::detect::hidden;
use crate::transport::fetch::Fetcher;

/// How much of what a receiver says is shown.
const SAID: usize = 200;

/// A receiver of posts.
pub(super) struct Post {
    pub(super) fetcher: Fetcher,
    pub(super) form: Form,
    pub(super) place: Place,
    pub(super) secret: Option<std::path::PathBuf>,
}

impl Deliver for Post {
    fn deliver<'a>(&'a self, notice: &'a Notice, now: Timestamp) -> Delivering<'a> {
        Box::pin(async move {
            let body = body(self.form, notice);
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            headers.insert(header::USER_AGENT, HeaderValue::from_static("interceptor"));
            if let Some(path) = &self.secret {
                sign_with(&mut headers, path, notice, now, &body).await?;
            }
            let url = match &self.place {
                Place::Url(url) => url.clone(),
                Place::File(path) => {
                    let bytes = secret(path).await?;
                    let url = str::from_utf8(bytes.trim_ascii()).ok().filter(|url| is_post_url(url));
                    url.ok_or_else(|| Undelivered::Url(path.clone()))?.to_owned()
                }
            };
            let answer = self.fetcher.tell(&url, headers, body.into(), PATIENCE).await?;
            judge(&answer, now)
        })
    }
}

/// Signs anew at each try: receivers refuse what was signed more than some minutes ago.
async fn sign_with(
    headers: &mut HeaderMap,
    path: &Path,
    notice: &Notice,
    now: Timestamp,
    body: &[u8],
) -> Result<(), Undelivered> {
    let file = secret(path).await?;
    let (id, at) = (notice.id.to_string(), now.as_second());
    let unusable = || Undelivered::Secret(path.to_owned());
    let signature = sign::signature(&file, &id, at, body).ok_or_else(unusable)?;
    for (name, value) in [("webhook-id", id), ("webhook-timestamp", at.to_string()), ("webhook-signature", signature)] {
        let value = HeaderValue::from_str(&value).map_err(|_invalid| unusable())?;
        headers.insert(HeaderName::from_static(name), value);
    }
    Ok(())
}

/// Read each time, so that it may be replaced while the daemon runs; beside the runtime, since a disk may be slow.
async fn secret(path: &Path) -> Result<Zeroizing<Vec<u8>>, ConfigError> {
    let (own, whose) = (path.to_owned(), path.to_owned());
    tokio::task::spawn_blocking(move || config::secret(&own))
        .await
        .unwrap_or_else(|ended| Err(ConfigError::Read { path: whose, why: std::io::Error::other(ended) }))
}

fn judge(answer: &Response<Bytes>, now: Timestamp) -> Result<String, Undelivered> {
    let status = answer.status();
    let text = String::from_utf8_lossy(answer.body());
    let said: String = hidden::escape(text.trim()).chars().take(SAID).collect();
    if !status.is_success() {
        let after = answer.headers().get(header::RETRY_AFTER).and_then(|value| retry_after(value, now));
        return Err(Undelivered::Answered { status, after, said });
    }
    Ok(if said.is_empty() { status.to_string() } else { format!("{status}: {said}") })
}

/// Seconds, or a date (RFC 9110 section 10.2.3).
fn retry_after(value: &HeaderValue, now: Timestamp) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    Some(Duration::try_from(date.duration_since(now)).unwrap_or_default())
}

#[cfg(test)]
mod tests;
