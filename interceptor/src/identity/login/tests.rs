use super::*;

fn tenant() -> Tenant {
    Tenant {
        id: "aaaabbbb-0000-cccc-1111-dddd2222eeee".parse().unwrap(),
        domains: Vec::new(),
        login: "login.microsoftonline.com".parse().unwrap(),
        audiences: Vec::new(),
        directory: None,
    }
}

fn client() -> ClientId {
    "11112222-bbbb-3333-cccc-4444dddd5555".parse().unwrap()
}

#[test]
fn the_challenge_is_that_of_rfc_7636_appendix_b() {
    let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    assert_eq!(challenge(verifier), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
}

#[test]
fn a_verifier_is_long_enough_and_new_each_time() {
    let (one, other) = (random().unwrap(), random().unwrap());
    assert_ne!(one.expose(), other.expose());
    // RFC 7636 section 4.1: 43 to 128 unreserved characters.
    assert_eq!(one.expose().len(), 43);
    assert!(one.expose().bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_')));
}

#[test]
fn a_browser_is_asked_for_all_that_is_checked_later() {
    let ask = Ask { redirect: &redirect(4711), state: "s", nonce: "n", challenge: "c" };
    let url = authorize_url(&tenant(), client(), ask);
    let (place, query) = url.split_once('?').unwrap();
    assert_eq!(place, "https://login.microsoftonline.com/aaaabbbb-0000-cccc-1111-dddd2222eeee/oauth2/v2.0/authorize");
    let pairs: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    for (name, value) in [
        ("client_id", "11112222-bbbb-3333-cccc-4444dddd5555"),
        ("response_type", "code"),
        ("redirect_uri", "http://localhost:4711"),
        ("scope", "openid profile"),
        ("state", "s"),
        ("nonce", "n"),
        ("code_challenge", "c"),
        ("code_challenge_method", "S256"),
        ("prompt", "select_account"),
    ] {
        assert!(pairs.contains(&(name.into(), value.into())), "{name} in {url}");
    }
}

#[test]
fn a_code_is_taken_only_with_the_state_and_only_once_said() {
    let code = |query: &str| super::code(query, "st").map(|code| code.expose().to_owned());
    assert_eq!(code("code=a%2Fb&state=st&session_state=x"), Ok("a/b".into()));
    for foreign in ["", "code=a", "code=a&state=", "code=a&state=other", "state=st", "code=&state=st"] {
        assert_eq!(code(foreign), Err(LoginError::Foreign), "{foreign}");
    }
    for twice in ["code=a&state=st&state=st", "code=a&code=b&state=st"] {
        assert_eq!(code(twice), Err(LoginError::Foreign), "{twice}");
    }
    let denied = code("error=access_denied&error_description=no%0D%0Amore&state=st").unwrap_err();
    assert_eq!(denied, LoginError::Denied { code: "access_denied".into(), told: "no".into() });
    // Who doesn't know the state tells us nothing, not even of an error.
    assert_eq!(code("error=access_denied&state=other"), Err(LoginError::Foreign));
}

#[test]
fn answers_of_the_login_host_are_told_apart() {
    let token = |body: &str| id_token(body.as_bytes()).map(|token| token.expose().to_owned());
    assert_eq!(token(r#"{"id_token":"a.b.c","access_token":"x"}"#), Ok("a.b.c".into()));
    assert_eq!(token(r#"{"error":"authorization_pending"}"#), Err(LoginError::Pending { slower: false }));
    assert_eq!(token(r#"{"error":"slow_down"}"#), Err(LoginError::Pending { slower: true }));
    let denied = |code: &str, told: &str| Err(LoginError::Denied { code: code.into(), told: told.into() });
    assert_eq!(
        token(r#"{"error":"invalid_grant","error_description":"AADSTS70008: old\r\nTrace"}"#),
        denied("invalid_grant", "AADSTS70008: old")
    );
    assert_eq!(token(r#"{"error":"<b>"}"#), denied("other", "other"));
    for (body, why) in [
        (r#"{"access_token":"x"}"#, "id_token"),
        (r#"{"id_token":7}"#, "id_token"),
        ("[]", "it isn't a JSON object"),
        (r#"{"id_token":"a","id_token":"b"}"#, "it isn't a JSON object"),
    ] {
        assert_eq!(token(body), Err(LoginError::Malformed(why)), "{body}");
    }
}

#[test]
fn a_device_code_is_shown_only_where_it_leads_to_https() {
    let device = |uri: &str, interval: &str| {
        let body =
            format!(r#"{{"device_code":"d","user_code":"U","verification_uri":"{uri}","expires_in":900{interval}}}"#);
        Device::parse(body.as_bytes())
    };
    let one = device("https://microsoft.com/devicelogin", "").unwrap();
    assert_eq!((one.interval, one.lasts), (Duration::from_secs(5), Duration::from_secs(900)));
    let slow = device("https://microsoft.com/devicelogin", r#","interval":4000"#).unwrap();
    assert_eq!(slow.interval, Duration::from_secs(60));
    assert_eq!(device("http://evil.example", ""), Err(LoginError::Malformed("verification_uri")));
}
