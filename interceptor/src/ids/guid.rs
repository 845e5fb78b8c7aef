//! Entra's ids: GUIDs, written in lower case, one type for each thing that they name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize, Serializer};

use super::IdError;

/// 128 bits, as the 36 characters of RFC 9562 section 4 show them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Guid(u128);

const HYPHENS: [usize; 4] = [8, 13, 18, 23];

impl Guid {
    fn parse(text: &str) -> Option<Self> {
        if text.len() != 36 {
            return None;
        }
        let mut value = 0;
        for (at, c) in text.bytes().enumerate() {
            if HYPHENS.contains(&at) {
                if c != b'-' {
                    return None;
                }
            } else {
                value = value << 4 | u128::from(char::from(c).to_digit(16)?);
            }
        }
        Some(Self(value))
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut text, mut shift) = ([0; 36], 128);
        for (at, byte) in text.iter_mut().enumerate() {
            *byte = if HYPHENS.contains(&at) {
                b'-'
            } else {
                shift -= 4;
                b"0123456789abcdef"[(self.0 >> shift & 0xf) as usize]
            };
        }
        // In one piece: what is written to a text or a record grows with each.
        f.write_str(std::str::from_utf8(&text).map_err(|_never| fmt::Error)?)
    }
}

macro_rules! guid {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name(Guid);

        impl $name {
            /// The id whose 128 bits these are.
            pub const fn from_bits(bits: u128) -> Self {
                Self(Guid(bits))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                Guid::parse(text).map(Self).ok_or_else(|| IdError::Guid(text.into()))
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

guid!(
    /// A tenant (`tid`).
    TenantId
);
guid!(
    /// An object of a tenant's directory (`oid`): a user, a service principal, an agent identity, a group.
    ObjectId
);
guid!(
    /// An application (`azp`, `appid`, `client_id`).
    ClientId
);
