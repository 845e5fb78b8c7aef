//! How people sign in: by a code that a browser brings back (RFC 6749 section 4.1, RFC 7636), or at another device
//! (RFC 8628). Nobody sits before a browser here: what they would do is told to the fixture.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::client::client;
use super::directory::{self, Application};
use super::grants::{Endpoint, Form};
use super::refusal::Refusal;
use super::state::{Device, DeviceAnswer, Inner, SignIn, guid};

/// Makes a device code.
pub(super) fn device(state: &mut Inner, endpoint: Endpoint<'_>, form: &Form<'_>) -> Result<Value, Refusal> {
    let client = client(form.need("client_id")?, endpoint)?;
    let scope = match form.field("scope") {
        Some(scope) => scope.to_owned(),
        None => format!("{}/.default", form.need("resource")?),
    };
    let code = format!("D{}", guid().replace('-', ""));
    let user_code = guid()[..8].to_ascii_uppercase();
    state.devices.insert(code.clone(), Device { client: client.id, scope, asked: 0 });
    Ok(json!({
        "device_code": code,
        "user_code": user_code,
        "verification_uri": "https://microsoft.com/devicelogin",
        "expires_in": 900,
        "interval": 1,
        "message": format!("To sign in, open https://microsoft.com/devicelogin and enter the code {user_code}."),
    }))
}

/// Asks whether somebody signed in with the device code.
pub(super) fn poll(state: &mut Inner, form: &Form<'_>, client: &'static Application) -> Result<SignIn, Refusal> {
    // v1 calls it `code`.
    let code = form.field("device_code").map_or_else(|| form.need("code"), Ok)?;
    let answer = state.device_answer;
    let device = state.devices.get_mut(code).filter(|device| device.client == client.id);
    let Some(device) = device else {
        return Err(Refusal::new("bad_verification_code", 70_018, "Invalid verification code."));
    };
    device.asked += 1;
    match answer {
        DeviceAnswer::Granted { by, after } if device.asked > after => {
            let scope = device.scope.clone();
            state.devices.remove(code);
            Ok(SignIn { user: by, client: client.id, scope, redirect: String::new(), challenge: None, nonce: None })
        }
        DeviceAnswer::Granted { .. } => {
            let text = "OAuth 2.0 device flow error. Authorization is pending. Continue polling.";
            Err(Refusal::new("authorization_pending", 70_016, text))
        }
        DeviceAnswer::Declined => {
            state.devices.remove(code);
            Err(Refusal::new("authorization_declined", 70_017, "The user declined the authorization."))
        }
        DeviceAnswer::Expired => {
            state.devices.remove(code);
            Err(Refusal::new("expired_token", 70_020, "The device code has expired."))
        }
    }
}

/// Makes a code for the person that `login_hint` names, and the address that a browser is sent back to.
pub(super) fn authorize(state: &mut Inner, endpoint: Endpoint<'_>, query: &Form<'_>) -> Result<String, Refusal> {
    let client = client(query.need("client_id")?, endpoint)?;
    let redirect = query.need("redirect_uri")?;
    let hint = query.need("login_hint")?;
    let user = directory::USERS.iter().copied().find(|user| user.upn == hint).ok_or_else(|| {
        Refusal::new("invalid_request", 50_034, format!("The user account {hint} does not exist in the directory."))
    })?;
    let code = format!("1.{}", guid());
    let sign_in = SignIn {
        user,
        client: client.id,
        scope: query.need("scope")?.to_owned(),
        redirect: redirect.to_owned(),
        challenge: query.field("code_challenge").map(str::to_owned),
        nonce: query.field("nonce").map(str::to_owned),
    };
    state.codes.insert(code.clone(), sign_in);
    let mut back = form_urlencoded::Serializer::new(String::new());
    back.append_pair("code", &code);
    if let Some(known) = query.field("state") {
        back.append_pair("state", known);
    }
    Ok(format!("{redirect}{}{}", if redirect.contains('?') { '&' } else { '?' }, back.finish()))
}

/// Takes a code; it serves once.
pub(super) fn redeem(state: &mut Inner, form: &Form<'_>, client: &'static Application) -> Result<SignIn, Refusal> {
    let known = state.codes.remove(form.need("code")?).filter(|one| one.client == client.id);
    let sign_in = known.ok_or_else(|| {
        Refusal::new("invalid_grant", 54_005, "OAuth2 Authorization code was already redeemed, or isn't known.")
    })?;
    if form.need("redirect_uri")? != sign_in.redirect {
        return Err(Refusal::new("invalid_client", 50_011, "The redirect URI doesn't match the one of the request."));
    }
    if let Some(challenge) = &sign_in.challenge {
        let verifier = form.need("code_verifier")?;
        if URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes())) != *challenge {
            return Err(Refusal::new("invalid_grant", 501_481, "The Code_Verifier does not match the code_challenge."));
        }
    }
    Ok(sign_in)
}
