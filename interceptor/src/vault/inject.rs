//! Putting a credential into a request, in place of whatever the process sent.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Uri, header};
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use zeroize::Zeroizing;

use super::{Echo, Secret, VaultError, sharedkey, source};
use crate::config::{CredentialKind, CredentialSettings, SecretSource};

/// What stays as it is in a query's value (RFC 3986, unreserved).
const VALUE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A credential for one request.
#[derive(Debug)]
pub struct Credential {
    settings: Arc<CredentialSettings>,
    secret: Arc<Secret>,
}

impl Credential {
    pub(super) fn new(settings: Arc<CredentialSettings>, secret: Arc<Secret>) -> Self {
        Self { settings, secret }
    }

    /// Puts it into a request that is otherwise as it will be sent, and gives what finds its echo in the answer.
    ///
    /// # Errors
    /// When it can't stand in this request. Then the request is not to be sent.
    pub fn inject(self, parts: &mut Parts, at: Timestamp) -> Result<Echo, VaultError> {
        let secret = self.secret.bytes();
        let replaced: Vec<HeaderName> =
            parts.headers.keys().filter(|name| self.settings.replaces_header(name.as_str())).cloned().collect();
        for name in replaced {
            parts.headers.remove(name);
        }
        // A coding would hide an echo, and so would asking for it in pieces. Of a SharedKey and a certificate nothing is sent
        // that would be worth that.
        parts.headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if !matches!(self.settings.kind, CredentialKind::SharedKey { .. } | CredentialKind::ClientCertificate { .. }) {
            parts.headers.remove(header::RANGE);
            parts.headers.remove(header::IF_RANGE);
        }
        let mut hidden: Vec<Zeroizing<Vec<u8>>> = vec![Zeroizing::new(secret.to_vec())];
        match &self.settings.kind {
            CredentialKind::Header { name, prefix, .. } => {
                let name: HeaderName = name.parse().map_err(|_invalid| self.unusable("its name is no header's"))?;
                parts.headers.insert(name, self.value(&[prefix.as_bytes(), secret])?);
            }
            CredentialKind::Basic { user, .. } => {
                let pair = Zeroizing::new([user.as_bytes(), b":", secret].concat());
                let coded = Zeroizing::new(STANDARD.encode(&*pair));
                parts.headers.insert(header::AUTHORIZATION, self.value(&[b"Basic ", coded.as_bytes()])?);
                hidden.push(pair);
            }
            CredentialKind::Query { key, .. } => {
                let value = std::str::from_utf8(secret).map_err(|_invalid| self.unusable("it isn't text"))?;
                // As long as it can get, because what grows leaves copies behind.
                let mut coded = Zeroizing::new(String::with_capacity(value.len() * 3));
                coded.extend(utf8_percent_encode(value, VALUE));
                parts.uri = with_parameter(&parts.uri, &self.settings, key, &coded)
                    .ok_or_else(|| self.unusable("it doesn't fit into the request's URL"))?;
            }
            CredentialKind::SharedKey { account, .. } => {
                let signature = sharedkey::sign(parts, account, secret, at)
                    .map_err(|_invalid| self.unusable("it isn't a base64 key, or the date can't be written"))?;
                let value = self.value(&[b"SharedKey ", account.as_bytes(), b":", signature.as_bytes()])?;
                parts.headers.insert(header::AUTHORIZATION, value);
                hidden.push(Zeroizing::new(signature.as_bytes().to_vec()));
            }
            CredentialKind::ClientCertificate { .. } => {}
        }
        Ok(Echo::of(&hidden))
    }

    fn value(&self, parts: &[&[u8]]) -> Result<HeaderValue, VaultError> {
        let bytes = Zeroizing::new(parts.concat());
        let mut value =
            HeaderValue::from_bytes(&bytes).map_err(|_invalid| self.unusable("it can't stand in a header"))?;
        value.set_sensitive(true);
        Ok(value)
    }

    fn unusable(&self, problem: &str) -> VaultError {
        VaultError::Unusable { place: place(&self.settings), problem: problem.into() }
    }
}

/// Whether a secret can be such a credential at all.
pub(super) fn check(settings: &CredentialSettings, secret: &Secret) -> Result<(), VaultError> {
    let bytes = secret.bytes();
    let problem = match &settings.kind {
        CredentialKind::Header { .. } if !bytes.iter().all(stands_in_header) => "it can't stand in a header",
        CredentialKind::Query { .. } if std::str::from_utf8(bytes).is_err() => "it isn't text",
        CredentialKind::SharedKey { .. } if STANDARD.decode(bytes).map(Zeroizing::new).is_err() => "it isn't base64",
        _ => return Ok(()),
    };
    Err(VaultError::Unusable { place: place(settings), problem: problem.into() })
}

/// Whether a header's value may have this byte (RFC 9110 section 5.5): asked without a copy that nobody would wipe.
fn stands_in_header(byte: &u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..)
}

fn place(settings: &CredentialSettings) -> String {
    match &settings.kind {
        CredentialKind::Header { source, .. }
        | CredentialKind::Basic { source, .. }
        | CredentialKind::Query { source, .. }
        | CredentialKind::SharedKey { source, .. } => source::place(source as &SecretSource),
        CredentialKind::ClientCertificate { certificate, .. } => format!("`{}`", certificate.display()),
    }
}

/// `uri` with this parameter at the end of its query, and every other of its name taken out.
fn with_parameter(uri: &Uri, settings: &CredentialSettings, key: &str, value: &str) -> Option<Uri> {
    let kept = uri.query().unwrap_or_default().split('&').filter(|pair| {
        let name = pair.split('=').next().unwrap_or_default().replace('+', " ");
        !pair.is_empty() && !settings.replaces_parameter(&percent_decode_str(&name).decode_utf8_lossy())
    });
    let own = Zeroizing::new([key, "=", value].concat());
    let query = Zeroizing::new(kept.chain([own.as_str()]).collect::<Vec<_>>().join("&"));
    let path_and_query = Zeroizing::new([uri.path(), "?", query.as_str()].concat());
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(path_and_query.parse().ok()?);
    Uri::from_parts(parts).ok()
}
