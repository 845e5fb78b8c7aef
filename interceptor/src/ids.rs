//! Identifiers: the prefixed, time-sortable ids of what Interceptor makes (`ses_…`, `op_…`, `wl_…`), and the checked
//! names that a configuration gives, and Entra's GUIDs. Not here: what a token says of them (`identity`).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize, Serializer};

mod digest;
mod guid;

pub use digest::{Digest, DigestError};
pub use guid::{ClientId, ObjectId, TenantId};

/// What was wrong with the text of an id or a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text doesn't start with the kind's prefix, or what follows isn't a ULID.
    #[error("`{text}` isn't an id of the form `{prefix}_…`")]
    Malformed {
        /// What was given.
        text: String,
        /// The prefix that was expected.
        prefix: &'static str,
    },
    /// A name is empty, too long, or has a character that names can't have.
    #[error("`{0}` isn't a name: 1 to 63 of a-z, 0-9, `-` and `_`, starting with a letter or digit")]
    Name(String),
    /// Not 32 hexadecimal digits in groups of 8, 4, 4, 4 and 12.
    #[error("`{0}` isn't a GUID of the form `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx`")]
    Guid(String),
    /// Not a tenant's or an issuer's id with an object or subject of it.
    #[error("`{0}` isn't `<tenant>/<object>` in GUIDs, or `<issuer>/<subject>`")]
    Principal(String),
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name(ulid::Ulid);

        impl $name {
            /// A new id; ids made later sort later (to the millisecond).
            #[expect(clippy::new_without_default, reason = "a default id would be a different id each time")]
            pub fn new() -> Self {
                Self(ulid::Ulid::generate())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                const PREFIX: &str = concat!($prefix, "_");
                let mut text = [0; PREFIX.len() + ulid::ULID_LEN];
                let (prefix, id) = text.split_at_mut(PREFIX.len());
                prefix.copy_from_slice(PREFIX.as_bytes());
                if let Some(id) = id.first_chunk_mut() {
                    self.0.array_to_str(id).make_ascii_lowercase();
                }
                // In one piece: a text that it is written to grows with each.
                f.write_str(std::str::from_utf8(&text).map_err(|_never| fmt::Error)?)
            }
        }

        // Without a text of its own: a record has many.
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                text.strip_prefix(concat!($prefix, "_"))
                    .and_then(|rest| ulid::Ulid::from_string(rest).ok())
                    .map(Self)
                    .ok_or_else(|| IdError::Malformed { text: text.into(), prefix: $prefix })
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.to_string()
            }
        }
    };
}

id!(
    /// One session: one connection of a workload to a target.
    SessionId, "ses"
);
id!(
    /// One operation: one thing a workload asks of a target.
    OperationId, "op"
);
id!(
    /// One launched workload: one namespace, from its first process to its last.
    LaunchId, "wl"
);

id!(
    /// One held operation, to be answered by people.
    ApprovalId, "apr"
);
id!(
    /// What an answer, or an operator, lets through.
    GrantId, "grt"
);
id!(
    /// One time in which a workload may what was written for an emergency.
    BreakGlassId, "brk"
);
id!(
    /// One notification, however often it is tried.
    MessageId, "msg"
);

/// What text newtypes have in common: the text, and serde by way of it.
macro_rules! text {
    ($(#[$doc:meta])* $name:ident, $read:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name(Box<str>);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                $read(text).map(Self)
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(text: $name) -> String {
                text.0.into()
            }
        }
    };
}

text!(
    /// The name of a `[[workload]]`.
    WorkloadName, name
);
text!(
    /// The name of a `[[target]]`.
    TargetName, name
);
text!(
    /// The name of a `[[mask]]`, of a detector, or of a group of detectors.
    MaskName, name
);
text!(
    /// The name of an `[[issuer]]`.
    IssuerName, name
);
text!(
    /// The name of an `[[export]]`.
    ExportName, name
);
text!(
    /// The name of a `[[notify]]`.
    ChannelName, name
);

text!(
    /// Who a token names, in every tenant and issuer: `<tenant>/<object>`, or `<issuer>/<subject>`. Never a mail address or
    /// a user principal name, which can be given to somebody else.
    PrincipalId, principal
);

impl PrincipalId {
    /// An object of an Entra tenant.
    pub fn entra(tenant: TenantId, object: ObjectId) -> Self {
        Self(format!("{tenant}/{object}").into())
    }

    /// The subject of another issuer.
    ///
    /// # Errors
    /// The subject is empty, longer than 255 bytes (OpenID Connect Core section 2), or has control characters.
    pub fn subject(issuer: &IssuerName, subject: &str) -> Result<Self, IdError> {
        format!("{issuer}/{subject}").parse()
    }

    /// The tenant, or the name of the issuer.
    pub fn realm(&self) -> &str {
        self.0.split_once('/').map_or("", |(realm, _)| realm)
    }
}

fn principal(text: &str) -> Result<Box<str>, IdError> {
    let refused = || IdError::Principal(text.into());
    let (realm, who) = text.split_once('/').ok_or_else(refused)?;
    if let Ok(realm) = realm.parse::<TenantId>() {
        return who.parse::<ObjectId>().map(|who| format!("{realm}/{who}").into()).map_err(|_| refused());
    }
    let plain = (1..=255).contains(&who.len()) && !who.chars().any(char::is_control);
    if is_name(realm) && plain { Ok(text.into()) } else { Err(refused()) }
}

fn name(text: &str) -> Result<Box<str>, IdError> {
    if is_name(text) { Ok(text.into()) } else { Err(IdError::Name(text.into())) }
}

fn is_name(text: &str) -> bool {
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let bytes = text.as_bytes();
    (1..=63).contains(&bytes.len()) && plain(bytes[0]) && bytes.iter().all(|&c| plain(c) || c == b'-' || c == b'_')
}

#[cfg(test)]
mod tests;
