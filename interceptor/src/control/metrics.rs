//! The metrics socket: any HTTP GET on it is answered with the metrics in Prometheus' text format. Who may connect is
//! the socket file's mode: root, and the operators' group if there is one.
//!
//! `curl --unix-socket /run/interceptor/metrics.sock http://localhost/metrics`

use std::convert::Infallible;
use std::io;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::socket::{SocketError, bind};
use crate::config::Control;

/// Listens on `path`: for root alone (0600), or also for the first of the operators' groups (0660).
///
/// # Errors
///
/// As [`bind`].
pub fn listen(path: &Path, control: &Control) -> Result<UnixListener, SocketError> {
    match control.operators.gids.first() {
        Some(&group) => bind(path, 0o660, Some(group)),
        None => bind(path, 0o600, None),
    }
}

/// Serves the metrics for as long as it is polled. `look` sets what is measured when somebody looks: the gauges.
///
/// # Errors
///
/// The listener can't be handed to the runtime.
pub async fn serve<L>(listener: UnixListener, metrics: PrometheusHandle, look: L) -> io::Result<Infallible>
where
    L: Fn() + Clone + Send + 'static,
{
    listener.set_nonblocking(true)?;
    let listener = tokio::net::UnixListener::from_std(listener)?;
    let seats = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // The semaphore is never closed.
        let seat = seats.clone().acquire_owned().await.map_err(io::Error::other)?;
        match listener.accept().await {
            Ok((socket, _)) => {
                let (metrics, look) = (metrics.clone(), look.clone());
                tokio::spawn(async move {
                    let _ = timeout(PATIENCE, converse(socket, metrics, look)).await;
                    drop(seat);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the metrics socket can't accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Scrapes at once.
const CONNECTIONS: usize = 16;

/// How long a scrape may take.
const PATIENCE: Duration = Duration::from_secs(10);

async fn converse(socket: UnixStream, metrics: PrometheusHandle, look: impl Fn()) {
    let service = service_fn(move |request: Request<Incoming>| {
        look();
        let metrics = metrics.clone();
        async move { Ok::<_, Infallible>(answer(request.method(), &metrics)) }
    });
    let served = http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(socket), service).await;
    if let Err(error) = served {
        tracing::debug!(%error, "a scrape of the metrics broke off");
    }
}

fn answer(method: &Method, metrics: &PrometheusHandle) -> Response<Full<Bytes>> {
    let (status, text) = match *method {
        Method::GET => (StatusCode::OK, metrics.render()),
        _ => (StatusCode::METHOD_NOT_ALLOWED, "only GET is answered\n".into()),
    };
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    let kind = header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests;
