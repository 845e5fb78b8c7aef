//! Ports that are written down before somebody listens at them.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// The first of them. They are below what the kernel gives out by itself (ip_local_port_range, ip(7)): nobody else gets one
/// between the moment when it is free and the one when it is listened at.
const FIRST: u16 = 10_000;
const COUNT: u16 = 20_000;

/// A port of 127.0.0.1 that is free, and stays so until it is used. Each call gives another one.
///
/// # Errors
/// None is.
pub fn free() -> io::Result<u16> {
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    // Processes that run at the same time are some ports apart.
    let own = u16::try_from(u64::from(std::process::id()) * 16 % u64::from(COUNT)).unwrap_or_default();
    for _ in 0..COUNT {
        let port = FIRST + (own + GIVEN.fetch_add(1, Ordering::Relaxed) % COUNT) % COUNT;
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(_is_free) => return Ok(port),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}
