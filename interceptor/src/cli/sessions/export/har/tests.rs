use super::super::entry;
use super::*;
use crate::cli::sessions::tests::{operation, story};
use crate::record::Content;

fn content(request: Message, response: Message) -> Kept {
    Kept::Content(Box::new(Content { request, response: Some(response) }))
}

/// Of a session to `original`, and `host` if that is known, which came in TLS or not.
fn url(original: &str, host: Option<&str>, (tls, version): (Option<bool>, &str)) -> Value {
    let mut session = story().session;
    (session.original, session.host) = (original.into(), host.map(str::to_owned));
    let request = Message { start: format!("GET /a?b=c {version}"), tls, ..Message::default() };
    entry(Some(&session), &operation(), &content(request, Message::default()))["request"]["url"].clone()
}

#[test]
fn an_address_has_the_scheme_that_was_spoken() {
    let (one, two) = ("HTTP/1.1", "HTTP/2");
    let name = Some("a.example");
    for (original, host, spoken, expected) in [
        ("198.18.0.1:443", name, (Some(true), one), "https://a.example/a?b=c"),
        ("198.18.0.1:8080", name, (Some(false), one), "http://a.example:8080/a?b=c"),
        ("198.18.0.1:80", name, (Some(true), one), "https://a.example:80/a?b=c"),
        ("198.18.0.1:80", name, (Some(false), one), "http://a.example/a?b=c"),
        ("198.18.0.1:443", name, (Some(false), one), "http://a.example:443/a?b=c"),
        ("198.18.0.1:80", name, (None, one), "http://a.example/a?b=c"),
        ("198.18.0.1:80", name, (None, two), "https://a.example:80/a?b=c"),
        ("198.18.0.1:8443", name, (None, one), "https://a.example:8443/a?b=c"),
        ("[2001:db8::1]:443", Some("2001:db8::1"), (Some(true), one), "https://[2001:db8::1]/a?b=c"),
        ("[2001:db8::1]:8443", None, (Some(true), one), "https://[2001:db8::1]:8443/a?b=c"),
        ("198.18.0.1:443", None, (Some(true), one), "https://198.18.0.1/a?b=c"),
    ] {
        assert_eq!(url(original, host, spoken), expected);
    }
}

#[test]
fn requests_for_tokens_are_held_and_say_what_they_are() {
    let mut token = operation();
    (token.action, token.summary) = (TOKEN.into(), "client_credentials for https://graph.microsoft.com".into());
    assert!(holds(&token) && holds(&operation()));
    for action in ["connect", "dns:resolve"] {
        assert!(!holds(&Operation { action: action.into(), ..operation() }), "{action}");
    }
    let session = story().session;
    let untold = entry(Some(&session), &token, &Kept::Nothing);
    assert_eq!((&untold["request"]["method"], &untold["comment"]), (&json!(""), &json!(token.summary)));
    assert_eq!(untold["request"]["url"], "https://graph.microsoft.com/");
    let request = Message { start: "POST /common/oauth2/v2.0/token HTTP/1.1".into(), ..Message::default() };
    let told = entry(Some(&session), &token, &content(request, Message::default()));
    assert_eq!(told["request"]["method"], "POST");
    assert_eq!(told["request"]["url"], "https://graph.microsoft.com/common/oauth2/v2.0/token");
    let websocket = Operation { summary: "GET /chat as a WebSocket, opaque".into(), ..operation() };
    assert_eq!(asked(&websocket), ("GET", "/chat"));
}

#[test]
fn what_the_format_has_no_fields_for_is_told_beside_it() {
    let request = Message { body: vec![0xff, 0xfe], partial: Some("cut".into()), ..Message::default() };
    let trailers = vec![("grpc-status".into(), "0".into())];
    let entry = |kept: &Kept| entry(Some(&story().session), &operation(), kept);
    let whole = entry(&content(request, Message { trailers, ..Message::default() }));
    assert_eq!(whole["request"]["postData"]["text"], "//4=");
    assert_eq!(whole["request"]["postData"]["_encoding"], "base64");
    let own = &whole["_interceptor"];
    assert_eq!(own["request"], json!({ "partial": "cut" }));
    assert_eq!(own["response"], json!({ "trailers": [{ "name": "grpc-status", "value": "0" }] }));
    let text = entry(&content(Message { body: b"a".to_vec(), ..Message::default() }, Message::default()));
    assert!(text["request"]["postData"]["_encoding"].is_null(), "{text}");
    assert!(text["_interceptor"]["request"].is_null() && text["_interceptor"]["response"].is_null(), "{text}");
    let gone = entry(&Kept::Gone("it was pruned".into()));
    assert_eq!(gone["_interceptor"]["gone"], "it was pruned");
}
