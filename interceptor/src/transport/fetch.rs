//! Requests of the daemon's own: documents of issuers, groups of people, what is posted to sinks of the record and to
//! those who are told of approvals. Over verified TLS only, without redirects, with a bounded answer in bounded time; each
//! on a connection of its own, since they are rare.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use super::dial::Dialer;
use crate::config::Host;
use crate::identity::{Fetch, FetchError, MAX_DOCUMENT};

mod directory;

pub use directory::Memberships;

/// How long all of one request may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The most bytes of an answer to [`Fetcher::tell`].
pub const MAX_SAID: usize = 4096;

/// Which answers are given, and not taken for an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// Those of 200.
    Ok,
    /// Those of success.
    Success,
    /// All.
    /// What OAuth answers: success, or one of the statuses of its errors.
    OAuth,
    Any,
}

/// Fetches by the dialler of the moment.
#[derive(Clone)]
pub struct Fetcher(Arc<dyn Fn() -> Arc<Dialer> + Send + Sync>);

impl Fetcher {
    /// A fetcher that dials with what `dialer` gives at each request.
    pub fn new(dialer: impl Fn() -> Arc<Dialer> + Send + Sync + 'static) -> Self {
        Self(Arc::new(dialer))
    }

    /// The body of a 200 answer to a request of `url`.
    ///
    /// # Errors
    /// No answer in time, one of another status, or one that is too large. The text repeats nothing that was sent.
    async fn request(&self, method: Method, url: &str, headers: HeaderMap, body: Bytes) -> Result<Bytes, FetchError> {
        let answer = within(PATIENCE, self.exchange(method, url, headers, body, Wanted::Ok)).await?;
        Ok(answer.into_body())
    }

    /// Posts `body`, and gives the body of an answer of success, whichever it is.
    ///
    /// # Errors
    /// No answer within `patience`, one of another status, or one that is too large. The text repeats nothing that was sent.
    pub async fn post(
        &self,
        url: &str,
        headers: HeaderMap,
        body: Bytes,
        patience: Duration,
    ) -> Result<Bytes, FetchError> {
        let answer = within(patience, self.exchange(Method::POST, url, headers, body, Wanted::Success)).await?;
        Ok(answer.into_body())
    }

    /// Posts `body`, and gives the answer whatever its status. Of its body that is little: nothing if it is larger than
    /// [`MAX_SAID`].
    ///
    /// # Errors
    /// No answer within `patience`. The text repeats nothing that was sent.
    pub async fn tell(
        &self,
        url: &str,
        headers: HeaderMap,
        body: Bytes,
        patience: Duration,
    ) -> Result<Response<Bytes>, FetchError> {
        within(patience, self.exchange(Method::POST, url, headers, body, Wanted::Any)).await
    }

    /// Posts a form to an OAuth endpoint, and gives the body of an answer of success or of the statuses that its errors have
    /// (RFC 6749 section 5.2).
    ///
    /// # Errors
    /// As [`Fetcher::post`].
    pub async fn submit(&self, url: &str, form: &str) -> Result<Bytes, FetchError> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        let body = Bytes::copy_from_slice(form.as_bytes());
        let answer = within(PATIENCE, self.exchange(Method::POST, url, headers, body, Wanted::OAuth)).await?;
        Ok(answer.into_body())
    }

    async fn exchange(
        &self,
        method: Method,
        url: &str,
        headers: HeaderMap,
        body: Bytes,
        wanted: Wanted,
    ) -> Result<Response<Bytes>, FetchError> {
        let unreachable = |why: &dyn std::fmt::Display| FetchError::Unreachable(why.to_string());
        let uri: Uri = url.parse().map_err(|error| unreachable(&error))?;
        let authority = uri.authority().filter(|_| uri.scheme_str() == Some("https"));
        let Some(authority) = authority else { return Err(unreachable(&"it isn't an https URL")) };
        let host: Host = authority.host().parse().map_err(|error| unreachable(&error))?;
        let port = authority.port_u16().unwrap_or(443);
        let alpn = [b"http/1.1".to_vec()];
        let dialled = (self.0)().dial(&host, port, Some(&alpn), PATIENCE).await;
        let upstream = dialled.map_err(|error| unreachable(&error))?;
        let broken = |_error: hyper::Error| unreachable(&"the connection broke");
        let (mut sender, connection) = http1::handshake(TokioIo::new(upstream.stream)).await.map_err(broken)?;

        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().map_err(|error| unreachable(&error))?;
        *request.headers_mut() = headers;
        let name = HeaderValue::from_str(authority.as_str()).map_err(|error| unreachable(&error))?;
        request.headers_mut().insert(header::HOST, name);
        let answer = async {
            let response = sender.send_request(request).await.map_err(broken)?;
            let status = response.status();
            let (is_good, most) = match wanted {
                Wanted::Ok => (status == StatusCode::OK, MAX_DOCUMENT),
                Wanted::Success => (status.is_success(), MAX_DOCUMENT),
                Wanted::OAuth => (matches!(status.as_u16(), 200 | 400 | 401), MAX_DOCUMENT),
                Wanted::Any => (true, MAX_SAID),
            };
            if !is_good {
                return Err(FetchError::Status(status.as_u16()));
            }
            let (parts, body) = response.into_parts();
            let body = match Limited::new(body, most).collect().await {
                Ok(body) => body.to_bytes(),
                // The status said it already.
                Err(_) if wanted == Wanted::Any => Bytes::new(),
                Err(error) if error.is::<http_body_util::LengthLimitError>() => return Err(FetchError::TooLarge),
                Err(_) => return Err(unreachable(&"the connection broke")),
            };
            Ok(Response::from_parts(parts, body))
        };
        // The connection moves only while it is polled; once it has ended, the answer says how.
        let (mut answer, mut connection) = (pin!(answer), pin!(connection));
        tokio::select! {
            answer = answer.as_mut() => answer,
            _ended = connection.as_mut() => answer.await,
        }
    }
}

async fn within(
    patience: Duration,
    exchange: impl Future<Output = Result<Response<Bytes>, FetchError>>,
) -> Result<Response<Bytes>, FetchError> {
    let late = |_elapsed| FetchError::Unreachable(format!("no answer within {} s", patience.as_secs()));
    tokio::time::timeout(patience, exchange).await.map_err(late)?
}

impl Fetch for Fetcher {
    fn get<'a>(&'a self, url: &'a str) -> Pin<Box<dyn Future<Output = Result<Bytes, FetchError>> + Send + 'a>> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        Box::pin(self.request(Method::GET, url, headers, Bytes::new()))
    }
}

#[cfg(test)]
mod tests;
