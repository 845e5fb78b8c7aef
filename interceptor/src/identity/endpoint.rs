//! What a workload asks of a login host or of a host endpoint: which kind of request it is ([`recognise`]), what a token
//! request asks for ([`TokenRequest`]), and what is answered ([`Answer`]).
//!
//! Recognising must not miss: a request that a server takes for a token request, and we don't, would get a token that
//! nobody saw. So letters' case and empty segments, which servers overlook, are overlooked here too.

use std::borrow::Cow;

use crate::ids::{ClientId, ObjectId};

mod answer;
mod request;
mod scope;

pub use answer::{Answer, AnswerError, ExpiresOn};
pub use request::{Credential, Grant, MAX_FORM, RequestError, TokenRequest, check_query, check_type};
pub use scope::GRAPH;

/// Which kind of endpoint a target is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A login host of Entra.
    Entra,
    /// Azure's instance metadata service, 169.254.169.254.
    Imds,
    /// Azure Arc's agent, 127.0.0.1:40342.
    Arc,
    /// The endpoint of App Service, Functions and Container Apps (`IDENTITY_ENDPOINT`).
    AppService,
    /// Another OIDC provider.
    Oidc,
}

/// Whose dialect a token request is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Entra's first version: `resource`.
    V1,
    /// Entra's second version: `scope`.
    V2,
    /// RFC 6749, with the resource indicators of RFC 8707.
    Oidc,
}

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// A token, by a form in the body.
    Token {
        /// The path's tenant; Entra takes a path without one for `common`. None for other providers.
        tenant: Option<String>,
        /// The form's dialect.
        dialect: Dialect,
    },
    /// A code that a person enters at another device (RFC 8628).
    DeviceCode {
        /// As above.
        tenant: Option<String>,
        /// As above.
        dialect: Dialect,
    },
    /// What is published for everybody: discovery, keys, the list of clouds.
    Metadata {
        /// The path's tenant, if it names one.
        tenant: Option<String>,
    },
    /// A token for a managed identity, by the query.
    ManagedIdentity(ManagedIdentity),
    /// Anything else.
    Other {
        /// The path's tenant, if it names one.
        tenant: Option<String>,
    },
}

/// Whose token a host endpoint is asked for, and for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManagedIdentity {
    /// The audience; a probe has none.
    pub resource: Option<String>,
    /// Which identity.
    pub identity: Identity,
}

/// Which of a host's identities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// The one that belongs to the host.
    System,
    /// By application.
    Client(ClientId),
    /// By object.
    Object(ObjectId),
    /// By the path of the Azure resource.
    Resource(String),
}

/// Why a request to a host endpoint is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// A parameter is there twice, or two name an identity: servers differ in which one counts.
    #[error("the query says more than once what `{0}` says; send it once")]
    Twice(&'static str),
    /// An id isn't a GUID.
    #[error("`{0}` must be a GUID")]
    Malformed(&'static str),
}

impl AskError {
    /// The stable code (docs/identity.md).
    pub fn code(&self) -> &'static str {
        match self {
            AskError::Twice(_) => "identity-request-ambiguous",
            AskError::Malformed(_) => "identity-request-malformed",
        }
    }
}

/// Tells what a request asks for. `segments` are the path's, decoded; `query` is what follows the `?`, as it was sent.
///
/// # Errors
/// Where a host endpoint could read the query in more than one way.
pub fn recognise<S: AsRef<str>>(kind: Kind, method: &str, segments: &[S], query: &str) -> Result<Ask, AskError> {
    let path: Vec<String> =
        segments.iter().map(|segment| segment.as_ref().to_ascii_lowercase()).filter(|s| !s.is_empty()).collect();
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    match kind {
        Kind::Entra => Ok(entra(method, &path)),
        Kind::Oidc => Ok(oidc(method, &path)),
        // Host endpoints are dialled by the daemon, so a method that they'd take for GET is none of ours.
        Kind::Imds | Kind::Arc if method == "GET" && path == ["metadata", "identity", "oauth2", "token"] => {
            managed_identity(query)
        }
        Kind::AppService if method == "GET" && path.last() == Some(&"token") => managed_identity(query),
        Kind::Imds | Kind::Arc if method == "GET" && path == ["metadata", "identity", "info"] => {
            Ok(Ask::Metadata { tenant: None })
        }
        Kind::Imds | Kind::Arc | Kind::AppService => Ok(Ask::Other { tenant: None }),
    }
}

/// What is asked of a tenant, in a dialect.
type OfTenant = fn(Option<String>, Dialect) -> Ask;

fn entra(method: &str, path: &[&str]) -> Ask {
    let read = matches!(method, "GET" | "HEAD" | "OPTIONS");
    // B2C has a policy between the tenant and the endpoint, so endpoints are told by how the path ends.
    let (before, ask): (&[&str], OfTenant) = match path {
        [before @ .., "oauth2", "v2.0", "token"] | [before @ .., "oauth2", "token"] if !read => {
            (before, |tenant, dialect| Ask::Token { tenant, dialect })
        }
        [before @ .., "oauth2", "v2.0", "devicecode"] | [before @ .., "oauth2", "devicecode"] => {
            (before, |tenant, dialect| Ask::DeviceCode { tenant, dialect })
        }
        [before @ .., ".well-known", "openid-configuration"]
        | [before @ .., "discovery", "instance" | "keys"]
        | [before @ .., "discovery", "v2.0", "keys"]
            if read =>
        {
            (before, |tenant, _| Ask::Metadata { tenant })
        }
        _ => return Ask::Other { tenant: path.first().filter(|first| names_tenant(first)).map(|&s| s.to_owned()) },
    };
    let dialect = if path.contains(&"v2.0") { Dialect::V2 } else { Dialect::V1 };
    let tenant = before.first().filter(|first| **first != "v2.0").copied().unwrap_or("common").to_owned();
    ask(Some(tenant), dialect)
}

fn oidc(method: &str, path: &[&str]) -> Ask {
    match path {
        [.., "token" | "access_token"] if method == "POST" => Ask::Token { tenant: None, dialect: Dialect::Oidc },
        [.., "device_authorization"] | [.., "device", "code" | "authorize"] | [.., "auth", "device"]
            if method == "POST" =>
        {
            Ask::DeviceCode { tenant: None, dialect: Dialect::Oidc }
        }
        [.., ".well-known", _] | [.., "jwks" | "certs" | "keys" | "jwks.json"] if method == "GET" => {
            Ask::Metadata { tenant: None }
        }
        _ => Ask::Other { tenant: None },
    }
}

/// Whether a path's first segment can be a tenant: an alias, a GUID or a domain name.
fn names_tenant(segment: &str) -> bool {
    !segment.starts_with('.')
        && (matches!(segment, "common" | "organizations" | "consumers")
            || segment.contains('.')
            || segment.parse::<crate::ids::TenantId>().is_ok())
}

fn managed_identity(query: &str) -> Result<Ask, AskError> {
    let mut resource = None;
    let mut identity = Identity::System;
    let mut say = |named: Identity| {
        if identity != Identity::System {
            return Err(AskError::Twice("client_id"));
        }
        identity = named;
        Ok(())
    };
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let name: Cow<'_, str> = name.to_ascii_lowercase().into();
        match &*name {
            "resource" if resource.is_some() => return Err(AskError::Twice("resource")),
            "resource" => resource = Some(value.into_owned()),
            // App Service's first version spells it without the underscore.
            "client_id" | "clientid" => {
                say(Identity::Client(value.parse().map_err(|_| AskError::Malformed("client_id"))?))?;
            }
            "object_id" | "principal_id" => {
                say(Identity::Object(value.parse().map_err(|_| AskError::Malformed("object_id"))?))?;
            }
            "mi_res_id" | "msi_res_id" => say(Identity::Resource(value.into_owned()))?,
            _ => {}
        }
    }
    Ok(Ask::ManagedIdentity(ManagedIdentity { resource, identity }))
}

#[cfg(test)]
mod tests;
