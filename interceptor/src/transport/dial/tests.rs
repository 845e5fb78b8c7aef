use std::fs;
use std::path::PathBuf;

use jiff::{Timestamp, ToSpan};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};

use super::*;
use crate::clock::{Clock, ManualClock, SystemClock};
use crate::error::{Blame, Fault};
use crate::transport::authority::Authority;

const SOON: Duration = Duration::from_secs(5);

/// An authority for upstreams, whose certificate is in a file.
struct Issuer {
    authority: Authority,
    file: PathBuf,
    _dir: tempfile::TempDir,
}

fn issuer(now: Timestamp) -> Issuer {
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca");
    Authority::open(&ca, Arc::new(SystemClock)).unwrap();
    let clock = Arc::new(ManualClock::at(SystemClock.now()));
    let authority = Authority::open(&ca, clock.clone()).unwrap();
    clock.set(now);
    let file = dir.path().join("root.pem");
    fs::write(&file, authority.certificate_pem()).unwrap();
    Issuer { authority, file, _dir: dir }
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// An upstream that presents a leaf for `name`, speaks `alpn`, and echoes one message.
async fn serve_tls(issuer: &Issuer, name: &str, alpn: Option<&[u8]>) -> SocketAddr {
    let (listener, address) = listen().await;
    let config = issuer.authority.server_config(&name.parse().unwrap(), alpn).await.unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = tokio_rustls::TlsAcceptor::from(config.clone());
            if let Ok(mut stream) = acceptor.accept(stream).await {
                let mut bytes = [0; 4];
                stream.read_exact(&mut bytes).await.unwrap();
                stream.write_all(&bytes).await.unwrap();
                stream.shutdown().await.unwrap();
            }
        }
    });
    address
}

fn dialer(issuer: &Issuer, resolve: &[(&str, SocketAddr)]) -> Dialer {
    let resolve = resolve.iter().map(|(name, address)| (name.parse().unwrap(), *address)).collect();
    Dialer::new(&config::Upstream { extra_ca: vec![issuer.file.clone()], resolve }).unwrap()
}

async fn dial(dialer: &Dialer, host: &str, port: u16, alpn: &[Vec<u8>]) -> Result<Upstream, DialError> {
    dialer.dial(&host.parse().unwrap(), port, Some(alpn), SOON).await
}

#[tokio::test]
async fn a_name_is_reached_where_the_configuration_says() {
    let issuer = issuer(SystemClock.now());
    let address = serve_tls(&issuer, "graph.microsoft.com", Some(b"http/1.1")).await;
    let portless = SocketAddr::new(address.ip(), 0);
    let offered = [b"h2".to_vec(), b"http/1.1".to_vec()];
    for (fixed, port) in [(address, 443), (portless, address.port())] {
        let dialer = dialer(&issuer, &[("graph.microsoft.com", fixed)]);
        let mut upstream = dial(&dialer, "graph.microsoft.com", port, &offered).await.unwrap();
        assert_eq!(upstream.peer, address);
        assert_eq!(upstream.alpn.as_deref(), Some(&b"http/1.1"[..]));
        upstream.stream.write_all(b"ping").await.unwrap();
        let mut echo = [0; 4];
        upstream.stream.read_exact(&mut echo).await.unwrap();
        assert_eq!(&echo, b"ping");
        let Stream::Tls(stream) = &upstream.stream else { panic!("in clear") };
        assert!(stream.get_ref().0.nodelay().unwrap());
    }
    let dialer = dialer(&issuer, &[("graph.microsoft.com", address)]);
    let upstream = dial(&dialer, "graph.microsoft.com", 443, &[]).await.unwrap();
    assert_eq!(upstream.alpn, None);
}

#[tokio::test]
async fn an_address_is_verified_as_an_address() {
    let issuer = issuer(SystemClock.now());
    let right = serve_tls(&issuer, "127.0.0.1", None).await;
    let wrong = serve_tls(&issuer, "graph.microsoft.com", None).await;
    let dialer = dialer(&issuer, &[]);
    dial(&dialer, "127.0.0.1", right.port(), &[]).await.unwrap();
    let error = dial(&dialer, "127.0.0.1", wrong.port(), &[]).await.unwrap_err();
    assert!(matches!(error, DialError::Untrusted { .. }), "{error}");
}

#[tokio::test]
async fn a_certificate_that_proves_nothing_is_refused_in_words() {
    let now = SystemClock.now();
    let (good, stranger, past) = (issuer(now), issuer(now), issuer(now - 72.hours()));
    let cases = [
        (&good, serve_tls(&good, "other.example.com", None).await, "it is for another name"),
        (&good, serve_tls(&stranger, "graph.microsoft.com", None).await, "no root that this host trusts issued it"),
        (&past, serve_tls(&past, "graph.microsoft.com", None).await, "it has expired"),
    ];
    for (trusted, address, words) in cases {
        let dialer = dialer(trusted, &[("graph.microsoft.com", address)]);
        let error = dial(&dialer, "graph.microsoft.com", 443, &[]).await.unwrap_err();
        let fault = Fault::from(&error);
        assert_eq!((fault.code, fault.blame), ("upstream-untrusted", Blame::Upstream));
        assert!(fault.told.contains(words), "{}", fault.told);
    }
}

#[tokio::test]
async fn what_is_wrong_with_an_upstream_is_told_apart() {
    let issuer = issuer(SystemClock.now());
    let (closed, gone) = listen().await;
    drop(closed);
    let (plain, speaks_otherwise) = listen().await;
    tokio::spawn(async move {
        let (mut stream, _) = plain.accept().await.unwrap();
        stream.write_all(b"220 mail.example.com ESMTP\r\n").await.unwrap();
        let mut rest = Vec::new();
        drop(stream.read_to_end(&mut rest).await);
    });
    let synthetic = SocketAddr::from(([55, 160, 0, 1], 443));
    let inside: SocketAddr = "[fd00::2]:443".parse().unwrap();
    let cases = [
        (gone, "upstream-refused", Blame::Upstream),
        (speaks_otherwise, "upstream-tls", Blame::Upstream),
        (synthetic, "upstream-forbidden-address", Blame::Operator),
        (inside, "upstream-forbidden-address", Blame::Operator),
        (SocketAddr::from(([0, 0, 0, 0], 443)), "upstream-forbidden-address", Blame::Operator),
    ];
    for (address, code, blame) in cases {
        let dialer = dialer(&issuer, &[("graph.microsoft.com", address)]);
        let error = dial(&dialer, "graph.microsoft.com", 443, &[]).await.unwrap_err();
        let fault = Fault::from(&error);
        assert_eq!((fault.code, fault.blame), (code, blame), "{error}");
    }
    let error = dial(&dialer(&issuer, &[]), "10.213.0.1", 443, &[]).await.unwrap_err();
    assert!(matches!(error, DialError::Forbidden { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_says_nothing_costs_the_time_that_it_is_given() {
    let issuer = issuer(SystemClock.now());
    let (_silent, address) = listen().await;
    let dialer = dialer(&issuer, &[("graph.microsoft.com", address)]);
    let start = Instant::now();
    let error = dial(&dialer, "graph.microsoft.com", 443, &[]).await.unwrap_err();
    assert_eq!(Fault::from(&error).code, "upstream-timeout");
    assert_eq!(start.elapsed(), SOON);
}

#[tokio::test]
async fn in_clear_the_bytes_are_the_stream_s() {
    let issuer = issuer(SystemClock.now());
    let (listener, address) = listen().await;
    let dialer = dialer(&issuer, &[]);
    let host = "localhost".parse().unwrap();
    let (dialled, accepted) = tokio::join!(dialer.dial(&host, address.port(), None, SOON), listener.accept());
    let mut upstream = dialled.unwrap();
    upstream.stream.write_all(b"ping").await.unwrap();
    upstream.stream.shutdown().await.unwrap();
    let mut text = String::new();
    accepted.unwrap().0.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "ping");
    assert_eq!(upstream.alpn, None);
}

#[tokio::test]
async fn the_host_s_own_names_are_looked_up() {
    let issuer = issuer(SystemClock.now());
    let fixed = SocketAddr::from(([192, 168, 7, 7], 0));
    let dialer = dialer(&issuer, &[("api.corp", fixed)]);
    let found = dialer.lookup(&"localhost".parse().unwrap()).await.unwrap();
    assert!(!found.fixed && !found.addresses.is_empty());
    assert!(found.addresses.iter().all(IpAddr::is_loopback), "{found:?}");
    let found = dialer.lookup(&"api.corp".parse().unwrap()).await.unwrap();
    assert_eq!(found, Found { addresses: vec![fixed.ip()], fixed: true });
}

#[test]
fn families_take_turns() {
    let address = |text: &str| text.parse::<SocketAddr>().unwrap();
    let (v4, v6): (Vec<_>, Vec<_>) = (
        (1..=9).map(|n| address(&format!("127.0.0.{n}:1"))).collect(),
        (1..=2).map(|n| address(&format!("[::{n}]:1"))).collect(),
    );
    let order = happy::interleaved(&[&v6[..], &v4].concat());
    assert_eq!(order[..5], [v6[0], v4[0], v6[1], v4[1], v4[2]]);
    assert_eq!(order.len(), 8);
    assert_eq!(happy::interleaved(&[&v4[..1], &v6].concat()), [v4[0], v6[0], v6[1]]);
    assert!(happy::interleaved(&[]).is_empty());
}

#[tokio::test]
async fn a_refusing_address_gives_way_at_once_and_a_silent_one_after_a_moment() {
    let (live, live_address) = listen().await;
    tokio::spawn(async move { while live.accept().await.is_ok() {} });
    let (closed, refusing) = listen().await;
    drop(closed);

    // What else runs on the machine only adds.
    let mut least = Duration::MAX;
    for _ in 0..5 {
        let start = std::time::Instant::now();
        let (_, peer) = happy::connect(&[refusing, live_address]).await.unwrap();
        assert_eq!(peer, live_address);
        least = least.min(start.elapsed());
    }
    assert!(least < Duration::from_millis(200), "{least:?}");

    // A listener whose queue is full drops what knocks: the nearest thing to a dead address on loopback.
    let full = TcpSocket::new_v4().unwrap();
    full.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let silent = full.local_addr().unwrap();
    let _full = full.listen(1).unwrap();
    let mut knocking = Vec::new();
    while let Ok(stream) = tokio::time::timeout(Duration::from_secs(2), TcpStream::connect(silent)).await {
        knocking.push(stream.unwrap());
    }
    let start = std::time::Instant::now();
    let (_, peer) = happy::connect(&[silent, live_address]).await.unwrap();
    assert_eq!(peer, live_address);
    assert!(start.elapsed() >= Duration::from_millis(240), "{:?}", start.elapsed());

    let error = happy::connect(&[refusing, refusing]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    assert!(happy::connect(&[]).await.is_err());
}

#[test]
fn faults_hold_no_more_than_the_client_asked_for() {
    let host = || "graph.microsoft.com".to_owned();
    let unreachable = io::ErrorKind::HostUnreachable.into();
    for (error, code) in [
        (DialError::Unresolved { host: host() }, "upstream-unresolved"),
        (DialError::Lookup { host: host(), problem: "temporary failure".to_owned() }, "upstream-lookup-failed"),
        (DialError::Unreachable { host: host(), port: 443, source: unreachable }, "upstream-unreachable"),
        (DialError::Timeout { host: host(), port: 443 }, "upstream-timeout"),
    ] {
        let fault = Fault::from(&error);
        assert!(fault.code == code && fault.told.contains("graph.microsoft.com"), "{fault}");
        assert!(!fault.next.is_empty() && fault.blame == Blame::Upstream);
    }
}

#[tokio::test]
async fn a_target_that_demands_a_client_certificate_gets_its_own() {
    use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
    use std::os::unix::fs::PermissionsExt;
    let made = |name: &str| rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let (server, client) = (made("mutual.example"), made("client.example"));
    let mut roots = rustls::RootCertStore::empty();
    roots.add(client.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier =
        rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(server.signing_key.serialize_der()));
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![server.cert.der().clone()], key)
        .unwrap();
    let (listener, address) = listen().await;
    let accepting = tokio::spawn(async move {
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let mut presented = Vec::new();
        for _ in 0..3 {
            let (stream, _) = listener.accept().await.unwrap();
            let accepted = acceptor.accept(stream).await;
            presented.push(accepted.is_ok_and(|stream| stream.get_ref().1.peer_certificates().is_some()));
        }
        presented
    });
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: String, mode: u32| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    let root = write("root.pem", server.cert.pem(), 0o644);
    let certificate = write("c.pem", client.cert.pem(), 0o644);
    let key = write("k.pem", client.signing_key.serialize_pem(), 0o600);
    let text = format!(
        "[[target]]\nname = \"t\"\nhosts = [\"mutual.example\"]\nports = [{}]\n\
         credential = {{ client_cert = {certificate:?}, client_key = {key:?} }}",
        address.port()
    );
    let settings = config::Settings::parse("/c/config.toml", &text).unwrap();
    let resolve = [("mutual.example".parse().unwrap(), address)].into_iter().collect();
    let plain = Dialer::new(&config::Upstream { extra_ca: vec![root], resolve }).unwrap();
    let own = plain.clone().with_vault(Arc::new(Vault::new(&settings.targets)));
    dial(&own, "mutual.example", address.port(), &[]).await.unwrap();
    // Without a certificate the handshake fails; in TLS 1.3 the client hears of it only afterwards.
    let _heard = dial(&plain, "mutual.example", address.port(), &[]).await;
    fs::remove_file(key).unwrap();
    let gone = plain.with_vault(Arc::new(Vault::new(&settings.targets)));
    let error = dial(&gone, "mutual.example", address.port(), &[]).await.unwrap_err();
    assert!(matches!(error, DialError::Credential(_)), "{error}");
    assert_eq!(Fault::from(&error).code, "credential-unavailable");
    assert!(!Fault::from(&error).told.contains("k.pem"));
    assert_eq!(accepting.await.unwrap(), [true, false, false]);
}
