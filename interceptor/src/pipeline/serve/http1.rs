//! hyper's side of a client's connection in HTTP/1.1. It is gone while the connection rests, with its 16 KiB of buffers, and
//! so is the one upstream: a connection that idles costs its two streams.

use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::server::conn::http1::{Builder, Connection, UpgradeableConnection};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, Sleep, sleep};

use super::super::live::Live;
use super::{Answers, Ended, Graceful};
use crate::transport::http::http1_server;
use crate::transport::sever::{Client, Severed};

/// How long nothing has to happen before a connection rests; less than any `idle_timeout`.
const TIRED: Duration = Duration::from_millis(20);

pub(super) struct Http1 {
    live: Rc<Live>,
    builder: Builder,
    idle_timeout: Duration,
    state: State,
    /// While it is awake: when to see whether it may rest. While it rests: the end of its time.
    timer: Pin<Box<Sleep>>,
    /// When it was last woken.
    woken: Instant,
    /// Whether it ends because nothing was asked for too long.
    idle: bool,
}

enum State {
    Awake(Box<Connection<TokioIo<Severed>, Answers>>),
    /// It becomes a WebSocket.
    Upgradable(Box<UpgradeableConnection<TokioIo<Severed>, Answers>>),
    Asleep(Severed),
    Over,
}

impl Http1 {
    pub(super) fn new(live: Rc<Live>, stream: Client) -> Self {
        let limits = live.session().limits();
        let stream = Severed::new(stream, Arc::clone(live.line()));
        let mut connection = Self {
            builder: http1_server(&limits),
            idle_timeout: limits.idle_timeout,
            state: State::Asleep(stream),
            timer: Box::pin(sleep(TIRED)),
            woken: Instant::now(),
            idle: false,
            live,
        };
        connection.wake();
        connection
    }

    fn wake(&mut self) {
        self.state = match mem::replace(&mut self.state, State::Over) {
            State::Asleep(stream) => {
                self.woken = Instant::now();
                self.timer.as_mut().reset(self.woken + TIRED);
                self.live.line().listen();
                self.live.watch_client(stream.tcp());
                let service = Answers::Served(Rc::clone(&self.live));
                State::Awake(Box::new(self.builder.serve_connection(TokioIo::new(stream), service)))
            }
            state => state,
        };
    }

    /// Whether it is time to rest. hyper has to be between two requests for that, or before the first with nothing of it
    /// come: in the middle of a head it would take the connection for one that ends with that request.
    fn is_tired(&mut self, cx: &mut Context<'_>) -> bool {
        while self.timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            let line = self.live.line();
            let again = match self.live.idle_since() {
                Some(since) if since.max(self.woken) + TIRED > now => since.max(self.woken) + TIRED,
                Some(since) if (since > self.woken || !line.has_heard()) && line.is_flushed() => {
                    return true;
                }
                _ => now + TIRED,
            };
            self.timer.as_mut().reset(again);
        }
        false
    }

    /// Takes the stream from hyper. Half a head that came already is read again.
    fn lie_down(&mut self) {
        self.state = match mem::replace(&mut self.state, State::Over) {
            State::Awake(connection) => {
                let parts = connection.into_parts();
                let mut stream = parts.io.into_inner();
                // An empty rest would hold the whole buffer.
                if !parts.read_buf.is_empty() {
                    stream.unread(parts.read_buf);
                }
                self.timer.as_mut().reset(Instant::now() + self.idle_timeout.saturating_sub(TIRED));
                self.live.rest();
                State::Asleep(stream)
            }
            state => state,
        };
    }
}

impl Future for Http1 {
    type Output = hyper::Result<Ended>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        loop {
            match &mut this.state {
                State::Awake(_) if this.live.is_joined() => {
                    this.state = match mem::replace(&mut this.state, State::Over) {
                        State::Awake(connection) => State::Upgradable(Box::new(connection.with_upgrades())),
                        state => state,
                    };
                }
                State::Awake(connection) => {
                    if let Poll::Ready(ended) = Pin::new(connection).poll(cx) {
                        return Poll::Ready(ended.map(|()| if this.idle { Ended::Idle } else { Ended::Over }));
                    }
                    if !this.is_tired(cx) {
                        return Poll::Pending;
                    }
                    let State::Awake(connection) = &mut this.state else { continue };
                    Pin::new(connection.as_mut()).graceful_shutdown();
                    ready!(connection.poll_without_shutdown(cx))?;
                    this.lie_down();
                }
                State::Upgradable(connection) => {
                    return Pin::new(connection).poll(cx).map_ok(|()| Ended::Over);
                }
                State::Asleep(stream) => {
                    if stream.poll_readable(cx).is_ready() {
                        this.wake();
                        continue;
                    }
                    ready!(this.timer.as_mut().poll(cx));
                    this.idle = true;
                    Pin::new(&mut *this).shut_down();
                }
                State::Over => return Poll::Ready(Ok(Ended::Over)),
            }
        }
    }
}

impl Graceful for Http1 {
    fn shut_down(self: Pin<&mut Self>) {
        let this = self.get_mut();
        this.wake();
        match &mut this.state {
            State::Awake(connection) => Pin::new(connection.as_mut()).graceful_shutdown(),
            State::Upgradable(connection) => Pin::new(connection.as_mut()).graceful_shutdown(),
            State::Asleep(_) | State::Over => {}
        }
    }
}
