//! nginx as a TLS reverse proxy. It speaks HTTP/1.1 upstream, whatever the client speaks, and pools connections there.

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
    let (pki, origin, room) = (&site.pki, site.origin, folder.display());
    let config = format!(
        r#"daemon off;
user root;
worker_processes {cores};
worker_rlimit_nofile 65536;
pid {room}/pid;
error_log stderr crit;
events {{ worker_connections 16384; }}
http {{
    access_log off;
    client_body_temp_path {room}/body;
    proxy_temp_path {room}/proxy;
    fastcgi_temp_path {room}/fastcgi;
    uwsgi_temp_path {room}/uwsgi;
    scgi_temp_path {room}/scgi;
    keepalive_timeout 300s;
    keepalive_requests 1000000000;
    http2_max_concurrent_streams 1000;
    upstream origin {{
        server {origin};
        keepalive 256;
        keepalive_requests 1000000000;
        keepalive_timeout 300s;
    }}
    server {{
        listen {place} ssl http2;
        ssl_certificate {leaf};
        ssl_certificate_key {key};
        ssl_protocols TLSv1.2 TLSv1.3;
        location / {{
            proxy_pass https://origin;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_ssl_server_name on;
            proxy_ssl_name {HOST};
            proxy_ssl_protocols TLSv1.3;
            proxy_ssl_verify on;
            proxy_ssl_trusted_certificate {ca};
            proxy_max_temp_file_size 0;
        }}
    }}
}}
"#,
        cores = cores(),
        leaf = pki.leaf().display(),
        key = pki.leaf_key().display(),
        ca = pki.ca().display(),
    );
    let path = folder.join("nginx.conf");
    fs::write(&path, config)?;
    let mut command = Command::new(which("nginx").unwrap_or_else(|| "nginx".into()));
    command.arg("-p").arg(folder).arg("-c").arg(path).args(["-e", "stderr"]);
    Ok(command)
}
