//! The ID token of a person who signs in to the daemon itself (OpenID Connect Core section 3.1.3.7).

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::claims::{Groups, Subject};
use super::super::keys::KeyAuthority;
use super::super::verify::{self, Expected, Issuer};
use super::super::{Token, TokenError};
use super::{Judge, JudgeError, cloud};
use crate::config;
use crate::ids::{ClientId, PrincipalId};

/// Who signed in, and what proves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedIn {
    /// Who.
    pub person: PrincipalId,
    /// The groups that the token lists, `<tenant>/<id>`; none where it lists none, or there are more than fit.
    pub groups: BTreeSet<String>,
    /// The token's `uti`, by which Entra's sign-in logs know it.
    pub uti: Option<String>,
    /// The key that signed it (RFC 7517).
    pub jwk: Value,
}

impl Judge {
    /// Verifies the ID token of somebody who signed in to `tenant` by `client`. With a code that a browser brought, its
    /// `nonce` has to be the one that was asked for; a device code has none.
    ///
    /// # Errors
    /// Why it isn't believed, or that the issuer's keys can't be had.
    pub async fn sign_in(
        &self,
        tenant: &config::Tenant,
        client: ClientId,
        id_token: &str,
        nonce: Option<&str>,
    ) -> Result<SignedIn, JudgeError> {
        let token = Token::parse(id_token)?;
        let cloud = cloud(tenant);
        let [_, v2] = cloud.issuers(tenant.id);
        let issuer = Issuer::Entra { cloud, tenant: tenant.id };
        let kid = token.kid().ok_or(TokenError::KeyMissing)?;
        let keys = self.source(KeyAuthority::of(&v2)).keys(kid).await?;
        let audiences = [client.to_string()];
        // Entra signs ID tokens with RS256, and says so in its discovery document.
        let expected = Expected { issuer: &issuer, audiences: &audiences, ps256: false };
        verify::verify(&token, &keys, &expected, self.clock.now())?;
        let claims = token.claims();
        if claims.nonce.as_deref() != nonce {
            return Err(TokenError::Nonce.into());
        }
        // An application's token is nobody's sign-in, whatever it is for.
        if claims.aud.len() != 1 || claims.idtyp == Some(Subject::App) {
            return Err(TokenError::Audience.into());
        }
        let (tid, oid) = claims.object()?;
        let groups = match &claims.groups {
            Groups::Listed(groups) => groups.iter().map(|group| format!("{tid}/{group}")).collect(),
            Groups::Overage | Groups::Absent => BTreeSet::new(),
        };
        let jwk = keys.find(kid).ok_or(TokenError::KeyUnknown)?.jwk(kid);
        Ok(SignedIn { person: PrincipalId::entra(tid, oid), groups, uti: claims.uti.clone(), jwk })
    }
}
