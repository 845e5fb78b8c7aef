//! Client certificates (mTLS): a chain and a key from PEM files. The key never leaves the daemon.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroize;

use super::VaultError;
use crate::config;

/// Reads a chain and its key, and checks that they belong together.
pub(super) fn read(certificate: &Path, key: &Path) -> Result<Arc<CertifiedKey>, VaultError> {
    let unusable =
        |path: &Path, problem: String| VaultError::Unusable { place: format!("`{}`", path.display()), problem };
    let chain = config::text(certificate)?;
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| unusable(certificate, error.to_string()))?;
    if chain.is_empty() {
        return Err(unusable(certificate, "it has no certificate".into()));
    }
    let pem = config::secret(key)?;
    // The parser's own text could repeat a line of the key.
    let mut der =
        PrivateKeyDer::from_pem_slice(&pem).map_err(|_error| unusable(key, "it has no private key".into()))?;
    let signing = any_supported_type(&der);
    der.zeroize();
    let signing = signing.map_err(|_error| unusable(key, "its kind isn't supported".into()))?;
    let certified = CertifiedKey::new(chain, signing);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(Arc::new(certified)),
        Err(_) => Err(unusable(key, "it isn't the certificate's key".into())),
    }
}
