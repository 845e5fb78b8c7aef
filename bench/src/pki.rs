//! The certificates of a run, as files: one authority, and one leaf that the origin and every peer serve with.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};

/// The host that everything asks for.
pub(crate) const HOST: &str = "graph.microsoft.com";

/// The folder that they are in.
#[derive(Debug, Clone)]
pub(crate) struct Folder {
    path: PathBuf,
}

impl Folder {
    /// One that was made before.
    pub(crate) fn at(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Makes them, in ECDSA P-256 as Interceptor's own leaves are.
    pub(crate) fn make(path: &Path) -> Result<Self> {
        let folder = Self::at(path);
        fs::create_dir(path)?;
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "Bench Root");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec![HOST.to_owned()])?;
        params.distinguished_name.push(DnType::CommonName, HOST);
        let leaf = params.signed_by(&key, &issuer)?;
        fs::write(folder.ca(), issuer.pem())?;
        fs::write(folder.ca_key(), issuer.key().serialize_pem())?;
        fs::write(folder.leaf(), leaf.pem())?;
        fs::write(folder.leaf_key(), key.serialize_pem())?;
        fs::write(folder.both(), leaf.pem() + &key.serialize_pem())?;
        Ok(folder)
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The authority's certificate.
    pub(crate) fn ca(&self) -> PathBuf {
        self.path.join("ca.pem")
    }

    /// The authority's key.
    pub(crate) fn ca_key(&self) -> PathBuf {
        self.path.join("ca.key")
    }

    /// The leaf's certificate.
    pub(crate) fn leaf(&self) -> PathBuf {
        self.path.join("leaf.pem")
    }

    /// The leaf's key.
    pub(crate) fn leaf_key(&self) -> PathBuf {
        self.path.join("leaf.key")
    }

    /// Both in one file, as haproxy wants them.
    pub(crate) fn both(&self) -> PathBuf {
        self.path.join("both.pem")
    }
}
