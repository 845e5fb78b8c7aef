//! The authority's file: one PEM with the key and the certificate, so that they can't get separated, readable by the
//! daemon's user alone. What they are for is `authority`'s.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use rcgen::KeyPair;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::AuthorityError;

/// Two PEM blocks need less than 2 KiB.
const MAX_BYTES: u64 = 64 * 1024;

/// Makes the folder with mode 0700, or checks that it is the daemon's alone.
pub(super) fn private_dir(dir: &Path) -> Result<(), AuthorityError> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let metadata = fs::symlink_metadata(dir).map_err(io_at(dir))?;
            if !metadata.is_dir() {
                return Err(exposed(dir, "isn't a folder"));
            }
            judge(dir, &metadata)
        }
        Err(error) => Err(io_at(dir)(error)),
    }
}

/// Reads a file that must be the daemon's alone; none if there is no such file.
pub(super) fn read_private(path: &Path) -> Result<Option<String>, AuthorityError> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_at(path)(error)),
    };
    let metadata = file.metadata().map_err(io_at(path))?;
    if !metadata.is_file() {
        return Err(exposed(path, "isn't a file"));
    }
    judge(path, &metadata)?;
    let mut text = String::new();
    file.take(MAX_BYTES).read_to_string(&mut text).map_err(io_at(path))?;
    Ok(Some(text))
}

/// Writes a file with mode 0600 so that it is there as a whole or not at all, also after a loss of power. Leaves a file
/// that is already there as it is.
pub(super) fn create_private(path: &Path, text: &str) -> Result<(), AuthorityError> {
    let draft = path.with_extension(format!("new.{}", std::process::id()));
    let written = write_new(&draft, text).and_then(|()| match fs::hard_link(&draft, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        linked => linked,
    });
    let removed = fs::remove_file(&draft);
    let synced = path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all());
    written.and(removed).and(synced).map_err(io_at(path))
}

/// The key, its certificate, and the certificate as PEM.
pub(super) fn parse(text: &str) -> Option<(KeyPair, CertificateDer<'static>, String)> {
    let start = text.find("-----BEGIN CERTIFICATE-----")?;
    let (key, certificate_pem) = text.split_at(start);
    let key = KeyPair::from_pkcs8_pem_and_sign_algo(key, &rcgen::PKCS_ECDSA_P256_SHA256).ok()?;
    let certificate = CertificateDer::from_pem_slice(certificate_pem.as_bytes()).ok()?;
    Some((key, certificate, certificate_pem.to_owned()))
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    // What a crash left behind under this name is nobody's.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn judge(path: &Path, metadata: &Metadata) -> Result<(), AuthorityError> {
    if metadata.uid() != nix::unistd::geteuid().as_raw() {
        return Err(exposed(path, "belongs to another user"));
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(exposed(path, "is open to group or others"));
    }
    Ok(())
}

fn exposed(path: &Path, problem: &'static str) -> AuthorityError {
    AuthorityError::Exposed { path: path.to_owned(), problem }
}

fn io_at(path: &Path) -> impl Fn(io::Error) -> AuthorityError + '_ {
    |source| AuthorityError::Io { path: path.to_owned(), source }
}
