//! TLS of the load, the origin and the relay: rustls with aws-lc-rs on each side, so that none of them is the difference.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, NamedGroup, RootCertStore, ServerConfig};

/// A client that trusts the authorities in the file `ca` and offers these protocols.
pub(crate) struct Client<'a> {
    pub(crate) ca: &'a Path,
    pub(crate) alpn: &'a [u8],
    /// Whether it offers X25519MLKEM768, which makes its ClientHello larger than one segment.
    pub(crate) post_quantum: bool,
    /// Whether it resumes sessions.
    pub(crate) resumes: bool,
}

impl Client<'_> {
    /// Its settings.
    pub(crate) fn config(&self) -> Result<Arc<ClientConfig>> {
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_file_iter(self.ca)
            .with_context(|| format!("can't read the authorities in `{}`", self.ca.display()))?
        {
            roots.add(root?)?;
        }
        let mut provider: CryptoProvider = aws_lc_rs::default_provider();
        if !self.post_quantum {
            provider.kx_groups.retain(|group| group.name() != NamedGroup::X25519MLKEM768);
        }
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![self.alpn.to_vec()];
        if !self.resumes {
            config.resumption = Resumption::disabled();
        }
        Ok(Arc::new(config))
    }
}

/// A server of HTTP/2 and HTTP/1.1 with the certificate and key in these files.
pub(crate) fn server(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>> {
    let chain = CertificateDer::pem_file_iter(certificate)?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(key)?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
