//! The certificate authority: makes or loads its key, and mints a leaf for each host that a workload connects to. Who
//! trusts it, and whom upstream is trusted, is `trust`'s; the handshake is `hello`'s.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::ServerConfig;
use rustls::server::ServerSessionMemoryCache;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::clock::Clock;
use crate::config::Host;
use crate::fresh::Fresh;
use crate::transport::trust;

mod store;

/// Leaves that are kept; the least used goes first.
const LEAVES: usize = 1024;
/// A leaf serves for one window, then a new one is minted.
const WINDOW: i64 = 12 * 3600;
/// How far before its window a leaf is valid, for clients whose clock is behind. Seconds.
const BACKDATED: i64 = 300;
/// How long a leaf is valid: under 24 hours, counted from the first second to the last. Seconds.
const LEAF_LIFE: i64 = 24 * 3600 - 600;
/// How long the authority itself is valid. Seconds.
const AUTHORITY_LIFE: i64 = 10 * 365 * 24 * 3600;

/// What went wrong with the authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file or folder of the authority couldn't be read or written.
    #[error("couldn't use `{}` for the certificate authority", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Others than the daemon could read or replace the key.
    #[error("`{}` {problem}; make it the daemon's own and take all rights from group and others", path.display())]
    Exposed {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The file isn't one that the authority wrote.
    #[error("`{}` doesn't hold a P-256 key and its certificate; move it away to have a new authority made", .0.display())]
    Malformed(PathBuf),
    /// The key can't vouch for what the certificate says: they don't belong together, or the certificate ended.
    #[error("the certificate authority in `{}` can't be used", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What a client would say.
        source: rustls::Error,
    },
    /// A certificate couldn't be made.
    #[error("couldn't mint a certificate")]
    Mint(#[from] rcgen::Error),
    /// rustls refused the minted certificate or its key.
    #[error("couldn't serve a minted certificate")]
    Tls(#[from] rustls::Error),
}

/// The certificate authority whose certificate workloads trust.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    certificate_pem: String,
    clock: Arc<dyn Clock>,
    leaves: Fresh<Leaf, Arc<ServerConfig>, AuthorityError>,
}

/// What makes two handshakes take the same leaf and configuration.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Leaf {
    host: Host,
    alpn: Option<Box<[u8]>>,
    /// Counts [`WINDOW`]s since 1970. A part of the key, so that a leaf is renewed by being another one.
    window: i64,
}

impl Authority {
    /// Loads the authority from its folder, or makes it at the first start: `dir` with mode 0700, and in it
    /// `authority.pem`, key and certificate, with mode 0600. Two that start at once end up with the same one.
    pub fn open(dir: &Path, clock: Arc<dyn Clock>) -> Result<Authority, AuthorityError> {
        let path = dir.join("authority.pem");
        store::private_dir(dir)?;
        let text = match store::read_private(&path)? {
            Some(text) => text,
            None => {
                let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
                let certificate = authority_params(&key, clock.now().as_second()).self_signed(&key)?;
                store::create_private(&path, &(key.serialize_pem() + &certificate.pem()))?;
                // Whoever came first wrote it.
                store::read_private(&path)?.ok_or_else(|| AuthorityError::Malformed(path.clone()))?
            }
        };
        let (key, certificate, certificate_pem) =
            store::parse(&text).ok_or_else(|| AuthorityError::Malformed(path.clone()))?;
        let issuer = Issuer::new(authority_params(&key, 0), key);
        let authority = Authority {
            issuer,
            certificate,
            certificate_pem,
            clock,
            leaves: Fresh::new(LEAVES, Duration::from_secs(WINDOW.unsigned_abs())),
        };
        authority.try_out().map_err(|source| AuthorityError::Unusable { path, source })?;
        Ok(authority)
    }

    /// The configuration to complete a client's handshake with: a leaf for exactly this host, and the one protocol that
    /// the upstream chose (`None`: the client gets no ALPN answer).
    ///
    /// Cached, minted in one flight, renewed before it ends. Session tickets are kept in the configuration, so that
    /// none is good for another host.
    pub async fn server_config(
        &self,
        host: &Host,
        alpn: Option<&[u8]>,
    ) -> Result<Arc<ServerConfig>, Arc<AuthorityError>> {
        let window = self.clock.now().as_second().div_euclid(WINDOW);
        let leaf = Leaf { host: host.clone(), alpn: alpn.map(Into::into), window };
        let mint = async { self.mint_config(host, alpn, window * WINDOW).map(Arc::new) };
        self.leaves.get_or_ask(&leaf, mint).await
    }

    /// The authority's certificate, for those who shall trust it.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The SHA-256 fingerprint of the certificate, as `openssl x509 -fingerprint` prints it: `AB:CD:…`.
    pub fn fingerprint(&self) -> String {
        trust::sha256(&self.certificate).iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
    }

    fn mint_config(&self, host: &Host, alpn: Option<&[u8]>, window_start: i64) -> Result<ServerConfig, AuthorityError> {
        let (certificate, key) = self.mint(host, window_start)?;
        let mut config = ServerConfig::builder_with_provider(trust::local_provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)?;
        config.ignore_client_order = true;
        config.alpn_protocols = alpn.map(<[u8]>::to_vec).into_iter().collect();
        config.session_storage = ServerSessionMemoryCache::new(64);
        config.send_tls13_tickets = 1;
        Ok(config)
    }

    fn mint(
        &self,
        host: &Host,
        window_start: i64,
    ) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), AuthorityError> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        valid(&mut params, window_start - BACKDATED, window_start - BACKDATED + LEAF_LIFE);
        params.distinguished_name = named("Interceptor");
        params.subject_alt_names = vec![match host {
            Host::Name(name) => SanType::DnsName(name.as_str().try_into()?),
            Host::Address(address) => SanType::IpAddress(*address),
        }];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        // Python 3.13 verifies strictly: it refuses a leaf without this.
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok((certificate.der().clone(), PrivateKeyDer::Pkcs8(key.serialize_der().into())))
    }

    /// Mints a leaf and verifies it as a client would.
    fn try_out(&self) -> Result<(), rustls::Error> {
        let now = self.clock.now().as_second();
        let host = "interceptor.invalid".parse().map_err(|_| rustls::Error::General("no host name".into()))?;
        let (leaf, _) = self.mint(&host, now).map_err(|error| rustls::Error::General(error.to_string()))?;
        trust::verify(&self.certificate, &leaf, "interceptor.invalid", now)
    }
}

impl fmt::Debug for Authority {
    /// Never the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("fingerprint", &self.fingerprint()).finish_non_exhaustive()
    }
}

/// What the authority's certificate says. The name follows from the key: it is the same after a restart, and two
/// authorities on one host never have the same name.
fn authority_params(key: &KeyPair, now: i64) -> CertificateParams {
    let digest = trust::sha256(key.public_key_raw());
    let short: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let mut params = CertificateParams::default();
    // A day early, so that it is never younger than a leaf.
    valid(&mut params, now - 24 * 3600, now + AUTHORITY_LIFE);
    params.distinguished_name = named(&format!("Interceptor authority {short}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

/// Sets the validity, in seconds since 1970.
fn valid(params: &mut CertificateParams, from: i64, until: i64) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(from.max(0).unsigned_abs());
    params.not_after = epoch + Duration::from_secs(until.max(0).unsigned_abs());
}

#[cfg(test)]
mod tests;
