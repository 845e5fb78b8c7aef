//! mitmproxy as a reverse proxy in TLS: the intercepting proxy that everybody knows.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::{Site, which};
use crate::pki::HOST;

/// How it is started.
pub(super) fn command(site: &Site, folder: &Path, place: SocketAddr) -> Result<Command> {
    let authority = fs::read_to_string(site.pki.ca_key())? + &fs::read_to_string(site.pki.ca())?;
    fs::write(folder.join("mitmproxy-ca.pem"), authority)?;
    let mut command = Command::new(which("mitmdump").unwrap_or_else(|| "mitmdump".into()));
    command
        .args(["--quiet", "--mode", &format!("reverse:https://{}", site.origin)])
        .args(["--listen-host", &place.ip().to_string(), "--listen-port", &place.port().to_string()])
        .args(["--set", &format!("confdir={}", folder.display()), "--set", "keep_host_header=true"])
        .args(["--set", "stream_large_bodies=1m", "--set", "ssl_insecure=true"])
        .args(["--certs", &format!("{HOST}={}", site.pki.both().display())]);
    Ok(command)
}
