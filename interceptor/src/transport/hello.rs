//! The TLS handshake with a workload: the ClientHello is read and told apart from the rest, so that the certificate and
//! the protocol can be chosen before the answer. Also the two ways to refuse where no protocol can carry an answer.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::server::{Accepted, AcceptedAlert, Acceptor};
use rustls::{AlertDescription, InvalidMessage, PeerMisbehaved, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::server::{StartHandshake, TlsStream};

use crate::config::Hostname;

mod sni;

/// The most bytes that a ClientHello may take, with its record headers.
pub const HELLO_MAX: usize = 64 * 1024;

/// How long and how far a refused client's bytes are still read, so that our alert isn't overtaken by a reset.
const LINGER: Duration = Duration::from_millis(500);
const LINGER_BYTES: usize = HELLO_MAX;

/// Why there is no TLS connection with the workload.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// It took too long.
    #[error("the TLS handshake wasn't finished in time")]
    Timeout,
    /// The ClientHello is longer than [`HELLO_MAX`].
    #[error("the ClientHello is longer than 64 KiB")]
    TooLong,
    /// The bytes aren't a ClientHello.
    #[error("that is no TLS ClientHello")]
    NotTls(#[source] rustls::Error),
    /// The server name is an address, or isn't a host name.
    #[error("the ClientHello's server name isn't a DNS host name")]
    ServerName,
    /// The client doesn't take our certificate: it doesn't know the authority, or it pins another one.
    #[error(
        "the client refused the certificate with `{0:?}`; it has roots of its own that lack Interceptor's authority"
    )]
    ClientRefusedCertificate(AlertDescription),
    /// The client gave up with another alert.
    #[error("the client ended the TLS handshake with `{0:?}`")]
    ClientAlert(AlertDescription),
    /// The connection ended or broke.
    #[error("the connection ended before the TLS handshake did")]
    Gone(#[source] io::Error),
    /// The handshake failed for another reason, such as no version or cipher suite in common.
    #[error("the TLS handshake failed")]
    Tls(#[source] rustls::Error),
}

/// A ClientHello that was read and isn't answered yet.
pub struct Hello {
    stream: TcpStream,
    accepted: Accepted,
    server_name: Option<Hostname>,
    alpn: Vec<Vec<u8>>,
}

/// Reads a ClientHello of at most [`HELLO_MAX`] bytes, in however many records and segments, within the given time.
///
/// On an error the stream has been refused already: with the alert that fits, or a reset.
pub async fn read(mut stream: TcpStream, within: Duration) -> Result<Hello, HandshakeError> {
    let deadline = Instant::now() + within;
    let mut raw = Vec::with_capacity(2048);
    match timeout_at(deadline, accept(&mut stream, &mut raw)).await {
        Ok(Ok(accepted)) => match server_name(&accepted, &raw) {
            Ok(server_name) => {
                let alpn =
                    accepted.client_hello().alpn().map_or_else(Vec::new, |names| names.map(<[u8]>::to_vec).collect());
                Ok(Hello { stream, accepted, server_name, alpn })
            }
            Err(error) => {
                alert(stream, &fatal(AlertDescription::UnrecognisedName)).await;
                Err(error)
            }
        },
        Ok(Err((error, answer))) => {
            if answer.is_empty() {
                reset(stream)
            } else {
                alert(stream, &answer).await
            }
            Err(error)
        }
        Err(_) => {
            reset(stream);
            Err(HandshakeError::Timeout)
        }
    }
}

impl Hello {
    /// The name that the client asked for; none if it sent none. With Encrypted ClientHello it is the outer name.
    pub fn server_name(&self) -> Option<&Hostname> {
        self.server_name.as_ref()
    }

    /// The protocols that the client offers, in its order; empty if it sent no ALPN.
    pub fn alpn(&self) -> &[Vec<u8>] {
        &self.alpn
    }

    /// The connection.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Completes the handshake within the given time. On an error the stream has been refused already.
    pub async fn accept(
        self,
        config: Arc<ServerConfig>,
        within: Duration,
    ) -> Result<TlsStream<TcpStream>, HandshakeError> {
        // The stream is the handshake's own until it ends: if time runs out, dropping it is the reset.
        linger(&self.stream, true);
        let handshake = StartHandshake::from_parts(self.accepted, self.stream).into_stream(config).into_fallible();
        match tokio::time::timeout(within, handshake).await {
            Ok(Ok(stream)) => {
                linger(stream.get_ref().0, false);
                Ok(stream)
            }
            Ok(Err((error, stream))) => {
                let error = failed(error);
                // rustls has sent its alert, if there was one to send; a client that is there still may be reading it.
                if matches!(error, HandshakeError::Tls(_)) {
                    alert(stream, &[]).await
                } else {
                    reset(stream)
                }
                Err(error)
            }
            Err(_) => Err(HandshakeError::Timeout),
        }
    }

    /// Refuses the client with the alert access_denied.
    pub async fn deny(self) {
        deny_tls(self.stream).await;
    }
}

/// Refuses a TLS client that can't be answered otherwise: sends the fatal alert access_denied (49, RFC 8446 section 6.2)
/// and closes.
pub async fn deny_tls(stream: TcpStream) {
    alert(stream, &fatal(AlertDescription::AccessDenied)).await;
}

/// Ends a connection with a reset, never a clean FIN: what was sent so far can't be taken for a whole.
pub fn reset(stream: TcpStream) {
    linger(&stream, true);
}

type Refusal = (HandshakeError, Vec<u8>);

async fn accept(stream: &mut TcpStream, raw: &mut Vec<u8>) -> Result<Accepted, Refusal> {
    let mut acceptor = Acceptor::default();
    let mut buffer = [0; 4096];
    loop {
        let count = stream.read(&mut buffer).await.map_err(|error| (HandshakeError::Gone(error), Vec::new()))?;
        if count == 0 {
            return Err((HandshakeError::Gone(io::ErrorKind::UnexpectedEof.into()), Vec::new()));
        }
        if raw.len() + count > HELLO_MAX {
            return Err((HandshakeError::TooLong, fatal(AlertDescription::RecordOverflow).to_vec()));
        }
        raw.extend_from_slice(&buffer[..count]);
        let mut rest = &buffer[..count];
        while !rest.is_empty() {
            // It fails only when its own buffer is full of one message.
            acceptor.read_tls(&mut rest).map_err(|_| (HandshakeError::TooLong, Vec::new()))?;
            match acceptor.accept() {
                Ok(None) => {}
                Ok(Some(accepted)) if rest.is_empty() => return Ok(accepted),
                // What follows the ClientHello would be lost; no client sends that much before our answer.
                Ok(Some(_)) => return Err((HandshakeError::TooLong, Vec::new())),
                Err((error, answer)) => return Err((refused(error), written(answer))),
            }
        }
    }
}

/// The server name, which rustls passes over if it is an address.
fn server_name(accepted: &Accepted, raw: &[u8]) -> Result<Option<Hostname>, HandshakeError> {
    match accepted.client_hello().server_name() {
        Some(name) => name.parse().map(Some).map_err(|_| HandshakeError::ServerName),
        None if sni::is_present(raw) => Err(HandshakeError::ServerName),
        None => Ok(None),
    }
}

/// What an error before the ClientHello was complete means.
fn refused(error: rustls::Error) -> HandshakeError {
    match error {
        rustls::Error::InvalidMessage(InvalidMessage::HandshakePayloadTooLarge) => HandshakeError::TooLong,
        rustls::Error::PeerMisbehaved(PeerMisbehaved::ServerNameMustContainOneHostName) => HandshakeError::ServerName,
        rustls::Error::AlertReceived(alert) => HandshakeError::ClientAlert(alert),
        rustls::Error::PeerIncompatible(_) | rustls::Error::PeerMisbehaved(_) => HandshakeError::Tls(error),
        error => HandshakeError::NotTls(error),
    }
}

/// What an error after the ClientHello means.
fn failed(error: io::Error) -> HandshakeError {
    use AlertDescription as Alert;
    let kind = error.kind();
    match error.into_inner().map(|inner| inner.downcast::<rustls::Error>()) {
        Some(Ok(inner)) => match *inner {
            rustls::Error::AlertReceived(
                alert @ (Alert::UnknownCA
                | Alert::BadCertificate
                | Alert::CertificateUnknown
                | Alert::UnsupportedCertificate
                | Alert::CertificateExpired
                | Alert::CertificateRevoked),
            ) => HandshakeError::ClientRefusedCertificate(alert),
            rustls::Error::AlertReceived(alert) => HandshakeError::ClientAlert(alert),
            error => HandshakeError::Tls(error),
        },
        Some(Err(inner)) => HandshakeError::Gone(io::Error::new(kind, inner)),
        None => HandshakeError::Gone(kind.into()),
    }
}

fn written(mut answer: AcceptedAlert) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A Vec takes all that is written to it.
    drop(answer.write_all(&mut bytes));
    bytes
}

/// A fatal alert in a plaintext record of its own.
fn fatal(description: AlertDescription) -> [u8; 7] {
    [21, 3, 3, 0, 2, 2, u8::from(description)]
}

/// Sends an alert and closes. A close with bytes unread would be a reset, and could overtake the alert, so the client's
/// bytes are read for a moment.
async fn alert(mut stream: TcpStream, alert: &[u8]) {
    let sent = async {
        stream.write_all(alert).await?;
        stream.shutdown().await?;
        let mut left = LINGER_BYTES;
        let mut buffer = [0; 2048];
        while left > 0 {
            match stream.read(&mut buffer).await? {
                0 => return Ok::<_, io::Error>(()),
                count => left = left.saturating_sub(count),
            }
        }
        Ok(())
    };
    if !matches!(tokio::time::timeout(LINGER, sent).await, Ok(Ok(()))) {
        reset(stream);
    }
}

/// Whether closing is a reset (SO_LINGER of 0 seconds) or, as by default, a FIN after what is unsent.
fn linger(stream: &TcpStream, resets: bool) {
    let option = libc::linger { l_onoff: i32::from(resets), l_linger: 0 };
    if let Err(error) = nix::sys::socket::setsockopt(stream, nix::sys::socket::sockopt::Linger, &option) {
        tracing::debug!(%error, "a connection's way of closing couldn't be set");
    }
}

#[cfg(test)]
mod tests;
