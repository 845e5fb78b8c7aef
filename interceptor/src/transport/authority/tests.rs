use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use jiff::{Timestamp, ToSpan};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;
use rustls::{CipherSuite, ClientConfig, ClientConnection, RootCertStore, ServerConnection, SupportedProtocolVersion};

use super::*;
use crate::clock::{ManualClock, SystemClock};

fn host(text: &str) -> Host {
    text.parse().unwrap()
}

fn open(dir: &Path) -> Result<Authority, AuthorityError> {
    Authority::open(&dir.join("ca"), Arc::new(SystemClock))
}

/// Runs a handshake in memory and gives the leaf that the client accepted.
fn shake(
    server: Arc<ServerConfig>,
    root: &Authority,
    name: &str,
    version: &'static SupportedProtocolVersion,
) -> Result<(CertificateDer<'static>, Option<Vec<u8>>), rustls::Error> {
    let client = shake_by(trust::provider(), server, root, name, version)?;
    let leaf = client.peer_certificates().unwrap()[0].clone().into_owned();
    Ok((leaf, client.alpn_protocol().map(<[u8]>::to_vec)))
}

/// The same with a client that has what its provider has; gives the client.
fn shake_by(
    provider: Arc<CryptoProvider>,
    server: Arc<ServerConfig>,
    root: &Authority,
    name: &str,
    version: &'static SupportedProtocolVersion,
) -> Result<ClientConnection, rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(root.certificate.clone()).unwrap();
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut server = ServerConnection::new(server).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        server.read_tls(&mut bytes.as_slice()).unwrap();
        server.process_new_packets()?;
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        client.read_tls(&mut bytes.as_slice()).unwrap();
        client.process_new_packets()?;
    }
    Ok(client)
}

#[test]
fn it_is_made_once_and_for_its_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path()).unwrap();
    let second = open(dir.path()).unwrap();
    assert_eq!(first.certificate, second.certificate);
    assert_eq!(first.fingerprint(), second.fingerprint());
    assert_eq!(first.fingerprint().len(), 32 * 3 - 1);
    assert!(first.certificate_pem().starts_with("-----BEGIN CERTIFICATE-----"));
    assert!(!first.certificate_pem().contains("PRIVATE"));
    let mode = |path: &str| fs::metadata(dir.path().join(path)).unwrap().mode() & 0o7777;
    assert_eq!((mode("ca"), mode("ca/authority.pem")), (0o700, 0o600));
    assert_eq!(fs::read_dir(dir.path().join("ca")).unwrap().count(), 1);
    assert!(!format!("{first:?}").contains("PRIVATE"));
}

#[test]
fn two_starts_at_once_make_one_authority() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let prints: Vec<String> = std::thread::scope(|scope| {
        let opens: Vec<_> = (0..2).map(|_| scope.spawn(move || open(path).map(|a| a.fingerprint()))).collect();
        // Within one process the drafts have one name, so one of two may fail; what opens is the same.
        opens.into_iter().filter_map(|open| open.join().unwrap().ok()).collect()
    });
    assert!(prints.iter().all(|print| *print == open(path).unwrap().fingerprint()));
}

#[test]
fn what_others_could_read_or_replace_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let authority = open(dir.path()).unwrap();
    let (folder, file) = (dir.path().join("ca"), dir.path().join("ca/authority.pem"));
    let chmod = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    for mode in [0o640, 0o604, 0o620] {
        chmod(&file, mode);
        assert!(matches!(open(dir.path()), Err(AuthorityError::Exposed { .. })), "{mode:o}");
    }
    chmod(&file, 0o600);
    chmod(&folder, 0o750);
    assert!(matches!(open(dir.path()), Err(AuthorityError::Exposed { .. })));
    chmod(&folder, 0o700);
    assert_eq!(open(dir.path()).unwrap().fingerprint(), authority.fingerprint());
    fs::rename(&file, dir.path().join("elsewhere")).unwrap();
    symlink(dir.path().join("elsewhere"), &file).unwrap();
    assert!(matches!(open(dir.path()), Err(AuthorityError::Io { .. })));
    if nix::unistd::geteuid().is_root() {
        fs::remove_file(&file).unwrap();
        fs::rename(dir.path().join("elsewhere"), &file).unwrap();
        std::os::unix::fs::chown(&file, Some(65534), None).unwrap();
        assert!(matches!(open(dir.path()), Err(AuthorityError::Exposed { .. })));
    }
}

#[test]
fn a_broken_file_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    open(dir.path()).unwrap();
    open(other.path()).unwrap();
    let file = dir.path().join("ca/authority.pem");
    let whole = fs::read_to_string(&file).unwrap();
    let foreign = fs::read_to_string(other.path().join("ca/authority.pem")).unwrap();
    let at = |text: &str| text.find("-----BEGIN CERTIFICATE-----").unwrap();
    for broken in ["", "nonsense", &whole[..at(&whole)], &whole[at(&whole)..], &whole[..whole.len() - 40]] {
        fs::write(&file, broken).unwrap();
        assert!(matches!(open(dir.path()), Err(AuthorityError::Malformed(_))), "{}", broken.len());
        assert_eq!(fs::read_to_string(&file).unwrap(), broken);
    }
    fs::write(&file, [&whole[..at(&whole)], &foreign[at(&foreign)..]].concat()).unwrap();
    assert!(matches!(open(dir.path()), Err(AuthorityError::Unusable { .. })));
}

#[test]
fn it_ends_after_ten_years() {
    let dir = tempfile::tempdir().unwrap();
    let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let clock = Arc::new(ManualClock::at(start));
    let ca = dir.path().join("ca");
    Authority::open(&ca, clock.clone()).unwrap();
    clock.set(start + (24 * 365 * 10 - 48).hours());
    Authority::open(&ca, clock.clone()).unwrap();
    clock.set(start + (24 * 365 * 10 + 1).hours());
    assert!(matches!(Authority::open(&ca, clock), Err(AuthorityError::Unusable { .. })));
}

#[tokio::test]
async fn clients_accept_the_leaf_for_its_host_only() {
    let dir = tempfile::tempdir().unwrap();
    let authority = open(dir.path()).unwrap();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for name in ["graph.microsoft.com", "10.1.2.3", "fd00::7", "with_underscore.example.com"] {
            let config = authority.server_config(&host(name), Some(b"http/1.1")).await.unwrap();
            let (_, alpn) = shake(config.clone(), &authority, name, version).unwrap();
            assert_eq!(alpn.as_deref(), Some(&b"http/1.1"[..]), "{name}");
            for other in ["login.microsoft.com", "www.graph.microsoft.com", "10.1.2.4"] {
                assert!(shake(config.clone(), &authority, other, version).is_err(), "{name} passed for {other}");
            }
        }
        let config = authority.server_config(&host("graph.microsoft.com"), None).await.unwrap();
        assert_eq!(shake(config, &authority, "graph.microsoft.com", version).unwrap().1, None);
    }
}

#[tokio::test]
async fn another_authority_is_not_trusted() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let config = open(dir.path()).unwrap().server_config(&host("a.example.com"), None).await.unwrap();
    let stranger = open(other.path()).unwrap();
    assert!(shake(config, &stranger, "a.example.com", &rustls::version::TLS13).is_err());
}

#[tokio::test]
async fn a_leaf_is_cached_and_renewed_long_before_it_ends() {
    let dir = tempfile::tempdir().unwrap();
    let start: Timestamp = "2026-03-01T00:00:00Z".parse().unwrap();
    let clock = Arc::new(ManualClock::at(start));
    let authority = Authority::open(&dir.path().join("ca"), clock.clone()).unwrap();
    let name = host("graph.microsoft.com");
    let first = authority.server_config(&name, None).await.unwrap();
    clock.set(start + 11.hours());
    assert!(Arc::ptr_eq(&first, &authority.server_config(&name, None).await.unwrap()));
    assert!(!Arc::ptr_eq(&first, &authority.server_config(&name, Some(b"h2")).await.unwrap()));
    assert!(!Arc::ptr_eq(&first, &authority.server_config(&host("other.example.com"), None).await.unwrap()));
    clock.set(start + 12.hours());
    assert!(!Arc::ptr_eq(&first, &authority.server_config(&name, None).await.unwrap()));
}

#[test]
fn a_leaf_is_valid_for_less_than_a_day() {
    let dir = tempfile::tempdir().unwrap();
    let start: Timestamp = "2026-03-01T00:00:00Z".parse().unwrap();
    let authority = Authority::open(&dir.path().join("ca"), Arc::new(ManualClock::at(start))).unwrap();
    let (leaf, _) = authority.mint(&host("a.example.com"), start.as_second()).unwrap();
    let valid_at =
        |after: i64| trust::verify(&authority.certificate, &leaf, "a.example.com", start.as_second() + after).is_ok();
    assert!(!valid_at(-301));
    assert!(valid_at(-299));
    assert!(valid_at(WINDOW + 11 * 3600));
    assert!(!valid_at(24 * 3600 - 300));
}

#[tokio::test]
async fn one_flight_mints_one_leaf() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Arc::new(open(dir.path()).unwrap());
    let mut flights = tokio::task::JoinSet::new();
    for _ in 0..32 {
        let authority = authority.clone();
        flights.spawn(async move { authority.server_config(&host("a.example.com"), None).await.unwrap() });
    }
    let configs = flights.join_all().await;
    assert!(configs.iter().all(|config| Arc::ptr_eq(config, &configs[0])));
}

#[tokio::test]
async fn the_cheapest_suite_is_taken_of_those_that_a_client_has() {
    use rustls::version::{TLS12, TLS13};

    let dir = tempfile::tempdir().unwrap();
    let authority = open(dir.path()).unwrap();
    let config = authority.server_config(&host("a.example.com"), None).await.unwrap();
    let chosen = |provider: &Arc<CryptoProvider>, version| {
        let client = shake_by(provider.clone(), config.clone(), &authority, "a.example.com", version).unwrap();
        client.negotiated_cipher_suite().unwrap().suite()
    };
    // It would rather have AES-256 with SHA-384.
    let all = trust::provider();
    assert_eq!(chosen(&all, &TLS13), CipherSuite::TLS13_AES_128_GCM_SHA256);
    assert_eq!(chosen(&all, &TLS12), CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256);
    let mut strong = CryptoProvider::clone(&all);
    strong.cipher_suites.retain(|suite| format!("{suite:?}").contains("AES_256"));
    let strong = Arc::new(strong);
    assert_eq!(chosen(&strong, &TLS13), CipherSuite::TLS13_AES_256_GCM_SHA384);
    assert_eq!(chosen(&strong, &TLS12), CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384);
}
