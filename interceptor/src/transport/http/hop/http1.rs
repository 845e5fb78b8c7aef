//! A connection upstream in HTTP/1.1. While it rests, hyper's side of it, 26 KiB of buffers, is gone; the stream is watched,
//! so that one that the server closes is closed here too.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Poll, ready};

use http::{Request, Response, header};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::{Driver, Metered, Unanswered};
use crate::config::Limits;
use crate::transport::dial::Stream;

#[derive(Debug)]
pub(super) struct Http1 {
    builder: Builder,
    /// None while it rests.
    sender: Option<SendRequest<Metered>>,
    /// What drives it, and watches it while it rests; gives the stream back to who wants it. None once it is over.
    task: Option<JoinHandle<Option<Stream>>>,
    driver: Driver,
    asked: Rc<Asked>,
}

/// What is asked of the task.
#[derive(Debug, Default)]
struct Asked {
    /// That the stream is kept when hyper's side ends.
    rest: Cell<bool>,
    /// The stream back, for the rest is over.
    back: Notify,
    /// That a change of protocols may follow.
    upgrades: Cell<bool>,
}

/// As many header fields hyper reads without allocating for each message: the number that it comes with.
const UNALLOCATED: usize = 100;

impl Http1 {
    /// # Errors
    /// When the connection ended before the first request.
    pub(super) async fn over(stream: Stream, limits: &Limits) -> hyper::Result<Http1> {
        let mut builder = Builder::new();
        builder.preserve_header_case(true).max_buf_size(limits.header_bytes);
        if limits.header_fields != UNALLOCATED {
            builder.max_headers(limits.header_fields);
        }
        let asked = Rc::<Asked>::default();
        let (sender, task) = begin(&builder, stream, &asked).await?;
        Ok(Http1 { builder, sender: Some(sender), driver: Driver::of(&task), task: Some(task), asked })
    }

    pub(super) async fn is_open(&mut self) -> bool {
        if let Some(sender) = &mut self.sender {
            return sender.ready().await.is_ok();
        }
        self.wake().await.is_some()
    }

    /// hyper ends its side when the sender is gone.
    pub(super) fn rest(&mut self) {
        self.asked.rest.set(true);
        self.sender = None;
    }

    /// Gives hyper the stream again, unless the server has closed it, or has said what nobody asked for.
    async fn wake(&mut self) -> Option<()> {
        let task = self.task.as_mut()?;
        self.asked.back.notify_one();
        let stream = task.await;
        self.task = None;
        self.asked.rest.set(false);
        let (sender, task) = begin(&self.builder, stream.ok()??, &self.asked).await.ok()?;
        (self.sender, self.driver, self.task) = (Some(sender), Driver::of(&task), Some(task));
        Some(())
    }

    pub(super) async fn send(&mut self, request: Request<Metered>) -> Result<Response<Incoming>, Unanswered> {
        let Some(sender) = &mut self.sender else { return Err(Unanswered::Closed(Box::new(request))) };
        if request.headers().contains_key(header::UPGRADE) {
            self.asked.upgrades.set(true);
        }
        sender.try_send_request(request).await.map_err(|broken| Unanswered::Broken(Box::new(broken)))
    }
}

async fn begin(
    builder: &Builder,
    stream: Stream,
    asked: &Rc<Asked>,
) -> hyper::Result<(SendRequest<Metered>, JoinHandle<Option<Stream>>)> {
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
    let (connection, asked) = (Box::new(connection), Rc::clone(asked));
    let task = tokio::task::spawn_local(async move {
        let mut stream = drive(connection, &asked).await?;
        if asked.rest.get() {
            return watch(stream, &asked).await;
        }
        // Over, and said so to the server; it may be gone already.
        let _told = stream.shutdown().await;
        None
    });
    Ok((sender, task))
}

/// Drives hyper's side until it ends. Gives the stream where that is as it was between two requests, as far as hyper
/// knows. What ends the connection reaches the request that was under way; there is nobody else to tell.
async fn drive(connection: Box<Connection<TokioIo<Stream>, Metered>>, asked: &Asked) -> Option<Stream> {
    let (mut plain, mut upgradable) = (Some(connection), None);
    poll_fn(|cx| {
        if asked.upgrades.get()
            && let Some(connection) = plain.take()
        {
            upgradable = Some(Box::new(connection.with_upgrades()));
        }
        if let Some(connection) = &mut upgradable {
            return Pin::new(connection).poll(cx).map(|_ended| None);
        }
        let Some(connection) = &mut plain else { return Poll::Ready(None) };
        let ended = ready!(connection.poll_without_shutdown(cx));
        let parts = plain.take().map(|connection| connection.into_parts());
        let whole = parts.filter(|parts| ended.is_ok() && parts.read_buf.is_empty());
        Poll::Ready(whole.map(|parts| parts.io.into_inner()))
    })
    .await
}

/// Watches a stream at rest until it is wanted back.
async fn watch(mut stream: Stream, asked: &Asked) -> Option<Stream> {
    tokio::select! {
        biased;
        () = poll_fn(|cx| stream.poll_readable(cx)) => None,
        () = asked.back.notified() => Some(stream),
    }
}
