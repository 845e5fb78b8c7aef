//! Happy Eyeballs (RFC 8305): the families take turns, attempts start 250 ms apart or as soon as one fails, the first
//! connection wins and the others are dropped.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// RFC 8305 section 5, Connection Attempt Delay.
const STAGGER: Duration = Duration::from_millis(250);
/// Addresses that are tried at most; a name may have any number of them.
const ATTEMPTS: usize = 8;

/// Connects to one of the addresses, with TCP_NODELAY. Fails with the last error when all have failed; waits as long as
/// the system does. `addresses` must not be empty.
pub(super) async fn connect(addresses: &[SocketAddr]) -> io::Result<(TcpStream, SocketAddr)> {
    let mut waiting = interleaved(addresses).into_iter();
    let mut attempts = JoinSet::new();
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    loop {
        if let Some(address) = waiting.next() {
            attempts.spawn(attempt(address));
        }
        let next = Instant::now() + STAGGER;
        tokio::select! {
            ended = attempts.join_next() => match ended {
                Some(Ok(Ok(connected))) => return Ok(connected),
                Some(Ok(Err(error))) => last = error,
                Some(Err(error)) => last = io::Error::other(error),
                None => return Err(last),
            },
            () = tokio::time::sleep_until(next), if waiting.len() > 0 => {}
        }
    }
}

async fn attempt(address: SocketAddr) -> io::Result<(TcpStream, SocketAddr)> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok((stream, address))
}

/// The families in turn, beginning with that of the first address, which the system's resolver put first (RFC 6724).
pub(super) fn interleaved(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let first_is_v4 = addresses.first().is_some_and(SocketAddr::is_ipv4);
    let (ones, others): (Vec<SocketAddr>, Vec<SocketAddr>) =
        addresses.iter().partition(|address| address.is_ipv4() == first_is_v4);
    let longer = ones.len().max(others.len());
    (0..longer).flat_map(|turn| [ones.get(turn), others.get(turn)]).flatten().copied().take(ATTEMPTS).collect()
}
