use std::net::SocketAddr;

use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};
use tokio::net::TcpListener;
use tokio_rustls::TlsConnector;

use super::*;
use crate::clock::SystemClock;
use crate::transport::authority::Authority;
use crate::transport::trust;

const SOON: Duration = Duration::from_secs(5);

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let (client, accepted) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    let client = client.unwrap();
    client.set_nodelay(true).unwrap();
    (client, accepted.unwrap().0)
}

fn authority() -> Authority {
    let dir = tempfile::tempdir().unwrap();
    Authority::open(&dir.path().join("ca"), Arc::new(SystemClock)).unwrap()
}

fn client_config(trusted: &Authority, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots
        .add(rustls::pki_types::CertificateDer::from_pem_slice(trusted.certificate_pem().as_bytes()).unwrap())
        .unwrap();
    let mut config = ClientConfig::builder_with_provider(trust::provider())
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}

/// A real ClientHello, with X25519MLKEM768.
fn client_hello(name: &str) -> Vec<u8> {
    let config = client_config(&authority(), &[&rustls::version::TLS13, &rustls::version::TLS12]);
    let mut client = ClientConnection::new(Arc::new(config), ServerName::try_from(name.to_owned()).unwrap()).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    assert!(bytes.len() > 1400, "the hello fits one segment: no post-quantum share?");
    bytes
}

/// Reads what a client sends that then waits.
async fn read_of(bytes: &[u8]) -> (TcpStream, Result<Hello, HandshakeError>) {
    let (mut client, server) = pair().await;
    let (_, hello) = tokio::join!(client.write_all(bytes), read(server, SOON));
    (client, hello)
}

/// What a refused client still gets: bytes, or a reset.
async fn rest(mut client: TcpStream) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    client.read_to_end(&mut bytes).await.map(|_| bytes)
}

#[tokio::test]
async fn a_hello_that_comes_byte_by_byte_is_read() {
    let bytes = client_hello("graph.microsoft.com");
    let (mut client, server) = pair().await;
    let drip = async {
        for byte in &bytes {
            client.write_all(std::slice::from_ref(byte)).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let (_, hello) = tokio::join!(drip, read(server, SOON));
    let hello = hello.unwrap();
    assert_eq!(hello.server_name().unwrap().as_str(), "graph.microsoft.com");
    assert_eq!(hello.alpn(), [b"h2".to_vec(), b"http/1.1".to_vec()]);
}

#[tokio::test]
async fn a_hello_in_many_records_is_read() {
    let bytes = client_hello("graph.microsoft.com");
    let records: Vec<u8> = bytes[5..]
        .chunks(7)
        .flat_map(|part| [&[22, 3, 1, 0, u8::try_from(part.len()).unwrap()][..], part].concat())
        .collect();
    let (_client, hello) = read_of(&records).await;
    assert_eq!(hello.unwrap().server_name().unwrap().as_str(), "graph.microsoft.com");
}

#[tokio::test]
async fn a_server_name_that_is_no_host_name_is_refused() {
    let bytes = client_hello("abc.de.fg.hi");
    let at = bytes.windows(12).position(|window| window == b"abc.de.fg.hi").unwrap();
    for odd in [b"123.45.67.89", b"abc de.fg.hi", b"abc..e.fg.hi", b"abc.de.fg.12", b"abc\0de.fg.hi"] {
        let mut bytes = bytes.clone();
        bytes[at..at + 12].copy_from_slice(odd);
        let (client, hello) = read_of(&bytes).await;
        assert!(matches!(hello, Err(HandshakeError::ServerName)), "{}", odd.escape_ascii());
        let rest = rest(client).await.unwrap();
        assert_eq!(&rest[..6], [21, 3, 3, 0, 2, 2], "a fatal alert for {}", odd.escape_ascii());
    }
    // A client that connects to an address sends no name, and that is fine.
    let (_client, hello) = read_of(&client_hello("10.1.2.3")).await;
    assert_eq!(hello.unwrap().server_name(), None);
}

#[tokio::test]
async fn what_is_no_hello_is_told_apart() {
    for bytes in
        [&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], &[22, 3, 1, 0, 4, 2, 0, 0, 0], &[23, 3, 3, 0, 1, 0], &[0; 40]]
    {
        let (_client, hello) = read_of(bytes).await;
        assert!(matches!(hello, Err(HandshakeError::NotTls(_))), "{:?}: {:?}", bytes, hello.err());
    }
    let (_client, hello) = read_of(&[21, 3, 3, 0, 2, 2, 40]).await;
    assert!(matches!(hello, Err(HandshakeError::ClientAlert(_) | HandshakeError::NotTls(_))), "{:?}", hello.err());
    let (client, server) = pair().await;
    drop(client);
    assert!(matches!(read(server, SOON).await, Err(HandshakeError::Gone(_))));
}

#[tokio::test]
async fn a_hello_is_at_most_64_kib_long() {
    // It says so at once.
    let (_client, hello) = read_of(&[22, 3, 1, 0, 4, 1, 1, 0, 0]).await;
    assert!(matches!(hello, Err(HandshakeError::TooLong)), "{:?}", hello.err());
    // It stays below, but the records around it don't: two bytes in each.
    let mut bytes = vec![22, 3, 1, 0, 4, 1, 0, 0xff, 0];
    while bytes.len() <= HELLO_MAX + 7 {
        bytes.extend([22, 3, 1, 0, 2, 3, 3]);
    }
    let (_client, hello) = read_of(&bytes).await;
    assert!(matches!(hello, Err(HandshakeError::TooLong)), "{:?}", hello.err());
}

#[tokio::test(start_paused = true)]
async fn a_slow_client_is_reset() {
    let bytes = client_hello("graph.microsoft.com");
    let (mut client, server) = pair().await;
    let drip = async {
        for byte in &bytes {
            if client.write_all(std::slice::from_ref(byte)).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let start = Instant::now();
    let hello = tokio::select! {
        hello = read(server, SOON) => hello,
        () = drip => panic!("the client was let finish"),
    };
    assert!(matches!(hello, Err(HandshakeError::Timeout)), "{:?}", hello.err());
    assert_eq!(start.elapsed().as_secs(), 5);
    assert_eq!(rest(client).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn handshakes_complete_in_both_versions() {
    let authority = authority();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let (client, server) = pair().await;
        let serve = async {
            let hello = read(server, SOON).await.unwrap();
            let host = crate::config::Host::Name(hello.server_name().unwrap().clone());
            let config = authority.server_config(&host, Some(&hello.alpn()[1])).await.unwrap();
            let mut stream = hello.accept(config, SOON).await.unwrap();
            assert!(stream.get_ref().0.linger().unwrap().is_none(), "closing would reset");
            stream.write_all(b"hello").await.unwrap();
            stream.shutdown().await.unwrap();
        };
        let connector = TlsConnector::from(Arc::new(client_config(&authority, &[version])));
        let name = ServerName::try_from("graph.microsoft.com").unwrap();
        let ask = async {
            let mut stream = connector.connect(name, client).await.unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            (text, stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec))
        };
        let (_, (text, alpn)) = tokio::join!(serve, ask);
        assert_eq!((text.as_str(), alpn.as_deref()), ("hello", Some(&b"http/1.1"[..])));
    }
}

#[tokio::test]
async fn a_client_that_trusts_others_is_recognised() {
    let (ours, theirs) = (authority(), authority());
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let (client, server) = pair().await;
        let serve = async {
            let hello = read(server, SOON).await.unwrap();
            let config = ours.server_config(&"graph.microsoft.com".parse().unwrap(), None).await.unwrap();
            hello.accept(config, SOON).await
        };
        let connector = TlsConnector::from(Arc::new(client_config(&theirs, &[version])));
        let name = ServerName::try_from("graph.microsoft.com").unwrap();
        let (served, asked) = tokio::join!(serve, connector.connect(name, client));
        assert!(asked.is_err());
        assert!(matches!(served, Err(HandshakeError::ClientRefusedCertificate(_))), "{:?}", served.err());
    }
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_stalls_after_the_hello_is_reset() {
    let authority = authority();
    let (client, hello) = read_of(&client_hello("graph.microsoft.com")).await;
    let config = authority.server_config(&"graph.microsoft.com".parse().unwrap(), None).await.unwrap();
    let accepted = hello.unwrap().accept(config, SOON).await;
    assert!(matches!(accepted, Err(HandshakeError::Timeout)), "{:?}", accepted.err());
    assert_eq!(rest(client).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn without_a_common_protocol_the_client_gets_the_alert() {
    let authority = authority();
    let (client, server) = pair().await;
    let serve = async {
        let hello = read(server, SOON).await.unwrap();
        let host = "graph.microsoft.com".parse().unwrap();
        let config = authority.server_config(&host, Some(b"spdy/9")).await.unwrap();
        hello.accept(config, SOON).await
    };
    let connector = TlsConnector::from(Arc::new(client_config(&authority, &[&rustls::version::TLS13])));
    let name = ServerName::try_from("graph.microsoft.com").unwrap();
    let (served, asked) = tokio::join!(serve, connector.connect(name, client));
    assert!(matches!(served, Err(HandshakeError::Tls(_))), "{:?}", served.err());
    let error = asked.unwrap_err().into_inner().unwrap().downcast::<rustls::Error>().unwrap();
    assert_eq!(*error, rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol));
}

#[tokio::test]
async fn a_denied_client_gets_access_denied() {
    let authority = authority();
    for read_first in [false, true] {
        let (client, server) = pair().await;
        let connector = TlsConnector::from(Arc::new(client_config(&authority, &[&rustls::version::TLS13])));
        let name = ServerName::try_from("graph.microsoft.com").unwrap();
        let deny =
            async { if read_first { read(server, SOON).await.unwrap().deny().await } else { deny_tls(server).await } };
        let (asked, ()) = tokio::join!(connector.connect(name, client), deny);
        let error = asked.unwrap_err().into_inner().unwrap().downcast::<rustls::Error>().unwrap();
        assert_eq!(*error, rustls::Error::AlertReceived(AlertDescription::AccessDenied));
    }
}

#[tokio::test]
async fn a_reset_is_no_clean_end() {
    let (client, server) = pair().await;
    reset(server);
    assert_eq!(rest(client).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

proptest::proptest! {
    #[test]
    fn looking_for_the_server_name_never_panics(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300), cut in 0..1400_usize, at in 0..1400_usize) {
        sni::is_present(&bytes);
        static REAL: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| client_hello("a.example.com"));
        let mut real = REAL.clone();
        proptest::prop_assert!(sni::is_present(&real));
        real[at] ^= bytes.first().copied().unwrap_or(0);
        sni::is_present(&real[..cut]);
    }
}
