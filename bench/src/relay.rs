//! The physical limit: TLS in, TLS out, and bytes copied between them on one core. No proxy that ends TLS can do less.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::Args;
use rustls::pki_types::ServerName;
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::{pki, spread, tls};

/// What is copied at once.
const PIECE: usize = 64 * 1024;

/// Where it stands.
#[derive(Args)]
pub(crate) struct Options {
    /// The folder with certificates and keys.
    #[arg(long)]
    pki: PathBuf,
    /// The origin.
    #[arg(long)]
    to: SocketAddr,
    /// How many threads serve.
    #[arg(long)]
    threads: usize,
}

/// Relays until it is killed.
pub(crate) fn serve(options: &Options) -> Result<()> {
    let folder = pki::Folder::at(&options.pki);
    let acceptor = TlsAcceptor::from(tls::server(&folder.leaf(), &folder.leaf_key())?);
    let ca = folder.ca();
    let connector = |alpn: &[u8]| -> Result<TlsConnector> {
        let client = tls::Client { ca: &ca, alpn, post_quantum: true, resumes: true };
        Ok(TlsConnector::from(client.config()?))
    };
    let ends = Arc::new((acceptor, connector(b"http/1.1")?, connector(b"h2")?));
    let (to, name) = (options.to, ServerName::try_from(pki::HOST).context("a host name")?);
    spread::serve(options.threads, move || {
        let (ends, name) = (Arc::clone(&ends), name.clone());
        move |stream| {
            let (ends, name) = (Arc::clone(&ends), name.clone());
            async move {
                // Who goes away early is no concern of the relay.
                let _ = relay(&ends, name, to, stream).await;
            }
        }
    })
}

async fn relay(
    (acceptor, http1, http2): &(TlsAcceptor, TlsConnector, TlsConnector),
    name: ServerName<'static>,
    to: SocketAddr,
    stream: TcpStream,
) -> Result<()> {
    let mut inside = acceptor.accept(stream).await?;
    let upstream = TcpStream::connect(to).await?;
    upstream.set_nodelay(true)?;
    let connector = if inside.get_ref().1.alpn_protocol() == Some(b"h2") { http2 } else { http1 };
    let mut outside = connector.connect(name, upstream).await?;
    copy_bidirectional_with_sizes(&mut inside, &mut outside, PIECE, PIECE).await?;
    Ok(())
}
