//! Whether a token is to be believed: issued by the issuer that is expected, for an audience that is expected, now, and
//! signed by one of that issuer's keys (RFC 7519 section 7.2, RFC 8725).

use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, RsaParameters};
use jiff::{SignedDuration, Timestamp};

use super::claims::{Claims, Version};
use super::jwt::{Algorithm, Token, TokenError};
use super::keys::KeySet;
use crate::ids::TenantId;

/// How far clocks may be apart.
pub const LEEWAY: SignedDuration = SignedDuration::from_secs(60);

/// The hosts of an Entra cloud.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cloud {
    /// `https://` and the host (and port) of version 2's issuers and of the keys.
    pub login: String,
    /// `https://` and the host of version 1's issuers.
    pub sts: String,
    /// The audience of Microsoft Graph.
    pub graph: String,
}

impl Default for Cloud {
    /// The public cloud.
    fn default() -> Self {
        Cloud {
            login: "https://login.microsoftonline.com".into(),
            sts: "https://sts.windows.net".into(),
            graph: "https://graph.microsoft.com".into(),
        }
    }
}

impl Cloud {
    /// The issuers of a tenant's tokens: version 1's, version 2's.
    pub fn issuers(&self, tenant: TenantId) -> [String; 2] {
        [format!("{}/{tenant}/", self.sts), format!("{}/{tenant}/v2.0", self.login)]
    }
}

/// Whose tokens are expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Issuer {
    /// A tenant of Entra, with either version of token: the resource decides which it gets.
    Entra {
        /// The cloud.
        cloud: Cloud,
        /// The tenant.
        tenant: TenantId,
    },
    /// Another OIDC provider, by exactly this `iss`.
    Oidc(String),
}

/// What a token must say.
#[derive(Debug, Clone)]
pub struct Expected<'a> {
    /// Whose it must be.
    pub issuer: &'a Issuer,
    /// Whom it must be for: one of these.
    pub audiences: &'a [String],
    /// Whether PS256 is accepted besides RS256.
    pub ps256: bool,
}

/// Verifies a token in full at the time `now`.
///
/// # Errors
/// The first reason not to believe it: first what it says, then who signed it.
pub fn verify(token: &Token, keys: &KeySet, expected: &Expected<'_>, now: Timestamp) -> Result<(), TokenError> {
    let claims = token.claims();
    if token.is_only_for_its_service() {
        return Err(TokenError::OnlyItsService);
    }
    if token.algorithm() == Algorithm::Ps256 && !expected.ps256 {
        return Err(TokenError::AlgorithmNotAccepted);
    }
    expected.issuer.accepts(claims)?;
    if claims.aud.is_empty() {
        return Err(TokenError::ClaimMissing("aud"));
    }
    if !claims.aud.iter().any(|aud| expected.audiences.contains(aud)) {
        return Err(TokenError::Audience);
    }
    is_current(claims, now)?;
    let key = keys.find(token.kid().ok_or(TokenError::KeyMissing)?).ok_or(TokenError::KeyUnknown)?;
    if !key.signs_with(token.algorithm()) || !key.issuer().is_none_or(|template| expected.issuer.owns(template)) {
        return Err(TokenError::KeyNotForIssuer);
    }
    let parameters: &RsaParameters = match token.algorithm() {
        Algorithm::Rs256 => &RSA_PKCS1_2048_8192_SHA256,
        Algorithm::Ps256 => &RSA_PSS_2048_8192_SHA256,
    };
    key.components().verify(parameters, token.signed(), token.signature()).map_err(|_| TokenError::Signature)
}

/// Whether a token's time has come and not yet gone. Also what holds for a token that only its service can verify.
///
/// # Errors
/// [`TokenError::Expired`], [`TokenError::NotYetValid`], or that it has no end.
pub fn is_current(claims: &Claims, now: Timestamp) -> Result<(), TokenError> {
    let exp = claims.exp.ok_or(TokenError::ClaimMissing("exp"))?;
    if now.duration_since(exp) >= LEEWAY {
        return Err(TokenError::Expired);
    }
    if claims.nbf.is_some_and(|nbf| nbf.duration_since(now) > LEEWAY) {
        return Err(TokenError::NotYetValid);
    }
    Ok(())
}

impl Issuer {
    /// Whether the claims name this issuer, and agree with themselves about it.
    fn accepts(&self, claims: &Claims) -> Result<(), TokenError> {
        let iss = claims.iss.as_deref().ok_or(TokenError::ClaimMissing("iss"))?;
        match self {
            Issuer::Oidc(issuer) if issuer == iss => Ok(()),
            Issuer::Oidc(_) => Err(TokenError::Issuer),
            Issuer::Entra { cloud, tenant } => {
                let [v1, v2] = cloud.issuers(*tenant);
                let form = match iss {
                    iss if iss == v1 => Version::V1,
                    iss if iss == v2 => Version::V2,
                    _ => return Err(TokenError::Issuer),
                };
                if claims.tid.ok_or(TokenError::ClaimMissing("tid"))? != *tenant {
                    return Err(TokenError::Tenant);
                }
                claims.object()?;
                match claims.ver {
                    Some(version) if version == form => Ok(()),
                    Some(_) => Err(TokenError::Version),
                    None => Err(TokenError::ClaimMissing("ver")),
                }
            }
        }
    }

    /// Whether the issuer that a key names is this one. Entra publishes one set for both versions' tokens, and its keys
    /// name a template, or a tenant's issuer in either version.
    fn owns(&self, template: &str) -> bool {
        match self {
            Issuer::Oidc(issuer) => issuer == template,
            Issuer::Entra { cloud, tenant } => {
                cloud.issuers(*tenant).contains(&template.replace("{tenantid}", &tenant.to_string()))
            }
        }
    }
}

#[cfg(test)]
mod tests;
