//! An API in the manner of Microsoft Graph, on loopback: HTTP/1.1 and HTTP/2 in TLS under a CA of its own, and in clear on a second
//! port. It keeps a log of every request that reached it, so that a test can compare it with the record. What it
//! answers is in [`answer`].

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

use crate::authority::Authority;
use crate::entra::{Caller, Guard, directory};

mod answer;

/// The key that `/v1/tickets` wants in `x-api-key`.
pub const TICKETS_KEY: &str = "tk-5f1c0e2a9b";

/// A request that arrived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Received {
    /// Which connection it came on, from 1.
    pub connection: u64,
    /// Whether in TLS.
    pub tls: bool,
    /// Its method.
    pub method: String,
    /// Its path with the query.
    pub path: String,
    /// Its Host header.
    pub host: String,
    /// Who called: what a guard read from the token.
    pub caller: Option<Caller>,
    /// What the answer's `request-id` calls it.
    pub request_id: String,
}

/// A person in the directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names are Graph's own")]
pub struct Person {
    #[serde(default)]
    pub id: String,
    pub display_name: String,
    #[serde(default)]
    pub job_title: String,
    #[serde(default)]
    pub department: String,
    pub mail: String,
    #[serde(default)]
    pub mobile_phone: String,
    #[serde(default)]
    pub user_principal_name: String,
}

/// The running API; ends when it is dropped.
pub struct Graph {
    address: SocketAddr,
    plain: SocketAddr,
    authority: Authority,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What all its connections share.
pub(crate) struct Shared {
    log: Mutex<Vec<Received>>,
    people: Mutex<Vec<Person>>,
    guard: Mutex<Option<Guard>>,
    taken: Mutex<Vec<String>>,
    requests: AtomicU64,
    connections: AtomicU64,
    open: AtomicUsize,
}

impl Graph {
    /// Starts it on free ports of 127.0.0.1 with a certificate for graph.microsoft.com, localhost, 127.0.0.1 and
    /// `names`.
    ///
    /// # Errors
    /// No port, no certificate or no thread could be had.
    pub fn start(names: &[&str]) -> Result<Self> {
        let authority = Authority::new()?;
        let server = authority.server(&[&["graph.microsoft.com", "localhost", "127.0.0.1"], names].concat())?;
        let mut server = rustls::ServerConfig::clone(&server);
        server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let bind = || -> Result<(std::net::TcpListener, SocketAddr)> {
            let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            Ok((listener, address))
        };
        let ((tls, address), (clear, plain)) = (bind()?, bind()?);
        let shared = Arc::new(Shared::new());
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("graph".into()).spawn({
            let shared = Arc::clone(&shared);
            move || {
                runtime.block_on(async move {
                    tokio::select! {
                        _ = stopped => {}
                        () = accept(tls, Some(TlsAcceptor::from(Arc::new(server))), Arc::clone(&shared)) => {}
                        () = accept(clear, None, shared) => {}
                    }
                });
            }
        });
        let thread = thread.context("can't start a thread for the API")?;
        Ok(Self { address, plain, authority, shared, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it speaks TLS.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it speaks HTTP in clear.
    pub fn plain_address(&self) -> SocketAddr {
        self.plain
    }

    /// The certificate of the CA that its own comes from, PEM.
    pub fn ca_pem(&self) -> String {
        self.authority.pem()
    }

    /// Every request that arrived so far, in order.
    pub fn received(&self) -> Vec<Received> {
        lock(&self.shared.log).clone()
    }

    /// The people in the directory now.
    pub fn people(&self) -> Vec<Person> {
        lock(&self.shared.people).clone()
    }

    /// From now on serves only requests with a token that passes `guard`.
    pub fn guard(&self, guard: Guard) {
        *lock(&self.shared.guard) = Some(guard);
    }

    /// From now on serves every request.
    pub fn trust_all(&self) {
        *lock(&self.shared.guard) = None;
    }

    /// Takes everybody out of a group, as far as it is asked. Tokens are [`Entra::take_group`](crate::entra::Entra::take_group)'s.
    pub fn take_group(&self, group: &str) {
        lock(&self.shared.taken).push(group.to_owned());
    }

    /// How many connections came so far.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// How many connections are open now.
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::Relaxed)
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic on its thread has been printed there.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn new() -> Self {
        Self {
            log: Mutex::default(),
            people: Mutex::new(people()),
            guard: Mutex::default(),
            taken: Mutex::default(),
            requests: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            open: AtomicUsize::new(0),
        }
    }

    /// The name of the next request.
    pub(crate) fn request_id(&self) -> String {
        let number = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        format!("{number:08x}-2d1c-4f60-9a37-5b8e0c4471d9")
    }

    pub(crate) fn note(&self, received: Received) {
        lock(&self.log).push(received);
    }

    pub(crate) fn guard(&self) -> Option<Guard> {
        lock(&self.guard).clone()
    }

    /// The groups that a principal is in now.
    pub(crate) fn groups(&self, id: &str) -> Vec<String> {
        let taken = lock(&self.taken);
        directory::groups(id).into_iter().filter(|group| !taken.contains(group)).collect()
    }

    pub(crate) fn people(&self) -> MutexGuard<'_, Vec<Person>> {
        lock(&self.people)
    }
}

/// Counts a connection as open as long as it lives.
struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn accept(listener: std::net::TcpListener, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        tokio::spawn(connection(stream, tls.clone(), Arc::clone(&shared)));
    }
}

async fn connection(stream: TcpStream, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    let number = shared.connections.fetch_add(1, Ordering::Relaxed) + 1;
    shared.open.fetch_add(1, Ordering::Relaxed);
    let open = Open(shared);
    // A peer that goes away early is no concern of the API.
    let _ = stream.set_nodelay(true);
    match tls {
        Some(acceptor) => {
            if let Ok(stream) = acceptor.accept(stream).await {
                match stream.get_ref().1.alpn_protocol() {
                    Some(b"h2") => serve_http2(stream, number, &open.0).await,
                    _ => serve(stream, number, true, &open.0).await,
                }
            }
        }
        None => serve(stream, number, false, &open.0).await,
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(stream: S, connection: u64, tls: bool, shared: &Arc<Shared>) {
    let service = service_fn(|request| {
        let shared = Arc::clone(shared);
        async move { answer::answer(request, connection, tls, &shared).await }
    });
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// As [`serve`], in HTTP/2, where `:authority` stands for Host.
async fn serve_http2<S: AsyncRead + AsyncWrite + Unpin>(stream: S, connection: u64, shared: &Arc<Shared>) {
    let service = service_fn(|mut request: http::Request<hyper::body::Incoming>| {
        let shared = Arc::clone(shared);
        let authority = request.uri().authority().and_then(|authority| authority.as_str().parse().ok());
        if let Some(authority) = authority {
            request.headers_mut().insert(http::header::HOST, authority);
        }
        async move { answer::answer(request, connection, true, &shared).await }
    });
    let mut server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    let _ = server.max_concurrent_streams(1000).serve_connection(TokioIo::new(stream), service).await;
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn people() -> Vec<Person> {
    let person = |id: u32, display_name: &str, job_title: &str, department: &str| {
        let name = display_name.to_lowercase().replace(' ', ".");
        Person {
            id: format!("{id:08}-1111-4222-8333-444455556666"),
            display_name: display_name.into(),
            job_title: job_title.into(),
            department: department.into(),
            mail: format!("{name}@contoso.example"),
            mobile_phone: format!("+1 425 555 01{id:02}"),
            user_principal_name: format!("{name}@contoso.example"),
        }
    };
    vec![
        person(1, "Adele Vance", "Retail Manager", "Retail"),
        person(2, "Alex Wilber", "Marketing Assistant", "Marketing"),
        person(3, "Diego Siciliani", "HR Manager", "HR"),
    ]
}

#[cfg(test)]
mod tests;
