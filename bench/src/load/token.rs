//! The token that a governed load brings: asked for as any client of Entra does, through the daemon, so that it is bound.

use std::net::ToSocketAddrs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::tls;

/// Posts `form` to `url` and gives the token of the answer.
pub(super) fn fetch(url: &str, form: &str, ca: &Path) -> Result<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(post(url.parse()?, form.to_owned(), ca)).with_context(|| format!("no token from {url}"))
}

async fn post(url: Uri, form: String, ca: &Path) -> Result<String> {
    let host = url.host().context("no host")?.to_owned();
    let address = (host.as_str(), url.port_u16().unwrap_or(443)).to_socket_addrs()?.next().context("no address")?;
    let client = tls::Client { ca, alpn: b"http/1.1", post_quantum: true, resumes: false };
    let stream = TcpStream::connect(address).await?;
    let stream = TlsConnector::from(client.config()?).connect(ServerName::try_from(host.clone())?, stream).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::post(url.path())
        .header(HOST, host)
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Full::new(Bytes::from(form)))?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    ensure!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&body));
    let answer: serde_json::Value = serde_json::from_slice(&body)?;
    Ok(answer["access_token"].as_str().context("the answer has no access_token")?.to_owned())
}
