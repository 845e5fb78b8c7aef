//! sslsplit: the one peer that intercepts, with leaves minted by an authority. It passes bytes on and reads no HTTP, so
//! it has no HTTP/2 to speak.

use std::net::SocketAddr;
use std::process::Command;

use super::{Site, which};

/// How it is started.
pub(super) fn command(site: &Site, place: SocketAddr) -> Command {
    let mut command = Command::new(which("sslsplit").unwrap_or_else(|| "sslsplit".into()));
    command
        .args(["-u", "root", "-k"])
        .arg(site.pki.ca_key())
        .arg("-c")
        .arg(site.pki.ca())
        .arg("-K")
        .arg(site.pki.leaf_key())
        .args(["ssl", &place.ip().to_string(), &place.port().to_string()])
        .args([site.origin.ip().to_string(), site.origin.port().to_string()]);
    command
}
