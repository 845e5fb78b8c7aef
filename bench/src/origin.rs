//! The service behind everything: HTTP/1.1 and HTTP/2 in TLS, one thread per core. What it answers is made once at the
//! start, so that it costs as little as it can: a person (some 300 bytes of JSON), a page of people (100 KB), a file
//! (100 MB).

use std::convert::Infallible;
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use clap::Args;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;

use crate::load::Local;
use crate::{pki, spread, tls};

/// The size of the file.
pub(crate) const FILE: u64 = 100_000_000;
/// The least size of the page.
const PAGE: usize = 100_000;
/// What is handed over at once.
const PIECE: usize = 64 * 1024;
/// The first part of a path's last segment whose connection is closed when nothing has been asked on it for [`LEFT`].
pub(crate) const IDLE: &str = "idle";
const LEFT: Duration = Duration::from_secs(1);
/// What every mail address of an answer ends in, and no masked one does.
pub(crate) const MAIL: &str = "@contoso.example";

/// Where it stands.
#[derive(Args)]
pub(crate) struct Options {
    /// The folder with certificates and keys.
    #[arg(long)]
    pki: PathBuf,
    /// How many threads serve.
    #[arg(long)]
    threads: usize,
}

/// Serves until it is killed.
pub(crate) fn serve(options: &Options) -> Result<()> {
    let folder = pki::Folder::at(&options.pki);
    let acceptor = TlsAcceptor::from(tls::server(&folder.leaf(), &folder.leaf_key())?);
    let answers = Answers::new();
    spread::serve(options.threads, move || {
        let (acceptor, answers) = (acceptor.clone(), answers.clone());
        move |stream| connection(stream, acceptor.clone(), answers.clone())
    })
}

#[derive(Clone)]
struct Answers {
    person: Bytes,
    page: Bytes,
    piece: Bytes,
}

impl Answers {
    fn new() -> Self {
        Self { person: person(7).into(), page: page().into(), piece: vec![b'x'; PIECE].into() }
    }

    fn answer(&self, path: &str) -> Response<Repeated> {
        let (kind, piece, left) = match path.split('/').nth(2) {
            Some("drive") => ("application/octet-stream", &self.piece, FILE),
            Some("reports" | "scans") => ("application/json", &self.page, self.page.len() as u64),
            _ => ("application/json", &self.person, self.person.len() as u64),
        };
        let mut response = Response::new(Repeated { piece: piece.clone(), left });
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        response
    }
}

/// A body that is one piece over and over.
struct Repeated {
    piece: Bytes,
    left: u64,
}

impl Body for Repeated {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let take = self.left.min(self.piece.len() as u64);
        if take == 0 {
            return Poll::Ready(None);
        }
        self.left -= take;
        let piece = self.piece.slice(..usize::try_from(take).unwrap_or(self.piece.len()));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor, answers: Answers) {
    // Who goes away early is no concern of the origin.
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let idle = Rc::<Notify>::default();
    let service = service_fn(|request: Request<Incoming>| {
        let path = request.uri().path();
        if path.rsplit('/').next().is_some_and(|last| last.starts_with(IDLE)) {
            idle.notify_one();
        }
        let answer = answers.answer(path);
        async move { Ok::<_, Infallible>(answer) }
    });
    let stream = TokioIo::new(stream);
    if is_http2 {
        let mut server = hyper::server::conn::http2::Builder::new(Local);
        server.timer(TokioTimer::new()).max_concurrent_streams(1000);
        let _ = server.serve_connection(stream, service).await;
    } else {
        let mut connection = pin!(hyper::server::conn::http1::Builder::new().serve_connection(stream, service));
        let left = async {
            idle.notified().await;
            tokio::time::sleep(LEFT).await;
        };
        tokio::select! {
            _ = connection.as_mut() => return,
            () = left => connection.as_mut().graceful_shutdown(),
        }
        let _ = connection.await;
    }
}

/// One person as Microsoft Graph has it.
fn person(number: u64) -> String {
    format!(
        "{{\"id\":\"{number:08}-44d7-43e1-9a83-444455556666\",\"displayName\":\"Person Number {number}\",\
         \"jobTitle\":\"Senior Program Manager\",\"mail\":\"person{number}{MAIL}\",\"mobilePhone\":\"+1 425 555 {:04}\",\
         \"officeLocation\":\"18/{}\",\"preferredLanguage\":\"en-US\",\"userPrincipalName\":\"person{number}{MAIL}\"}}",
        number % 10_000,
        number % 4_000
    )
}

fn page() -> String {
    let mut text = String::from("{\"@odata.context\":\"https://graph.microsoft.com/v1.0/$metadata#users\",\"value\":[");
    for number in 1.. {
        text += &person(number);
        if text.len() >= PAGE {
            break;
        }
        text.push(',');
    }
    text + "]}"
}
