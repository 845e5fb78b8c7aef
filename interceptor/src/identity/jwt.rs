//! A token as it is sent: a JWS in compact form (RFC 7515 section 7.1) with JSON claims (RFC 7519). Reading one proves
//! nothing; who may be believed is `verify`'s and `provenance`'s.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::claims::Claims;
use super::json::{self, JsonError};

/// The most bytes that a token may have. Entra's largest, with 200 groups and many roles, have less than 16 KiB.
pub const MAX_TOKEN: usize = 32 * 1024;
/// The most bytes of a key's name.
const MAX_KID: usize = 256;

/// Why a token isn't believed. The text can be told to the client: it holds nothing of the token but names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// Longer than [`MAX_TOKEN`].
    #[error("the token has more than 32 KiB")]
    TooLong,
    /// Five parts: a JWE, which nobody but its audience can read.
    #[error("the token is encrypted; ask for one that is signed only")]
    Encrypted,
    /// Not three parts of base64url without padding.
    #[error("the token isn't a JWS in compact form (three parts of base64url)")]
    NotCompact,
    /// Header or claims aren't a JSON object.
    #[error("the token's {0} isn't a JSON object")]
    NotAnObject(Part),
    /// Header or claims have a key twice.
    #[error("the token's {0} has a key twice")]
    DuplicateKey(Part),
    /// Header or claims are nested too deep.
    #[error("the token's {0} is nested deeper than 8")]
    TooDeep(Part),
    /// The header's `alg` isn't on the list.
    #[error("the token isn't signed with RS256 or PS256")]
    Algorithm,
    /// The header's `crit` asks for extensions.
    #[error("the token's header asks for extensions (`crit`) that aren't known")]
    Critical,
    /// A claim isn't of its type, or out of range.
    #[error("the token's claim `{0}` isn't of the form that it must have")]
    ClaimMalformed(&'static str),
    /// A claim that is needed isn't there.
    #[error("the token has no claim `{0}`")]
    ClaimMissing(&'static str),
    /// The algorithm is known but not accepted from this issuer.
    #[error("the token is signed with PS256, which isn't accepted from this issuer")]
    AlgorithmNotAccepted,
    /// The header has a `nonce`: only the service that the token is for can verify it.
    #[error("the token is one that only its service can verify")]
    OnlyItsService,
    /// The issuer isn't one that is expected.
    #[error("the token's issuer isn't one that is accepted here")]
    Issuer,
    /// `tid` isn't the tenant that `iss` names.
    #[error("the token's tenant (`tid`) isn't that of its issuer")]
    Tenant,
    /// `ver` isn't the version that the form of `iss` says.
    #[error("the token's version (`ver`) doesn't fit its issuer")]
    Version,
    /// None of the audiences is expected.
    #[error("the token is for another audience")]
    Audience,
    /// An ID token's `nonce` isn't the one that was asked for.
    #[error("the ID token's `nonce` isn't that of this sign-in")]
    Nonce,
    /// It has ended.
    #[error("the token has expired; sign in again")]
    Expired,
    /// It hasn't begun.
    #[error("the token isn't valid yet; compare the clocks")]
    NotYetValid,
    /// The header names no key.
    #[error("the token's header names no key (`kid`)")]
    KeyMissing,
    /// The issuer has no key of this name.
    #[error("the token's key isn't one of its issuer")]
    KeyUnknown,
    /// The key is there for the tokens of another issuer, or not for signing.
    #[error("the token's key doesn't sign for its issuer")]
    KeyNotForIssuer,
    /// The signature is wrong.
    #[error("the token's signature is wrong")]
    Signature,
}

/// A part of a token, for errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The first: how it is signed.
    Header,
    /// The second: what it says.
    Claims,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Part::Header => "header",
            Part::Claims => "claims",
        })
    }
}

impl TokenError {
    /// The stable code (docs/identity.md).
    pub fn code(&self) -> &'static str {
        match self {
            TokenError::TooLong => "token-too-long",
            TokenError::Encrypted => "token-encrypted",
            TokenError::NotCompact => "token-not-compact",
            TokenError::NotAnObject(_) => "token-not-json",
            TokenError::DuplicateKey(_) => "token-duplicate-key",
            TokenError::TooDeep(_) => "token-too-deep",
            TokenError::Algorithm => "token-algorithm",
            TokenError::Critical => "token-critical-header",
            TokenError::ClaimMalformed(_) => "token-claim-malformed",
            TokenError::ClaimMissing(_) => "token-claim-missing",
            TokenError::AlgorithmNotAccepted => "token-algorithm-not-accepted",
            TokenError::OnlyItsService => "token-not-verifiable",
            TokenError::Issuer => "token-issuer",
            TokenError::Tenant => "token-tenant",
            TokenError::Version => "token-version",
            TokenError::Audience => "token-audience",
            TokenError::Nonce => "token-nonce",
            TokenError::Expired => "token-expired",
            TokenError::NotYetValid => "token-not-yet-valid",
            TokenError::KeyMissing => "token-key-missing",
            TokenError::KeyUnknown => "token-key-unknown",
            TokenError::KeyNotForIssuer => "token-key-issuer",
            TokenError::Signature => "token-signature",
        }
    }
}

/// How a token is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PSS with SHA-256.
    Ps256,
}

/// A token that could be read. Says nothing of whether it is to be believed.
pub struct Token {
    /// `header.claims`, the bytes that are signed.
    signed: Zeroizing<String>,
    signature: Zeroizing<Vec<u8>>,
    algorithm: Algorithm,
    kid: Option<String>,
    nonce: bool,
    claims: Claims,
}

impl Token {
    /// Reads a token. Of the header, `alg`, `kid`, `crit` and `nonce` count; keys and addresses of keys in it (`jwk`,
    /// `jku`, `x5c`, `x5u`) are what its sender says, and are never looked at.
    ///
    /// # Errors
    /// The first thing that is wrong with its form.
    pub fn parse(text: &str) -> Result<Token, TokenError> {
        if text.len() > MAX_TOKEN {
            return Err(TokenError::TooLong);
        }
        let parts: Vec<&str> = text.splitn(6, '.').collect();
        let [header, payload, signature] = parts[..] else {
            return Err(if parts.len() == 5 { TokenError::Encrypted } else { TokenError::NotCompact });
        };
        let signature = decode(signature)?;
        if signature.is_empty() {
            return Err(TokenError::NotCompact);
        }
        let header = Header::read(&object(header, Part::Header)?)?;
        let claims = Claims::read(object(payload, Part::Claims)?)?;
        let signed = text.rsplit_once('.').map_or(text, |(signed, _)| signed);
        Ok(Token {
            signed: Zeroizing::new(signed.to_owned()),
            signature,
            algorithm: header.algorithm,
            kid: header.kid,
            nonce: header.nonce,
            claims,
        })
    }

    /// What it says.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// How it says it is signed.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The key that it says it is signed with.
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// Whether only the service that it is for can verify it (Graph's tokens: a `nonce` in the header, of which what was
    /// signed held the digest).
    pub fn is_only_for_its_service(&self) -> bool {
        self.nonce
    }

    /// The bytes that are signed.
    pub(super) fn signed(&self) -> &[u8] {
        self.signed.as_bytes()
    }

    /// The signature over them.
    pub(super) fn signature(&self) -> &[u8] {
        &self.signature
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("algorithm", &self.algorithm).field("kid", &self.kid).finish_non_exhaustive()
    }
}

struct Header {
    algorithm: Algorithm,
    kid: Option<String>,
    nonce: bool,
}

impl Header {
    fn read(header: &Map<String, Value>) -> Result<Header, TokenError> {
        if header.contains_key("crit") {
            return Err(TokenError::Critical);
        }
        let algorithm = match header.get("alg").and_then(Value::as_str) {
            Some("RS256") => Algorithm::Rs256,
            Some("PS256") => Algorithm::Ps256,
            _ => return Err(TokenError::Algorithm),
        };
        let kid = match header.get("kid") {
            None => None,
            Some(Value::String(kid)) if (1..=MAX_KID).contains(&kid.len()) => Some(kid.clone()),
            Some(_) => return Err(TokenError::KeyUnknown),
        };
        Ok(Header { algorithm, kid, nonce: header.contains_key("nonce") })
    }
}

fn object(part: &str, name: Part) -> Result<Map<String, Value>, TokenError> {
    json::object(&decode(part)?).map_err(|error| match error {
        JsonError::NotAnObject => TokenError::NotAnObject(name),
        JsonError::DuplicateKey => TokenError::DuplicateKey(name),
        JsonError::TooDeep => TokenError::TooDeep(name),
    })
}

/// base64url without padding, line breaks or stray last bits: one spelling for the same bytes.
fn decode(part: &str) -> Result<Zeroizing<Vec<u8>>, TokenError> {
    URL_SAFE_NO_PAD.decode(part).map(Zeroizing::new).map_err(|_| TokenError::NotCompact)
}

#[cfg(test)]
mod tests;
