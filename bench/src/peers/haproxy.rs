//! haproxy as a TLS reverse proxy. It speaks upstream what the client speaks, and pools connections there.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::{Site, which};
use crate::affinity::cores;
use crate::pki::HOST;

/// How it is started.
pub(super) fn command(site: &Site, folder: &Path, place: SocketAddr) -> Result<Command> {
    let (pki, origin) = (&site.pki, site.origin);
    let (both, ca) = (pki.both().display().to_string(), pki.ca().display().to_string());
    let server = |alpn: &str| {
        format!(
            "    http-reuse always\n    server origin {origin} ssl verify required ca-file {ca} sni str({HOST}) alpn {alpn}\n"
        )
    };
    let config = format!(
        r#"global
    nbthread {cores}
    maxconn 4096
    tune.h2.max-concurrent-streams 1000
defaults
    mode http
    timeout connect 10s
    timeout client 300s
    timeout server 300s
    timeout http-keep-alive 300s
frontend front
    bind {place} ssl crt {both} alpn h2,http/1.1
    use_backend http2 if {{ ssl_fc_alpn h2 }}
    default_backend http1
backend http1
{http1}backend http2
{http2}"#,
        cores = cores(),
        http1 = server("http/1.1"),
        http2 = server("h2"),
    );
    let path = folder.join("haproxy.cfg");
    fs::write(&path, config)?;
    let mut command = Command::new(which("haproxy").unwrap_or_else(|| "haproxy".into()));
    command.arg("-db").arg("-f").arg(path);
    Ok(command)
}
