//! DNS over TCP (RFC 7766): messages with their length before them. Bounded in size, number and time.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{Resolver, Via};

/// The longest question: a name, and whatever options a client puts into EDNS.
const QUESTION_MAX: u16 = 4096;
/// How long a connection may take to send a whole question, or to take an answer.
const IDLE: Duration = Duration::from_secs(10);
/// Questions on one connection.
const QUESTIONS: usize = 1000;

pub(super) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(resolver: &Resolver, mut stream: S) {
    for _ in 0..QUESTIONS {
        if let Err(error) = exchange(resolver, &mut stream).await {
            tracing::debug!(%error, launch = %resolver.workload.id, "a DNS connection ended");
            break;
        }
    }
    // Who is gone doesn't care.
    drop(stream.shutdown().await);
}

async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(resolver: &Resolver, stream: &mut S) -> io::Result<()> {
    let question = tokio::time::timeout(IDLE, question(stream)).await??;
    let reply = {
        let _permit = resolver.in_flight.acquire().await.map_err(io::Error::other)?;
        resolver.reply(&question, Via::Tcp).await
    };
    let reply = reply.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
    let length = u16::try_from(reply.len()).map_err(io::Error::other)?;
    // In one piece: a client may read the length alone and take it for all.
    let framed = [&length.to_be_bytes()[..], &reply].concat();
    tokio::time::timeout(IDLE, stream.write_all(&framed)).await?
}

async fn question<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    if length > QUESTION_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the question is longer than 4 KiB"));
    }
    let mut question = vec![0; length.into()];
    stream.read_exact(&mut question).await?;
    Ok(question)
}
