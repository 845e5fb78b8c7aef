//! The connections: HTTP/1.1, in TLS for the login hosts and in clear for a host's own endpoints. Each request is read
//! whole, answered by one function, and logged.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::state::{Received, Service, State};
use super::{host, login};

/// The largest body that is read.
const BODY: usize = 256 * 1024;

/// A request, read.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) method: Method,
    /// The Host header, with its port.
    pub(super) host: String,
    pub(super) path: String,
    pub(super) query: Vec<(String, String)>,
    pub(super) headers: Vec<(String, String)>,
    pub(super) form: Vec<(String, String)>,
}

/// What it is answered.
#[derive(Debug)]
pub(super) struct Answer(Response<Full<Bytes>>);

impl Answer {
    pub(super) fn json(status: StatusCode, document: &Value) -> Self {
        let mut response = Response::new(Full::new(Bytes::from(document.to_string())));
        *response.status_mut() = status;
        let kind = HeaderValue::from_static("application/json; charset=utf-8");
        response.headers_mut().insert(CONTENT_TYPE, kind);
        Self(response)
    }

    pub(super) fn header(mut self, name: &'static str, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.0.headers_mut().insert(HeaderName::from_static(name), value);
        }
        self
    }
}

/// One of the endpoints.
#[derive(Clone)]
pub(super) struct Endpoint {
    pub(super) service: Service,
    pub(super) tls: Option<TlsAcceptor>,
    pub(super) state: Arc<State>,
    /// Where Arc's secrets are put.
    pub(super) tokens: Arc<PathBuf>,
}

/// Takes connections for ever.
pub(super) async fn accept(listener: std::net::TcpListener, endpoint: Endpoint) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let endpoint = endpoint.clone();
        tokio::spawn(async move {
            // A peer that goes away early is no concern of ours.
            let _ = stream.set_nodelay(true);
            match &endpoint.tls {
                Some(acceptor) => {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        serve(stream, &endpoint).await;
                    }
                }
                None => serve(stream, &endpoint).await,
            }
        });
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(stream: S, endpoint: &Endpoint) {
    let service = service_fn(|request| async move { Ok::<_, Infallible>(endpoint.answer(request).await) });
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

impl Endpoint {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let body = Limited::new(body, BODY).collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let headers = head.headers.iter();
        let headers: Vec<(String, String)> = headers
            .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect();
        let host = head.headers.get(HOST).map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned());
        let question = Question {
            method: head.method,
            host: host.unwrap_or_default().to_ascii_lowercase(),
            path: head.uri.path().to_owned(),
            query: pairs(head.uri.query().unwrap_or_default().as_bytes()),
            headers,
            form: pairs(&body),
        };
        let mut state = self.state.lock();
        let Answer(response) = match self.service {
            Service::Login => login::answer(&mut state, &question),
            other => host::answer(&mut state, other, &question, &self.tokens),
        };
        state.log.push(Received {
            service: self.service,
            method: question.method.to_string(),
            host: question.host,
            path: head.uri.path_and_query().map_or_else(|| head.uri.to_string(), ToString::to_string),
            headers: question.headers,
            form: question.form,
            status: response.status().as_u16(),
        });
        response
    }
}

fn pairs(text: &[u8]) -> Vec<(String, String)> {
    form_urlencoded::parse(text).into_owned().collect()
}
