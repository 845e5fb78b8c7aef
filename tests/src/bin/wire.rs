//! The two ends of a connection as plain bytes: what comes in on standard input is sent, what comes back is written to
//! standard output, and how it ended to standard error (`end: eof`, `cut`, `reset` or the error). There it says as well that
//! its own end was sent (`closed`). So a test outside can say byte by byte what a client inside says.
//!
//! `wire HOST PORT clear|tls|tls-no-sni|tls=NAME|alpn=NAME,… [counting]` for one connection (`alpn` says what was agreed on;
//! `counting`, each time, how many bytes were sent so far: `sent: N`); `wire HOST PORT many=COUNT` opens that many in TLS,
//! prints how many stood, and holds them until its input ends.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

#[tokio::main]
async fn main() -> Fallible<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [host, port, how, more @ ..] = arguments.as_slice() else { return Err("HOST PORT HOW".into()) };
    let port = port.parse()?;
    let counts = more == ["counting"];
    let end = match (how.as_str(), how.split_once('=')) {
        (_, Some(("many", count))) => return many(host, port, count.parse()?).await,
        ("clear", _) => relay(connect(host, port).await?, counts).await,
        (_, Some(("tls", name))) => tls(host, port, (name, true), "http/1.1", counts).await,
        (_, Some(("alpn", names))) => tls(host, port, (host.as_str(), true), names, counts).await,
        ("tls-no-sni", _) => tls(host, port, (host.as_str(), false), "http/1.1", counts).await,
        _ => tls(host, port, (host.as_str(), true), "http/1.1", counts).await,
    };
    let end = end.map_or_else(|error| in_a_word(&error), |()| "eof".to_owned());
    writeln!(io::stderr(), "end: {end}")?;
    // A read of standard input may still be under way, and would be waited for.
    #[expect(clippy::disallowed_methods, reason = "a program, not the product")]
    std::process::exit(0)
}

fn in_a_word(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "cut".into(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => "reset".into(),
        _ => error.to_string(),
    }
}

/// The roots of the bundle that the launcher names.
fn config(sni: bool, alpn: &str) -> Fallible<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(std::env::var("SSL_CERT_FILE")?)? {
        roots.add(root?)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.enable_sni = sni;
    config.alpn_protocols = alpn.split(',').filter(|name| !name.is_empty()).map(|name| name.into()).collect();
    Ok(Arc::new(config))
}

/// What is written goes at once: what was counted as sent has left, and waits for nobody to acknowledge what went before.
async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// By this name, which is told or not.
async fn tls(host: &str, port: u16, (name, sni): (&str, bool), alpn: &str, counts: bool) -> io::Result<()> {
    let config = config(sni, alpn).map_err(|error| io::Error::other(error.to_string()))?;
    let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
    let stream = connect(host, port).await?;
    let stream = TlsConnector::from(config).connect(name, stream).await?;
    let agreed = String::from_utf8_lossy(stream.get_ref().1.alpn_protocol().unwrap_or(b"none")).into_owned();
    writeln!(io::stderr(), "alpn: {agreed}")?;
    relay(stream, counts).await
}

async fn relay<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(stream: S, counts: bool) -> io::Result<()> {
    let (mut from, mut to) = tokio::io::split(stream);
    tokio::spawn(async move {
        let mut input = tokio::io::stdin();
        let mut bytes = vec![0; 64 * 1024];
        let mut sent = 0;
        loop {
            match input.read(&mut bytes).await {
                Ok(0) | Err(_) => {
                    to.shutdown().await?;
                    return writeln!(io::stderr(), "closed");
                }
                Ok(count) => {
                    to.write_all(&bytes[..count]).await?;
                    to.flush().await?;
                    sent += count;
                    if counts {
                        writeln!(io::stderr(), "sent: {sent}")?;
                    }
                }
            }
        }
    });
    let mut output = tokio::io::stdout();
    let mut bytes = vec![0; 64 * 1024];
    loop {
        let count = from.read(&mut bytes).await?;
        if count == 0 {
            return Ok(());
        }
        output.write_all(&bytes[..count]).await?;
        output.flush().await?;
    }
}

async fn many(host: &str, port: u16, count: usize) -> Fallible<()> {
    let config = config(true, "http/1.1")?;
    let name = ServerName::try_from(host.to_owned())?;
    let mut open = Vec::new();
    for _ in 0..count {
        let connected = async {
            let stream = connect(host, port).await?;
            TlsConnector::from(Arc::clone(&config)).connect(name.clone(), stream).await
        };
        if let Ok(Ok(stream)) = tokio::time::timeout(Duration::from_secs(10), connected).await {
            open.push(stream);
        }
    }
    writeln!(io::stdout(), "{}", open.len())?;
    tokio::task::spawn_blocking(|| io::copy(&mut io::stdin(), &mut io::sink())).await??;
    Ok(())
}
