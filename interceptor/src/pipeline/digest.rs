//! What an operation is known by, so that a yes to it is a yes to nothing else: a keyed digest (HMAC-SHA-256) of who asks,
//! the method, the URL, the header fields and the body, decoded. The key keeps those who can read the record from telling
//! a short body by trying.

use aws_lc_rs::hmac::{Context, HMAC_SHA256, Key};
use http::request::Parts;
use http::{HeaderMap, HeaderName, header};

use super::authenticate::Identified;
use super::live::Live;
use crate::config::Expansion;
use crate::ids::Digest;
use crate::keyfile;
use crate::mask::coding::{Decoder, codings};
use crate::policy::{Asker, Credential, Principal};
use crate::transport::http::is_hop_by_hop;

/// Why its sender says an operation is wanted. It is shown to people, and goes no further.
pub(super) const JUSTIFICATION: HeaderName = HeaderName::from_static("interceptor-justification");

/// Header fields that say nothing of what is asked, and differ from one try to the next; besides those of one hop, and
/// every `…-request-id`.
const NOISE: [HeaderName; 7] = [
    header::DATE,
    header::USER_AGENT,
    header::CONTENT_LENGTH,
    header::HOST,
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
    JUSTIFICATION,
];

/// The key of digests.
pub struct ApprovalKey(Key);

impl ApprovalKey {
    /// From a key file's key.
    pub fn new(key: &keyfile::Key) -> Self {
        Self(Key::new(HMAC_SHA256, key.as_ref()))
    }

    /// The digest of a request of a workload; `websocket`: of one that opens a WebSocket.
    pub(super) fn digest(
        &self,
        live: &Live,
        (who, credential): (Option<&Identified>, Credential),
        (parts, websocket): (&Parts, bool),
        body: &[u8],
    ) -> Digest {
        let (subject, host) = (&live.session().subject, live.host().to_string());
        let origin = Origin {
            workload: subject.workload.as_str(),
            asker: &subject.asker,
            principal: who.map(|who| &*who.principal),
            credential,
            scheme: if live.tls() { "https" } else { "http" },
            host: &host,
            port: live.port(),
        };
        let mut digest = Fields(Context::with_key(&self.0));
        fields(&origin, (parts, websocket), body, |field| digest.field(field));
        digest.end()
    }
}

/// Who asks, and where a request goes.
#[derive(Clone, Copy)]
struct Origin<'a> {
    workload: &'a str,
    asker: &'a Asker,
    principal: Option<&'a Principal>,
    credential: Credential,
    scheme: &'static str,
    host: &'a str,
    port: u16,
}

/// What a request is known by, one after the other.
fn fields(origin: &Origin<'_>, (parts, websocket): (&Parts, bool), body: &[u8], mut field: impl FnMut(&[u8])) {
    let Origin { workload, asker, principal, credential, scheme, host, port } = *origin;
    let Asker { initiator, loginuid, .. } = asker;
    field(workload.as_bytes());
    field(&initiator.to_be_bytes());
    field(loginuid.map_or_else(String::new, |uid| uid.to_string()).as_bytes());
    field(principal.map_or("", |who| who.id.as_str()).as_bytes());
    let client = principal.and_then(|who| who.client);
    field(client.map_or_else(String::new, |client| client.to_string()).as_bytes());
    field(parts.method.as_str().as_bytes());
    field(scheme.as_bytes());
    field(host.as_bytes());
    field(&port.to_be_bytes());
    field(parts.uri.path().as_bytes());
    field(parts.uri.query().map_or_else(String::new, |query| format!("?{query}")).as_bytes());
    let (body, decoded) = match decoded(&parts.headers, body) {
        Some(decoded) => (decoded, true),
        None => (body.to_vec(), false),
    };
    let mut names: Vec<&HeaderName> = parts.headers.keys().collect();
    names.sort_unstable_by_key(|name| name.as_str());
    for name in names {
        // The token may be a new one, as long as it names the same.
        let is_known = *name == header::AUTHORIZATION && credential == Credential::Entra;
        // Each handshake has another one (RFC 6455 section 4.1): 16 bytes, and nothing else is taken for one.
        let is_nonce = websocket && *name == header::SEC_WEBSOCKET_KEY;
        if is_known || is_nonce || is_noise(name) || (decoded && *name == header::CONTENT_ENCODING) {
            continue;
        }
        for value in parts.headers.get_all(name) {
            field(name.as_str().as_bytes());
            field(value.as_bytes());
        }
    }
    field(b"body");
    field(&body);
    if websocket {
        // The header fields that ask for it are of one hop, and gone by now.
        field(b"websocket");
    }
}

struct Fields(Context);

impl Fields {
    /// With its length, so that no two lists of fields are alike.
    fn field(&mut self, field: impl AsRef<[u8]>) {
        let field = field.as_ref();
        self.0.update(&(field.len() as u64).to_be_bytes());
        self.0.update(field);
    }

    fn end(self) -> Digest {
        let tag = self.0.sign();
        let mut digest = [0; 32];
        digest.copy_from_slice(&tag.as_ref()[..32]);
        digest.into()
    }
}

fn is_noise(name: &HeaderName) -> bool {
    NOISE.contains(name) || name.as_str().ends_with("-request-id") || name == "request-id" || is_hop_by_hop(name)
}

/// The body without its codings; none if it has none, or they can't be undone.
fn decoded(headers: &HeaderMap, body: &[u8]) -> Option<Vec<u8>> {
    let lines: Option<Vec<&str>> =
        headers.get_all(header::CONTENT_ENCODING).iter().map(|value| value.to_str().ok()).collect();
    // Together, so that there aren't more of them than may be.
    let applied = codings(&lines?.join(",")).ok()?;
    if applied.is_empty() {
        return None;
    }
    let mut out = Vec::new();
    let mut give = |bytes: &[u8]| {
        out.extend_from_slice(bytes);
        Ok(())
    };
    let mut decoder = Decoder::new(&applied, Expansion::default()).ok()?;
    decoder.push(body, &mut give).ok()?;
    decoder.finish(&mut give).ok()?;
    Some(out)
}

#[cfg(test)]
mod tests;
