//! What these tests begin with: a client of HTTP/2 whose TLS connection stands inside a workload, and whose frames are
//! made here.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use interceptor_tests::authority::Authority;
use interceptor_tests::daemon::{Daemon, GRAPH_TARGET, Order};
use interceptor_tests::graph::Graph;
use tokio::io::{AsyncBufReadExt, AsyncWrite, BufReader, join};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, ChildStderr, ChildStdin, Command};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// All of HTTP on the target, and the ways to it.
pub(crate) const ALL: &str = r#"
@id("all")
permit (principal, action in [Action::"reach", Action::"http"], resource == Target::"graph");
"#;

/// Reading, and the ways to it.
pub(crate) const READ: &str = r#"
@id("read")
permit (principal, action in [Action::"reach", Action::"http:read"], resource == Target::"graph");
"#;

/// How long a test waits for what has to come.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a test's client on a runtime of its own.
pub(crate) fn run<T>(test: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(test)
}

/// An order with the policy `policy` that brings `wire`.
pub(crate) fn order(graph: &Graph, policy: &str) -> Order {
    Order { purpose: "http2", bring: vec!["wire"], ..Order::for_graph(graph, policy) }
}

/// A daemon in front of a Graph, with the policy `policy`.
pub(crate) fn begin(policy: &str) -> Result<(Graph, Daemon)> {
    let graph = Graph::start(&[])?;
    let daemon = Daemon::start(&order(&graph, policy))?;
    Ok((graph, daemon))
}

/// Replaces the policy.
pub(crate) fn reload(daemon: &Daemon, policy: &str) -> Result<()> {
    let output = daemon.reload(policy)?;
    ensure!(output.status.success(), "the reload was refused: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// One connection of a workload.
pub(crate) struct Client {
    requests: SendRequest<Bytes>,
    driver: JoinHandle<Result<(), h2::Error>>,
    given: Arc<AtomicU64>,
    sent: Arc<AtomicU64>,
    _child: Child,
}

/// The input of the program that holds the connection. It ends with the connection, and what is written then is heard by
/// nobody, as on a connection that the other side has closed: how that ended is told by what is read. With how many bytes it was
/// given.
struct Input(ChildStdin, Arc<AtomicU64>);

fn unheard<T>(done: Poll<io::Result<T>>, otherwise: T) -> Poll<io::Result<T>> {
    match done {
        Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => Poll::Ready(Ok(otherwise)),
        done => done,
    }
}

impl AsyncWrite for Input {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = unheard(Pin::new(&mut self.0).poll_write(cx, bytes), bytes.len());
        if let Poll::Ready(Ok(count)) = written {
            self.1.fetch_add(count as u64, Ordering::Relaxed);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<io::Result<()>> {
        unheard(Pin::new(&mut self.0).poll_flush(cx), ())
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<io::Result<()>> {
        unheard(Pin::new(&mut self.0).poll_shutdown(cx), ())
    }
}

/// Notes how many bytes the program says that it has sent.
async fn count(errors: ChildStderr, sent: Arc<AtomicU64>) {
    let mut lines = BufReader::new(errors).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if let Some(count) = line.strip_prefix("sent: ").and_then(|count| count.parse().ok()) {
            sent.store(count, Ordering::Relaxed);
        }
    }
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Answer {
    /// The `code` of a problem document; empty if it isn't one.
    pub(crate) fn code(&self) -> String {
        let json: Option<serde_json::Value> = serde_json::from_slice(&self.body).ok();
        json.and_then(|json| json["code"].as_str().map(str::to_owned)).unwrap_or_default()
    }
}

/// A GET or the like for a path of graph.microsoft.com.
pub(crate) fn request(method: &str, path: &str) -> Request<()> {
    let request = Request::builder().method(method).uri(format!("https://graph.microsoft.com{path}"));
    request.body(()).expect("it is well-formed")
}

impl Client {
    /// Connects to graph.microsoft.com from inside the daemon's workload, and speaks HTTP/2.
    pub(crate) async fn open(daemon: &Daemon) -> Result<Self> {
        Self::with(daemon, &h2::client::Builder::new()).await
    }

    /// As [`Client::open`], with these settings.
    pub(crate) async fn with(daemon: &Daemon, settings: &h2::client::Builder) -> Result<Self> {
        let program = daemon.binary("wire");
        let program = program.to_str().context("a path in UTF-8")?;
        let mut command = Command::from(daemon.run(&[program, "graph.microsoft.com", "443", "alpn=h2", "counting"]));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let (output, input) = (child.stdout.take().context("its output")?, child.stdin.take().context("its input")?);
        let sent = Arc::<AtomicU64>::default();
        tokio::spawn(count(child.stderr.take().context("its errors")?, Arc::clone(&sent)));
        let given = Arc::<AtomicU64>::default();
        let (requests, connection) = settings.handshake(join(output, Input(input, Arc::clone(&given)))).await?;
        Ok(Self { requests, driver: tokio::spawn(connection), given, sent, _child: child })
    }

    /// How many bytes there were to be sent so far.
    pub(crate) fn given(&self) -> u64 {
        self.given.load(Ordering::Relaxed)
    }

    /// Waits until as many bytes were sent.
    pub(crate) async fn until_sent(&self, count: u64) -> Result<()> {
        let sent = || self.sent.load(Ordering::Relaxed);
        let deadline = Instant::now() + PATIENCE;
        while sent() < count {
            ensure!(Instant::now() < deadline, "only {} of {count} bytes were sent", sent());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    /// Waits until the daemon ends the connection, which isn't asked for.
    pub(crate) async fn is_ended(&mut self) -> Result<()> {
        // How it ended doesn't matter.
        let _ended = tokio::time::timeout(PATIENCE, &mut self.driver).await??;
        Ok(())
    }

    /// Begins a request; `last` if nothing follows its head.
    pub(crate) async fn send(&self, request: Request<()>, last: bool) -> Result<(ResponseFuture, SendStream<Bytes>)> {
        let mut requests = tokio::time::timeout(PATIENCE, self.requests.clone().ready()).await??;
        Ok(requests.send_request(request, last)?)
    }

    /// Sends a request without a body and gives the head of the answer, and what its body comes from.
    pub(crate) async fn head(&self, method: &str, path: &str) -> Result<Response<RecvStream>> {
        let (response, _) = self.send(request(method, path), true).await?;
        Ok(tokio::time::timeout(PATIENCE, response).await??)
    }

    /// Sends a request without a body and gives the whole answer.
    pub(crate) async fn ask(&self, method: &str, path: &str) -> Result<Answer> {
        self.ask_this(request(method, path)).await
    }

    /// As [`Client::ask`], with a request of any form.
    pub(crate) async fn ask_this(&self, request: Request<()>) -> Result<Answer> {
        let (response, _) = self.send(request, true).await?;
        whole(response).await
    }

    /// How the connection ends.
    pub(crate) async fn ended(self) -> Result<Result<(), h2::Error>> {
        drop(self.requests);
        Ok(tokio::time::timeout(PATIENCE, self.driver).await??)
    }
}

/// The whole answer.
pub(crate) async fn whole(response: ResponseFuture) -> Result<Answer> {
    let (parts, mut body) = tokio::time::timeout(PATIENCE, response).await??.into_parts();
    let mut bytes = Vec::new();
    while let Some(piece) = tokio::time::timeout(PATIENCE, body.data()).await? {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        bytes.extend_from_slice(&piece);
    }
    let trailers = tokio::time::timeout(PATIENCE, body.trailers()).await??;
    Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body: bytes, trailers })
}

/// The next piece of a body that isn't empty; none at its end.
pub(crate) async fn piece(body: &mut RecvStream) -> Result<Option<Bytes>> {
    loop {
        let Some(piece) = tokio::time::timeout(PATIENCE, body.data()).await? else { return Ok(None) };
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        if !piece.is_empty() {
            return Ok(Some(piece));
        }
    }
}

/// A server of HTTP/2 that does what a script says; each connection runs it. It ends with this.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    ca: String,
    connections: Arc<AtomicU64>,
    _stop: oneshot::Sender<()>,
}

/// One connection to it.
pub(crate) type Accepted = tokio_rustls::server::TlsStream<TcpStream>;

impl Upstream {
    /// Starts it on a free port of 127.0.0.1; the script gets a connection and its number, from 1.
    pub(crate) fn start<F, Served>(script: F) -> Result<Self>
    where
        F: Fn(Accepted, u64) -> Served + Send + Sync + 'static,
        Served: Future<Output = Result<()>> + Send + 'static,
    {
        let authority = Authority::new()?;
        let mut tls = rustls::ServerConfig::clone(&*authority.server(&["graph.microsoft.com"])?);
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let connections = Arc::<AtomicU64>::default();
        let (stop, stopped) = oneshot::channel::<()>();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let count = Arc::clone(&connections);
        std::thread::spawn(move || {
            let serve = async {
                let Ok(listener) = TcpListener::from_std(listener) else { return };
                while let Ok((stream, _)) = listener.accept().await {
                    let number = count.fetch_add(1, Ordering::Relaxed) + 1;
                    if let Ok(stream) = acceptor.accept(stream).await {
                        tokio::spawn(script(stream, number));
                    }
                }
            };
            runtime.block_on(async {
                tokio::select! {
                    () = serve => {}
                    _ = stopped => {}
                }
            });
        });
        Ok(Self { address, ca: authority.pem(), connections, _stop: stop })
    }

    /// A daemon in front of it, with the policy [`ALL`].
    pub(crate) fn daemon(&self) -> Result<Daemon> {
        Daemon::start(&self.order(ALL))
    }

    /// An order of a daemon in front of it, with the policy `policy`.
    pub(crate) fn order(&self, policy: &str) -> Order {
        Order {
            purpose: "http2",
            policy: policy.to_owned(),
            resolve: vec![("graph.microsoft.com".to_owned(), self.address)],
            extra_ca: self.ca.clone(),
            targets: GRAPH_TARGET.to_owned(),
            more: String::new(),
            workload: String::new(),
            bring: vec!["wire"],
        }
    }

    /// How many connections came.
    pub(crate) fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }
}
