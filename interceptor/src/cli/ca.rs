//! `interceptor ca`: the authority whose certificates workloads see. Its key isn't printed, and isn't kept in memory
//! longer than it takes to pass over it.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::process::ExitCode;

use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::config::Settings;

/// What to do with the authority.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Print its fingerprint (as a comment) and its certificate (PEM); as root.
    Show,
}

/// Does it.
pub fn execute(command: &Command, config: &Path) -> ExitCode {
    let Command::Show = command;
    let settings = match Settings::load(config) {
        Ok(settings) => settings,
        Err(error) => return super::fail_underlined(error),
    };
    let path = authority_file(&settings.paths.state);
    match certificate(&path) {
        Ok((pem, fingerprint)) => super::print(format_args!("# SHA-256 {fingerprint}\n{pem}")),
        Err(error) => super::fail(format_args!("can't read the authority at `{}`: {}", path.display(), advice(&error))),
    }
}

/// The file of the authority: its key and its certificate.
pub(super) fn authority_file(state: &Path) -> std::path::PathBuf {
    state.join("ca").join("authority.pem")
}

/// The certificate in an authority's file, as PEM, and its SHA-256 fingerprint as openssl prints it.
pub(super) fn certificate(path: &Path) -> io::Result<(String, String)> {
    let mut text = String::new();
    File::open(path)?.take(64 << 10).read_to_string(&mut text)?;
    let invalid = || io::Error::new(io::ErrorKind::InvalidData, "there is no certificate in it");
    let start = text.find("-----BEGIN CERTIFICATE-----").ok_or_else(invalid)?;
    let pem = text.get(start..).unwrap_or_default();
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| invalid())?;
    let sha256 = TLS13_AES_128_GCM_SHA256.tls13().map(|suite| suite.common.hash_provider.hash(&der));
    let bytes: Vec<_> = sha256.iter().flat_map(|hash| hash.as_ref()).map(|byte| format!("{byte:02X}")).collect();
    let end = pem.find(END).map_or(pem.len(), |end| end + END.len());
    Ok((format!("{}\n", pem.get(..end).unwrap_or_default()), bytes.join(":")))
}

const END: &str = "-----END CERTIFICATE-----";

fn advice(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "only root may read it".into(),
        io::ErrorKind::NotFound => "it is made when the daemon first starts".into(),
        _ => error.to_string(),
    }
}
