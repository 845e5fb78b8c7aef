use super::*;
use crate::pipeline::screen::tests::masked;

const MASK: &str = "[[mask]]\nname = \"m\"\njson = [\"$..phone\"]\ndetect = [\"email\"]\nheaders = [\"x-user\"]\n";

fn request(content_type: &str, body: &[u8]) -> Message {
    let fields = [("content-type", content_type), ("x-user", "ada"), ("x-to", "for ada@contoso.example"), ("x-a", "1")];
    Message {
        start: "GET /a?to=ada@contoso.example&phone=1&b=2 HTTP/1.1".into(),
        headers: fields.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        body: body.to_vec(),
        ..Message::default()
    }
}

#[test]
fn a_request_is_kept_as_its_answer_is_seen() {
    let mut message = request("application/json", br#"{"phone":"1","note":"ada@contoso.example"}"#);
    masked(MASK).conceal(&mut message);
    assert_eq!(message.start, "GET /a?to=%5Bredacted%3Aemail%5D&phone=%5Bredacted%5D&b=2 HTTP/1.1");
    let fields: Vec<_> = message.headers.iter().map(|(_, value)| value.as_str()).collect();
    assert_eq!(fields, ["application/json", "[redacted]", "for [redacted:email]", "1"]);
    assert_eq!(String::from_utf8(message.body).unwrap(), r#"{"phone":"[redacted]","note":"[redacted:email]"}"#);
    assert_eq!(message.partial, None);
    let ranges: Vec<_> = message.masked.unwrap().places.iter().map(|place| place.range()).collect();
    assert_eq!(ranges, [10..20, 30..46]);
}

#[test]
fn a_body_that_cant_be_masked_isnt_kept_and_one_that_was_cut_is_as_far_as_it_can() {
    for (content_type, body) in
        [("image/png", &b"ada"[..]), ("application/json", b"{\"phone\":\"1"), ("", b"x"), ("text/plain", b"phone: 1")]
    {
        let mut message = request(content_type, body);
        masked(MASK).conceal(&mut message);
        assert_eq!((message.body.len(), message.partial.as_deref()), (0, Some("unmasked")), "{content_type}");
        assert_eq!(message.masked, None, "{content_type}");
    }
    let mut message =
        Message { partial: Some("cut".into()), ..request("application/json", b"{\"phone\":\"1\",\"a\":\"b") };
    masked(MASK).conceal(&mut message);
    let kept = String::from_utf8(message.body).unwrap();
    assert!(kept.starts_with("{\"phone\":\"[redacted]\"") && !kept.contains("\"b"), "{kept}");
    assert_eq!(message.partial.as_deref(), Some("cut"));
    let mut message = Message { partial: Some("cut".into()), ..request("text/plain", b"write to ada.lovelace@cont") };
    masked("[[mask]]\nname = \"m\"\ndetect = [\"email\"]\n").conceal(&mut message);
    assert!(!String::from_utf8(message.body).unwrap().contains("lovelace"), "the beginning of an address is kept");
}

#[test]
fn a_field_that_cant_be_masked_isnt_kept_and_a_mask_of_members_leaves_texts_alone() {
    // Longer than what is looked at at once, and nothing tells where it ends.
    let key = format!("-----BEGIN PRIVATE KEY----- {}", "AAAA ".repeat(40_000));
    let mut message = request("application/json", b"");
    message.headers = vec![("x-note".into(), key), ("x-a".into(), "1".into())];
    masked("[[mask]]\nname = \"m\"\ndetect = [\"pem\"]\n").conceal(&mut message);
    let fields: Vec<_> = message.headers.iter().map(|(_, value)| value.as_str()).collect();
    assert_eq!(fields, ["[unmasked]", "1"]);
    let mut message = request("application/json", b"");
    masked("[[mask]]\nname = \"m\"\njson = [\"$..phone\"]\n").conceal(&mut message);
    assert_eq!(message.headers[2].1, "for ada@contoso.example");
}

#[test]
fn a_query_is_masked_by_the_words_in_its_names_and_a_form_that_names_nothing_isnt_kept() {
    let form = "application/x-www-form-urlencoded";
    let mut message = request(form, b"user[phone]=1&b=2");
    message.start = "GET /a?filter[phone]=1&where=%7B%22phone%22:1%7D&b=2 HTTP/1.1".into();
    masked(MASK).conceal(&mut message);
    let start = "GET /a?filter[phone]=%5Bredacted%5D&where=%7B%22phone%22:null%7D&b=2 HTTP/1.1";
    assert_eq!(message.start, start);
    assert_eq!(String::from_utf8(message.body).unwrap(), "user[phone]=%5Bredacted%5D&b=2");
    let mut message = request(form, b"{\"phone\":\"1\"}");
    masked(MASK).conceal(&mut message);
    assert_eq!((message.body.len(), message.partial.as_deref()), (0, Some("unmasked")));
    // Of two types the server may go by either.
    let mut message = request("application/json", b"{\"phone\":\"1\"}");
    message.headers.push(("content-type".into(), form.into()));
    masked(MASK).conceal(&mut message);
    assert_eq!((message.body.len(), message.partial.as_deref()), (0, Some("unmasked")));
}

#[test]
fn a_path_is_masked_by_detectors_in_what_is_kept_and_in_the_summary() {
    let masked = masked(MASK);
    for (path, expected) in [
        ("/v1.0/users/ada@contoso.example", "/v1.0/users/[redacted:email]"),
        ("/v1.0/users/ada%40contoso.example/messages", "/v1.0/users/[redacted:email]/messages"),
        ("/v1.0/users('ada%2Blists%40contoso.example')/a%20b", "/v1.0/users('[redacted:email]')/a%20b"),
        ("/phone/1/a%20b%25", "/phone/1/a%20b%25"),
    ] {
        assert_eq!(masked.summary(&format!("GET {path}")), format!("GET {expected}"));
        assert_eq!(masked.summary(&format!("GET {path} as it was")), format!("GET {expected} as it was"));
        let mut message = request("application/json", b"");
        message.start = format!("GET {path} HTTP/1.1");
        masked.conceal(&mut message);
        assert_eq!(message.start, format!("GET {expected} HTTP/1.1"));
        message.start = format!("GET {path}?a=1 HTTP/1.1");
        masked.conceal(&mut message);
        assert_eq!(message.start, format!("GET {expected}?a=1 HTTP/1.1"));
    }
    for line in ["look up ada@contoso.example", "client_credentials for https://ada@contoso.example/"] {
        assert_eq!(masked.summary(line), line);
    }
}
