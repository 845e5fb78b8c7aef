//! Which parts of a request authenticate it, by their names only: nothing here reads a value.

use super::Credential;

/// Request headers, in lower case, whose values authenticate.
const HEADERS: [&str; 15] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "api-key",
    "apikey",
    "x-api-key",
    "x-api-token",
    "x-auth-token",
    "x-access-token",
    "x-functions-key",
    "x-ms-client-principal",
    "x-ms-token-aad-access-token",
    "ocp-apim-subscription-key",
    "x-amz-security-token",
    "x-goog-api-key",
];

/// Keys of a query, in lower case, whose values authenticate: SAS and other signatures, keys, tokens.
const PARAMETERS: [&str; 13] = [
    "sig",
    "signature",
    "access_token",
    "id_token",
    "token",
    "api_key",
    "apikey",
    "api-key",
    "key",
    "code",
    "subscription-key",
    "x-amz-signature",
    "x-goog-signature",
];

impl Credential {
    /// What a request with these header names and this query authenticates with.
    pub fn of<'a>(headers: impl IntoIterator<Item = &'a str>, query: Option<&str>) -> Self {
        let header = headers.into_iter().any(|name| HEADERS.iter().any(|known| name.eq_ignore_ascii_case(known)));
        let secret = |key: &str| PARAMETERS.iter().any(|known| key.eq_ignore_ascii_case(known));
        let parameter = query.is_some_and(|query| match super::path::parameters(query) {
            Ok(parameters) => parameters.iter().any(|(key, _)| secret(key)),
            // What can't be read might authenticate.
            Err(_) => true,
        });
        if header || parameter { Credential::Foreign } else { Credential::None }
    }

    /// Its name, as policies compare it.
    pub fn as_str(self) -> &'static str {
        match self {
            Credential::None => "none",
            Credential::Foreign => "foreign",
        }
    }
}
