//! DNS over UDP, answered from the address that was asked: a client drops what comes from another one.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{SocketAddr, UdpSocket as StdSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use super::{Resolver, Via};

/// The longest question; as over TCP.
const QUESTION_MAX: usize = 4096;

/// A question, with where it came from and which address was asked.
struct Datagram {
    bytes: Vec<u8>,
    from: SocketAddr,
    asked: Option<Asked>,
}

/// The address that was asked.
#[derive(Clone, Copy)]
enum Asked {
    V4(libc::in_pktinfo),
    V6(libc::in6_pktinfo),
}

pub(super) async fn serve(resolver: Arc<Resolver>, sockets: Vec<StdSocket>) -> io::Result<()> {
    let mut serving = JoinSet::new();
    for socket in sockets {
        socket.set_nonblocking(true)?;
        let socket = Arc::new(UdpSocket::from_std(socket)?);
        serving.spawn(serve_one(resolver.clone(), socket));
    }
    match serving.join_next().await {
        Some(Ok(ended)) => ended,
        Some(Err(error)) => Err(io::Error::other(error)),
        None => Ok(()),
    }
}

async fn serve_one(resolver: Arc<Resolver>, socket: Arc<UdpSocket>) -> io::Result<()> {
    let mut answering = JoinSet::new();
    loop {
        // Taken before a question is read: a workload that asks faster than it is answered fills its own socket's
        // buffer, nothing else.
        let permit = resolver.in_flight.clone().acquire_owned().await.map_err(io::Error::other)?;
        let datagram = loop {
            tokio::select! {
                // Ended answers are let go of while waiting; without this the set would only grow.
                Some(_) = answering.join_next() => {}
                datagram = receive(&socket) => break datagram?,
            }
        };
        let (resolver, socket) = (resolver.clone(), socket.clone());
        answering.spawn(async move {
            if let Some(reply) = resolver.reply(&datagram.bytes, Via::Udp).await
                && let Err(error) = send(&socket, &datagram, &reply).await
            {
                tracing::debug!(%error, launch = %resolver.workload.id, "a DNS answer couldn't be sent");
            }
            drop(permit);
        });
    }
}

/// The next question. Errors that an earlier answer left on the socket are passed over.
async fn receive(socket: &UdpSocket) -> io::Result<Datagram> {
    loop {
        match socket.async_io(Interest::READABLE, || receive_now(socket)).await {
            Ok(Some(datagram)) => return Ok(datagram),
            Ok(None) => {}
            Err(error) if is_of_peer(&error) => {}
            Err(error) => return Err(error),
        }
    }
}

/// A datagram; none if it can't be answered.
fn receive_now(socket: &UdpSocket) -> io::Result<Option<Datagram>> {
    let mut bytes = vec![0; QUESTION_MAX];
    let mut control = nix::cmsg_space!(libc::in_pktinfo, libc::in6_pktinfo);
    let mut buffers = [IoSliceMut::new(&mut bytes)];
    let received = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut buffers, Some(&mut control), MsgFlags::empty())?;
    if received.flags.contains(MsgFlags::MSG_TRUNC) {
        return Ok(None);
    }
    let Some(from) = received.address.as_ref().and_then(socket_addr) else { return Ok(None) };
    let asked = received.cmsgs()?.find_map(|message| match message {
        ControlMessageOwned::Ipv4PacketInfo(info) => Some(Asked::V4(info)),
        ControlMessageOwned::Ipv6PacketInfo(info) => Some(Asked::V6(info)),
        _ => None,
    });
    let length = received.bytes;
    bytes.truncate(length);
    Ok(Some(Datagram { bytes, from, asked }))
}

async fn send(socket: &UdpSocket, datagram: &Datagram, reply: &[u8]) -> io::Result<()> {
    let to = SockaddrStorage::from(datagram.from);
    let reply = [IoSlice::new(reply)];
    // The kernel takes the source from `ipi_spec_dst`, and the way out from its own table.
    let asked = datagram.asked.map(|asked| match asked {
        Asked::V4(info) => Asked::V4(libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: info.ipi_addr, ..info }),
        Asked::V6(info) => Asked::V6(info),
    });
    let control: Vec<ControlMessage<'_>> = asked
        .iter()
        .map(|asked| match asked {
            Asked::V4(info) => ControlMessage::Ipv4PacketInfo(info),
            Asked::V6(info) => ControlMessage::Ipv6PacketInfo(info),
        })
        .collect();
    let flags = MsgFlags::MSG_NOSIGNAL;
    socket
        .async_io(Interest::WRITABLE, || Ok(sendmsg(socket.as_raw_fd(), &reply, &control, flags, Some(&to))?))
        .await
        .map(|_| ())
}

fn socket_addr(address: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(SocketAddr::V4((*v4).into()));
    }
    address.as_sockaddr_in6().map(|v6| SocketAddr::V6((*v6).into()))
}

/// What an ICMP error to an answer leaves behind, and interruptions: nothing that ends the service.
fn is_of_peer(error: &io::Error) -> bool {
    let Some(code) = error.raw_os_error() else { return false };
    matches!(
        Errno::from_raw(code),
        Errno::ECONNREFUSED | Errno::EHOSTUNREACH | Errno::ENETUNREACH | Errno::EINTR | Errno::ENOBUFS | Errno::ENOMEM
    )
}
