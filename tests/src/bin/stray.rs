//! Sends a marker out in every way that an unprivileged process has besides a TCP connection to a target, and says for
//! each what became of it: `sent`, or the error's number. `stray MARKER`.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpStream, UdpSocket};
use std::time::Duration;

/// Addresses for documentation (RFC 5737, RFC 3849): no one answers there, and only a stray packet names them.
const V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 77);
const V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x77);

fn main() -> io::Result<()> {
    let marker = std::env::args().nth(1).unwrap_or_default();
    let ways: [(&str, IpAddr, u16); 7] = [
        ("quic", V4.into(), 443),
        ("quic6", V6.into(), 443),
        ("ntp", V4.into(), 123),
        ("broadcast", Ipv4Addr::BROADCAST.into(), 9),
        ("multicast", Ipv4Addr::new(224, 0, 0, 251).into(), 5353),
        ("multicast6", Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb).into(), 5353),
        ("metadata", Ipv4Addr::new(169, 254, 169, 254).into(), 80),
    ];
    for (name, address, port) in ways {
        let to = match address {
            // Link-local multicast needs an interface, and `lo` is the only one.
            IpAddr::V6(group) if group.is_multicast() => SocketAddrV6::new(group, port, 0, 1).into(),
            address => SocketAddr::new(address, port),
        };
        let said = udp(to, marker.as_bytes());
        writeln!(io::stdout(), "{name} {}", errno(said))?;
    }
    for (name, address) in [("smtp", IpAddr::from(V4)), ("smtp6", V6.into())] {
        let said = TcpStream::connect_timeout(&SocketAddr::new(address, 25), Duration::from_secs(5))
            .and_then(|mut stream| stream.write_all(marker.as_bytes()).map(|()| stream));
        // Stays until the other end says no, however it says it: a connection that is gone before it was accepted is
        // nothing that the daemon could refuse.
        if let Ok(stream) = &said {
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            let _ = (&*stream).read(&mut [0]);
        }
        let said = said.map(drop);
        writeln!(io::stdout(), "{name} {}", errno(said))?;
    }
    Ok(())
}

/// Sends twice on a connected socket: what the first packet met, the second call tells (udp(7)).
fn udp(to: SocketAddr, marker: &[u8]) -> io::Result<()> {
    let any = if to.is_ipv4() { IpAddr::from(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_broadcast(true)?;
    socket.connect(to)?;
    socket.send(marker)?;
    std::thread::sleep(Duration::from_millis(20));
    socket.send(marker).map(drop)
}

fn errno(said: io::Result<()>) -> String {
    match said {
        Ok(()) => "sent".into(),
        Err(error) => error.raw_os_error().map_or_else(|| error.to_string(), |number| number.to_string()),
    }
}
