//! A target's own credential on the way of a request: what the process sent in its place is taken out first, it is put
//! in once the request is permitted and recorded, and its echo in the answer is masked.

use http::response::Parts;
use http::{HeaderName, Request, Uri, header, request};
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;

use super::live::Live;
use super::operation::nothing_decoded;
use super::reply::Refusal;
use crate::config::CredentialSettings;
use crate::enforce;
use crate::error::{Blame, Fault};
use crate::policy::Permit;
use crate::record::Recorded;
use crate::transport::http::Metered;
use crate::vault::Echo;

/// Takes out of a request what its target's own credential will stand for, before anybody looks at it.
///
/// # Errors
/// `internal`, if the rest isn't a URL, which doesn't happen.
pub(super) fn strip(parts: &mut request::Parts, own: &CredentialSettings) -> Result<(), Fault> {
    let replaced: Vec<HeaderName> =
        parts.headers.keys().filter(|name| own.replaces_header(name.as_str())).cloned().collect();
    for name in replaced {
        parts.headers.remove(name);
    }
    let Some(query) = parts.uri.query() else { return Ok(()) };
    let kept: Vec<&str> = query.split('&').filter(|pair| !own.replaces_parameter(&key(pair))).collect();
    if kept.len() == query.split('&').count() {
        return Ok(());
    }
    let path = parts.uri.path();
    let rest = if kept.is_empty() { path.to_owned() } else { format!("{path}?{}", kept.join("&")) };
    let mut uri = parts.uri.clone().into_parts();
    uri.path_and_query = Some(rest.parse().map_err(|_invalid| nothing_decoded())?);
    parts.uri = Uri::from_parts(uri).map_err(|_invalid| nothing_decoded())?;
    Ok(())
}

/// The key of a pair of the query, as servers read it.
fn key(pair: &str) -> String {
    let key = pair.split('=').next().unwrap_or_default().replace('+', " ");
    percent_decode_str(&key).decode_utf8_lossy().into_owned()
}

/// Puts the target's credential, if it has one, into a request that was permitted and recorded.
///
/// # Errors
/// `credential-unavailable`: then nothing is sent.
pub(super) async fn inject(
    live: &Live,
    permit: &Permit,
    recorded: &Recorded,
    request: Request<Metered>,
) -> Result<(Request<Metered>, Echo), Refusal> {
    let world = live.session().world();
    let Some(target) = world.snapshot.settings.targets.find(live.host(), live.port()) else {
        return Ok((request, Echo::default()));
    };
    let credential = match world.vault.credential(&target.name).await {
        Ok(Some(credential)) => credential,
        Ok(None) => return Ok((request, Echo::default())),
        Err(error) => return Err(enforce::unavailable(&error).into()),
    };
    // In clear only where the operator said so; in TLS the peer was verified when it was dialled.
    if !live.tls() && !target.cleartext {
        return Err(cleartext().into());
    }
    Ok(enforce::inject(permit, recorded, credential, request, live.session().worker.now())?)
}

/// Masks the echo of a credential in the head of an answer.
///
/// # Errors
/// `response-unreadable`, where a coding could hide an echo in the body.
pub(super) fn conceal(echo: &Echo, parts: &mut Parts, has_body: bool) -> Result<(), Fault> {
    if echo.is_empty() {
        return Ok(());
    }
    let coded = parts.headers.get_all(header::CONTENT_ENCODING).iter().any(|value| value != "identity");
    if coded && has_body {
        return Err(unreadable());
    }
    let found = echo.headers(&mut parts.headers);
    if found > 0 {
        tracing::warn!(found, "an upstream echoed an injected credential in its headers; it was masked");
    }
    Ok(())
}

/// Whether an answer has a body.
pub(super) fn has_body(body: &Incoming) -> bool {
    !hyper::body::Body::is_end_stream(body)
}

fn cleartext() -> Fault {
    Fault {
        code: "credential-cleartext",
        blame: Blame::Operator,
        told: "the target's credential is not sent without TLS".into(),
        next: "use https",
    }
}

fn unreadable() -> Fault {
    Fault {
        code: "response-unreadable",
        blame: Blame::Upstream,
        told: "the server compressed its answer unasked, so it can't be told whether it repeats a secret".into(),
        next: "don't retry: ask the operator of this host",
    }
}
