//! Scopes, and the audience of the token that they ask for.

/// The audience of Microsoft Graph, which short scopes such as `User.Read` are for.
pub const GRAPH: &str = "https://graph.microsoft.com";

/// Scopes that concern the sign-in itself and are for no resource (OpenID Connect Core section 5.4 and 11).
const OF_SIGN_IN: [&str; 4] = ["openid", "profile", "email", "offline_access"];

/// The audience that a scope of Entra's second version is for; none if it is for the sign-in itself.
///
/// A scope is the audience, a slash, and what is wanted of it, so `https://database.windows.net//.default` is for
/// `https://database.windows.net/`.
pub(super) fn audience(scope: &str) -> Option<&str> {
    if OF_SIGN_IN.iter().any(|own| own.eq_ignore_ascii_case(scope)) {
        return None;
    }
    let authority = scope.find("://").map_or(0, |at| at + 3);
    let audience = match scope[authority..].rfind('/') {
        Some(slash) => &scope[..authority + slash],
        // An app-ID URI or a GUID by itself: the audience with nothing asked of it.
        None if authority > 0 || scope.contains(':') || scope.parse::<crate::ids::ClientId>().is_ok() => scope,
        None => GRAPH,
    };
    Some(audience)
}
