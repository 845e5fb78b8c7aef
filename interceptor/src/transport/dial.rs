//! Reaching an upstream: the target's name is resolved here, by the daemon, never taken from the address that the
//! workload connected to; then TCP by Happy Eyeballs (RFC 8305), then TLS, verified. One upstream connection for each of
//! the workload's; nothing is pooled.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ClientConfig;
use rustls::sign::SingleCertAndKey;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config::{self, Host, Hostname};
use crate::transport::names::Names;
use crate::transport::trust::{Roots, TrustError};
use crate::vault::Vault;

mod fault;
mod happy;
pub mod lookup;

pub use fault::DialError;
pub use lookup::{Found, Looking, Lookup, LookupError};

use lookup::HostResolver;

/// Reaches upstreams.
#[derive(Clone)]
pub struct Dialer {
    resolve: Arc<BTreeMap<Host, SocketAddr>>,
    resolver: HostResolver,
    tls: Arc<ClientConfig>,
    vault: Arc<Vault>,
}

/// A connection to an upstream.
#[derive(Debug)]
pub struct Upstream {
    /// The bytes; inside TLS, if it was asked for.
    pub stream: Stream,
    /// The protocol that the upstream chose by ALPN.
    pub alpn: Option<Vec<u8>>,
    /// The address that was reached.
    pub peer: SocketAddr,
}

/// The bytes to and from an upstream.
#[derive(Debug)]
pub enum Stream {
    /// In clear.
    Plain(TcpStream),
    /// In TLS, with a verified peer.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Dialer {
    /// Reads the roots that upstreams are verified against; fails when there are none.
    pub fn new(upstream: &config::Upstream) -> Result<Dialer, TrustError> {
        Dialer::with_roots(upstream, &Roots::load(upstream)?)
    }

    /// As [`Dialer::new`], with roots that were read already.
    pub fn with_roots(upstream: &config::Upstream, roots: &Roots) -> Result<Dialer, TrustError> {
        Ok(Dialer {
            resolve: Arc::new(upstream.resolve.clone()),
            resolver: HostResolver::new(),
            tls: Arc::new(roots.client_config()?),
            vault: Arc::default(),
        })
    }

    /// The same, with the client certificates of this vault's targets.
    #[must_use]
    pub fn with_vault(self, vault: Arc<Vault>) -> Self {
        Self { vault, ..self }
    }

    /// The same, but verifying against these roots, and without client certificates.
    ///
    /// # Errors
    /// When rustls refuses them.
    pub fn verifying(&self, roots: &Roots) -> Result<Dialer, TrustError> {
        Ok(Self { tls: Arc::new(roots.client_config()?), vault: Arc::default(), ..self.clone() })
    }

    /// Reaches `host` within the given time, from the look-up to the end of the TLS handshake. `tls` is none for a
    /// connection in clear, else the protocols to offer (the client's own, in its order; empty for no ALPN).
    pub async fn dial(
        &self,
        host: &Host,
        port: u16,
        tls: Option<&[Vec<u8>]>,
        within: Duration,
    ) -> Result<Upstream, DialError> {
        let deadline = Instant::now() + within;
        let timeout = || DialError::Timeout { host: host.to_string(), port };
        let addresses = timeout_at(deadline, self.addresses(host, port)).await.map_err(|_| timeout())??;
        let (stream, peer) = timeout_at(deadline, happy::connect(&addresses))
            .await
            .map_err(|_| timeout())?
            .map_err(|source| DialError::of_connect(host, port, source))?;
        let Some(alpn) = tls else { return Ok(Upstream { stream: Stream::Plain(stream), alpn: None, peer }) };
        let stream = timeout_at(deadline, self.secure(host, port, stream, alpn)).await.map_err(|_| timeout())??;
        let alpn = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
        Ok(Upstream { stream: Stream::Tls(Box::new(stream)), alpn, peer })
    }

    /// Where `host` is, checked; never empty.
    async fn addresses(&self, host: &Host, port: u16) -> Result<Vec<SocketAddr>, DialError> {
        let addresses: Vec<SocketAddr> = match (self.resolve.get(host), host) {
            (Some(fixed), _) if fixed.port() == 0 => vec![SocketAddr::new(fixed.ip(), port)],
            (Some(fixed), _) => vec![*fixed],
            (None, Host::Address(address)) => vec![SocketAddr::new(*address, port)],
            (None, Host::Name(name)) => {
                let found = self.resolver.lookup(name).await.map_err(|error| DialError::of_lookup(name, error))?;
                found.into_iter().map(|address| SocketAddr::new(address, port)).collect()
            }
        };
        if let Some(address) = addresses.iter().find(|address| !may_dial(address.ip())) {
            return Err(DialError::Forbidden { host: host.to_string(), address: address.ip() });
        }
        if addresses.is_empty() {
            return Err(DialError::Unresolved { host: host.to_string() });
        }
        Ok(addresses)
    }

    async fn secure(
        &self,
        host: &Host,
        port: u16,
        stream: TcpStream,
        alpn: &[Vec<u8>],
    ) -> Result<TlsStream<TcpStream>, DialError> {
        let mut config = ClientConfig::clone(&self.tls);
        config.alpn_protocols = alpn.to_vec();
        if let Some(identity) = self.vault.identity(host, port).await? {
            config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(identity));
        }
        let name = match host {
            Host::Name(name) => ServerName::try_from(name.as_str().to_owned())
                .map_err(|_| DialError::Unresolved { host: host.to_string() })?,
            Host::Address(address) => ServerName::IpAddress((*address).into()),
        };
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|error| DialError::of_tls(host, error))
    }
}

impl Lookup for Dialer {
    fn lookup<'a>(&'a self, name: &'a Hostname) -> Looking<'a> {
        Box::pin(async move {
            match self.resolve.get(&Host::Name(name.clone())) {
                Some(fixed) => Ok(Found { addresses: vec![fixed.ip()], fixed: true }),
                None => Ok(Found { addresses: self.resolver.lookup(name).await?, fixed: false }),
            }
        })
    }
}

/// The address that each workload's `lo` has, besides loopback.
const INSIDE_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const INSIDE_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);

/// Whether an upstream can be at this address: not the synthetic ones, not those inside a workload's namespace, and
/// nothing that isn't one host.
fn may_dial(address: IpAddr) -> bool {
    let address = address.to_canonical();
    !(Names::is_synthetic(address)
        || address.is_unspecified()
        || address.is_multicast()
        || address == IpAddr::V4(Ipv4Addr::BROADCAST)
        || address == IpAddr::V4(INSIDE_V4)
        || address == IpAddr::V6(INSIDE_V6))
}

impl Stream {
    /// Whether there is something to read, or an end; takes nothing.
    pub fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Stream::Plain(stream) => stream.poll_peek(cx, &mut ReadBuf::new(&mut [0])).map(drop),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_fill_buf(cx).map(drop),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bytes),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_write_vectored(cx, bytes),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests;
