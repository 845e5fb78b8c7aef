use std::fs;

use rustls_native_certs::CertificateResult;

use super::*;
use crate::clock::SystemClock;
use crate::transport::authority::Authority;

fn authority(dir: &Path) -> Authority {
    Authority::open(&dir.join("ca"), Arc::new(SystemClock)).unwrap()
}

fn host_store(pems: &[&str]) -> CertificateResult {
    let mut found = CertificateResult::default();
    found.certs = pems.iter().map(|pem| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).collect();
    found
}

#[test]
fn the_bundle_is_the_host_s_roots_the_extra_ones_and_ours() {
    let (host, extra, ours) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (host, extra_authority, ours) = (authority(host.path()), authority(extra.path()), authority(ours.path()));
    let pem_file = extra.path().join("extra.pem");
    fs::write(&pem_file, extra_authority.certificate_pem()).unwrap();
    let twice = host_store(&[host.certificate_pem(), host.certificate_pem()]);
    let roots = Roots::merge(twice, &[pem_file]).unwrap();
    assert_eq!(roots.count(), 2);

    let path = extra.path().join("bundle.pem");
    roots.write_bundle(ours.certificate_pem(), &path).unwrap();
    let read: Vec<_> = CertificateDer::pem_file_iter(&path).unwrap().collect::<Result<_, _>>().unwrap();
    let expected: Vec<CertificateDer<'_>> = [host, extra_authority, ours]
        .iter()
        .map(|authority| CertificateDer::from_pem_slice(authority.certificate_pem().as_bytes()).unwrap())
        .collect();
    assert_eq!(read, expected);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o644);
    assert_eq!(fs::read_dir(extra.path()).unwrap().count(), 3, "a draft was left behind");
}

#[test]
fn without_roots_nothing_is_trusted() {
    assert!(matches!(Roots::merge(CertificateResult::default(), &[]), Err(TrustError::NoRoots { .. })));
}

#[test]
fn an_unusable_extra_ca_is_an_error_that_names_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let ours = authority(dir.path());
    let missing = dir.path().join("missing.pem");
    let empty = dir.path().join("empty.pem");
    fs::write(&empty, "# nothing\n").unwrap();
    let broken = dir.path().join("broken.pem");
    fs::write(&broken, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    for path in [missing, empty, broken] {
        let error = Roots::merge(host_store(&[ours.certificate_pem()]), std::slice::from_ref(&path)).unwrap_err();
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
}
