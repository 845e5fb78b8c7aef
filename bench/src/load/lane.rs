//! One thread of the load: its connections, what each asks, and what is counted.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::path::Path;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{COUNT, DONE, How, Local, Options, Stage, Tally};
use crate::tls;

/// How long a loop rests after a failure.
const REST: Duration = Duration::from_millis(20);
/// How many connections of those that are held one thread makes at a time.
const AT_ONCE: usize = 16;
/// How much of the first answers is shown.
const SAMPLE: usize = 1024;
/// The windows of HTTP/2: large enough that the client never is what holds an answer up.
const WINDOW: u32 = 4 << 20;

/// What one thread counted.
#[derive(Debug, Default)]
pub(super) struct Counts {
    answered: u64,
    bytes: u64,
    sent: u64,
    failed: u64,
    fault: Option<String>,
    /// Nanoseconds.
    times: Vec<u64>,
    sample: Vec<u8>,
}

impl Counts {
    pub(super) fn add(&mut self, other: Counts) {
        self.answered += other.answered;
        self.bytes += other.bytes;
        self.sent += other.sent;
        self.failed += other.failed;
        self.fault = self.fault.take().or(other.fault);
        self.times.extend(other.times);
        if self.sample.is_empty() {
            self.sample = other.sample;
        }
    }

    /// Why the first one failed.
    pub(super) fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    pub(super) fn tally(mut self, spent: Duration) -> Tally {
        self.times.sort_unstable();
        let at = |share: f64| {
            let place = (self.times.len() as f64 * share) as usize;
            self.times.get(place.min(self.times.len().saturating_sub(1))).map_or(0.0, |time| *time as f64 / 1000.0)
        };
        Tally {
            seconds: spent.as_secs_f64(),
            answered: self.answered,
            bytes: self.bytes,
            sent: self.sent,
            failed: self.failed,
            fault: self.fault,
            p50: at(0.5),
            p99: at(0.99),
            sample: String::from_utf8_lossy(&self.sample).into_owned(),
        }
    }
}

/// One thread of the load.
pub(super) struct Lane {
    number: usize,
    options: Options,
    address: SocketAddr,
    name: ServerName<'static>,
    tls: TlsConnector,
    bearer: Option<HeaderValue>,
    stage: Arc<Stage>,
    counts: RefCell<Counts>,
    asked: Cell<u64>,
    turns: Semaphore,
}

type Body = Empty<Bytes>;

impl Lane {
    /// One that asks at `address`, and trusts the authorities of `ca`.
    pub(super) fn new(
        number: usize,
        options: &Options,
        (address, ca): (SocketAddr, &Path),
        bearer: Option<&str>,
        stage: Arc<Stage>,
    ) -> Result<Self> {
        let alpn: &[u8] = if options.how == How::Http2 { b"h2" } else { b"http/1.1" };
        let client = tls::Client { ca, alpn, post_quantum: !options.classic, resumes: false };
        Ok(Self {
            number,
            options: options.clone(),
            address,
            name: ServerName::try_from(options.host.clone())?,
            tls: TlsConnector::from(client.config()?),
            bearer: bearer.map(|token| HeaderValue::try_from(format!("Bearer {token}"))).transpose()?,
            stage,
            counts: RefCell::default(),
            asked: Cell::new(0),
            turns: Semaphore::new(AT_ONCE),
        })
    }

    /// Asks on so many connections until it is done.
    pub(super) async fn run(self, connections: usize) -> Counts {
        let lane = Rc::new(self);
        let loops: Vec<JoinHandle<()>> = (0..connections)
            .map(|_| {
                let lane = Rc::clone(&lane);
                tokio::task::spawn_local(async move { lane.keep_on().await })
            })
            .collect();
        for one in loops {
            // A panic has been printed.
            let _ = one.await;
        }
        lane.counts.take()
    }

    fn phase(&self) -> u8 {
        self.stage.phase.load(Ordering::Relaxed)
    }

    fn is_done(&self) -> bool {
        self.phase() == DONE
    }

    fn failed(&self, error: &anyhow::Error) {
        let mut counts = self.counts.borrow_mut();
        counts.failed += 1;
        counts.fault.get_or_insert_with(|| format!("{error:#}"));
    }

    /// One connection after the other: the next when one ends.
    async fn keep_on(self: Rc<Self>) {
        let stands = Cell::new(false);
        let ready = || {
            if !stands.replace(true) {
                self.stage.ready.fetch_add(1, Ordering::Relaxed);
            }
        };
        while !self.is_done() {
            let ended = match self.options.how {
                How::Http1 => self.http1(&ready).await,
                How::Http2 => self.http2(&ready).await,
                How::Connect => self.anew(&ready).await,
                How::Hold => self.hold(&ready).await,
            };
            if let Err(error) = ended {
                self.failed(&error);
                if !stands.get() {
                    self.stage.broken.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                tokio::time::sleep(REST).await;
            }
        }
    }

    async fn connect(&self) -> Result<TokioIo<TlsStream<TcpStream>>> {
        let stream = TcpStream::connect(self.address).await.context("can't connect")?;
        stream.set_nodelay(true)?;
        Ok(TokioIo::new(self.tls.connect(self.name.clone(), stream).await.context("no TLS")?))
    }

    async fn http1(&self, ready: &impl Fn()) -> Result<()> {
        let (mut sender, connection) = http1::handshake(self.connect().await?).await?;
        let driver = tokio::task::spawn_local(connection);
        ready();
        while !self.is_done() {
            sender.ready().await?;
            self.ask(|request| sender.send_request(request)).await?;
        }
        drop(sender);
        driver.await??;
        Ok(())
    }

    async fn http2(self: &Rc<Self>, ready: &impl Fn()) -> Result<()> {
        let (sender, connection) = http2::Builder::new(Local)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .handshake(self.connect().await?)
            .await?;
        tokio::task::spawn_local(connection);
        ready();
        let streams: Vec<_> = (0..self.options.streams)
            .map(|_| {
                let (lane, mut sender) = (Rc::clone(self), sender.clone());
                tokio::task::spawn_local(async move {
                    while !lane.is_done() {
                        sender.ready().await?;
                        lane.ask(|request| sender.send_request(request)).await?;
                    }
                    Ok::<_, anyhow::Error>(())
                })
            })
            .collect();
        for stream in streams {
            stream.await??;
        }
        Ok(())
    }

    /// A connection for one request, timed from its first packet to the end of the answer.
    async fn anew(&self, ready: &impl Fn()) -> Result<()> {
        ready();
        let start = Instant::now();
        let (mut sender, connection) = http1::handshake(self.connect().await?).await?;
        let driver = tokio::task::spawn_local(connection.without_shutdown());
        self.timed(start, self.request(), |request| sender.send_request(request)).await?;
        drop(sender);
        if let Ok(Ok(parts)) = driver.await {
            // The other side may have been first.
            let _ = parts.io.into_inner().shutdown().await;
        }
        Ok(())
    }

    async fn hold(&self, ready: &impl Fn()) -> Result<()> {
        let turn = self.turns.acquire().await?;
        let (mut sender, connection) = http1::handshake(self.connect().await?).await?;
        let driver = tokio::task::spawn_local(connection);
        self.ask(|request| sender.send_request(request)).await?;
        drop(turn);
        ready();
        // What is held must cost nothing: it wakes up at the end alone.
        let mut over = pin!(self.stage.over.notified());
        over.as_mut().enable();
        if !self.is_done() {
            tokio::select! {
                () = over => {}
                _ = driver => bail!("a connection was closed while it was held"),
            }
        }
        Ok(())
    }

    /// A request for a path that nobody has asked for before.
    fn request(&self) -> Request<Body> {
        let number = self.asked.replace(self.asked.get() + 1);
        let Options { host, path, tag, how, .. } = &self.options;
        let path = format!("/v1.0/{path}/{tag}-{}-{number}", self.number);
        let (uri, is_http2) = match how {
            How::Http2 => (format!("https://{host}{path}"), true),
            _ => (path, false),
        };
        let mut request = Request::new(Body::new());
        // The options hold names that can stand in a URI: it is a mistake of ours if not, and seen as 404.
        *request.uri_mut() = uri.parse().unwrap_or_default();
        let headers = request.headers_mut();
        if !is_http2 && let Ok(host) = host.parse() {
            headers.insert(HOST, host);
        }
        if let Some(bearer) = &self.bearer {
            headers.insert(AUTHORIZATION, bearer.clone());
        }
        request
    }

    async fn ask<F>(&self, send: impl FnOnce(Request<Body>) -> F) -> Result<()>
    where
        F: Future<Output = hyper::Result<Response<Incoming>>>,
    {
        let request = self.request();
        self.timed(Instant::now(), request, send).await
    }

    /// Sends it and takes the whole answer. An answer that isn't 200 fails, and its connection goes on.
    ///
    /// # Errors
    /// The connection broke.
    async fn timed<F>(
        &self,
        start: Instant,
        request: Request<Body>,
        send: impl FnOnce(Request<Body>) -> F,
    ) -> Result<()>
    where
        F: Future<Output = hyper::Result<Response<Incoming>>>,
    {
        let counted = self.phase() == COUNT;
        self.counts.borrow_mut().sent += 1;
        if self.options.most.is_some() {
            self.stage.sent.fetch_add(1, Ordering::Relaxed);
        }
        let response = send(request).await?;
        let status = response.status();
        let mut body = response.into_body();
        let mut length = 0;
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            length += data.len();
            let mut counts = self.counts.borrow_mut();
            if self.phase() == COUNT {
                counts.bytes += data.len() as u64;
            }
            if counts.sample.len() < SAMPLE {
                let room = SAMPLE - counts.sample.len();
                counts.sample.extend_from_slice(&data[..room.min(data.len())]);
            }
        }
        let whole = || {
            ensure!(status == StatusCode::OK, "answered {status}");
            ensure!(length > 0, "answered without a body");
            Ok(())
        };
        if let Err(error) = whole() {
            self.failed(&error);
            return Ok(());
        }
        let mut counts = self.counts.borrow_mut();
        if self.phase() == COUNT {
            counts.answered += 1;
            if counted {
                counts.times.push(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX));
            }
        }
        Ok(())
    }
}
