use super::super::coding::Coding;
use super::super::tests::{KEY, decoded, encoded, plan};
use super::*;

fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
    fields.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
}

const MASK: &str = "[[mask]]\nname = \"m\"\njson = [\"$..mail\"]\nheaders = [\"x-user\"]";

#[test]
fn a_request_asks_for_what_can_be_masked() {
    let mut asked = headers(&[
        ("accept-encoding", "gzip;q=0.5, compress, br, *;q=0.1"),
        ("range", "bytes=0-9"),
        ("if-range", "\"x\""),
        ("want-repr-digest", "sha-256=1"),
        ("content-length", "3"),
        ("if-match", "\"somebody's\""),
    ]);
    let token = etag::hide(&KEY, "\"v1\"");
    asked.insert(header::IF_NONE_MATCH, format!("{token}, \"other\"").parse().unwrap());
    prepare(&KEY, &mut asked);
    let expected = headers(&[
        ("accept-encoding", "gzip;q=0.5, br"),
        ("content-length", "3"),
        ("if-match", "\"unknown\""),
        ("if-none-match", "\"v1\""),
    ]);
    assert_eq!(asked, expected);
    let mut none = HeaderMap::new();
    prepare(&KEY, &mut none);
    assert_eq!(none, headers(&[("accept-encoding", "identity")]));
}

#[test]
fn an_answer_is_decoded_masked_and_encoded_again() {
    let body = br#"{"mail":"ada@contoso.example","x":1}"#;
    for (named, applied) in [
        ("", vec![]),
        ("gzip", vec![Coding::Gzip]),
        ("deflate, br", vec![Coding::Deflate, Coding::Brotli]),
        ("zstd, gzip", vec![Coding::Zstd, Coding::Gzip]),
    ] {
        let mut head = headers(&[
            ("content-type", "application/json"),
            ("content-length", "37"),
            ("etag", "\"v1\""),
            ("repr-digest", "sha-256=:x:"),
            ("x-user", "ada"),
        ]);
        if !named.is_empty() {
            head.insert(header::CONTENT_ENCODING, named.parse().unwrap());
        }
        let mut answer = Answer::begin(&plan(MASK), &KEY, true, StatusCode::OK, &mut head).unwrap();
        let mut out = Vec::new();
        for piece in encoded(&applied, body).chunks(5) {
            answer.push(piece, &mut out).unwrap();
        }
        answer.finish(&mut out).unwrap();
        assert_eq!(decoded(&applied, &out), br#"{"mail":"[redacted]","x":1}"#, "{named}");
        assert_eq!(answer.counts().collect::<Vec<_>>(), [("$..mail", 1)]);
        let ranges: Vec<_> = answer.take_places().places.iter().map(|place| place.range()).collect();
        assert_eq!((ranges.len(), ranges[0].clone()), (1, 9..19), "as it is decoded, in {named}");
        assert_eq!(head["x-user"], "[redacted]");
        assert!(!head.contains_key("content-length") && !head.contains_key("repr-digest"), "{head:?}");
        assert_eq!(etag::reveal(&KEY, head["etag"].to_str().unwrap()).as_deref(), Some("\"v1\""));
    }
}

#[test]
fn what_has_no_body_needs_no_masker_and_keeps_no_length_but_none() {
    for (length, kept) in [("9", None), ("0", Some("0"))] {
        let mut head = headers(&[("content-length", length)]);
        assert!(Answer::begin(&plan(MASK), &KEY, false, StatusCode::OK, &mut head).is_none());
        assert_eq!(head.get("content-length").map(|value| value.to_str().unwrap()), kept);
    }
    // Chunked, and then nothing comes.
    let mut answer = Answer::begin(&plan(MASK), &KEY, true, StatusCode::ACCEPTED, &mut HeaderMap::new()).unwrap();
    let mut out = Vec::new();
    assert_eq!((answer.push(b"", &mut out), answer.finish(&mut out), out.len()), (Ok(()), Ok(()), 0));
}

#[test]
fn what_cant_be_looked_into_is_withheld() {
    let begin = |status, fields: &[(&'static str, &str)]| {
        let mut answer = Answer::begin(&plan(MASK), &KEY, true, status, &mut headers(fields)).unwrap();
        let mut out = Vec::new();
        let withheld = answer.push(b"x", &mut out).unwrap_err().to_string();
        assert!(out.is_empty());
        withheld
    };
    let json = ("content-type", "application/json");
    assert_eq!(begin(StatusCode::OK, &[]), "an answer without a Content-Type can't be masked");
    assert_eq!(begin(StatusCode::OK, &[("content-type", "image/png")]), "`image/png` can't be masked");
    assert_eq!(begin(StatusCode::PARTIAL_CONTENT, &[json]), "the answer can't be read: it is a part of a document");
    let mut twice = headers(&[json]);
    twice.append(header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
    let mut answer = Answer::begin(&plan(MASK), &KEY, true, StatusCode::OK, &mut twice).unwrap();
    let withheld = Withheld::Invalid("it has more than one Content-Type");
    assert_eq!(answer.push(b"{}", &mut Vec::new()), Err(withheld));
    assert_eq!(
        begin(StatusCode::OK, &[json, ("content-encoding", "gzip, compress")]),
        "the content coding `compress` can't be decoded"
    );
}

#[test]
fn an_answer_whose_body_is_left_out_says_so_and_keeps_the_rest() {
    let challenge = ("www-authenticate", "Bearer error=\"insufficient_claims\"");
    let mut head = headers(&[("content-type", "text/html"), ("content-encoding", "gzip"), challenge]);
    empty(&mut head);
    assert_eq!(head, headers(&[("content-length", "0"), challenge]));
}

#[test]
fn trailers_are_masked_by_name_and_tell_no_digest() {
    let mut trailers = headers(&[("x-user", "ada"), ("content-digest", "sha-256=:x:"), ("grpc-status", "0")]);
    mask_trailers(&plan(MASK), &KEY, &mut trailers);
    assert_eq!(trailers, headers(&[("x-user", "[redacted]"), ("grpc-status", "0")]));
}

#[test]
fn an_event_leaves_as_soon_as_it_is_complete() {
    let mut head = headers(&[("content-type", "text/event-stream"), ("content-encoding", "gzip")]);
    let mut answer = Answer::begin(&plan(MASK), &KEY, true, StatusCode::OK, &mut head).unwrap();
    let event = b"data: {\"mail\":\"ada@contoso.example\"}\n\n";
    let mut encoder = Encoder::new(&[Coding::Gzip]).unwrap();
    let mut sent = Vec::new();
    encoder.push(event, true, &mut sent).unwrap();
    let mut out = Vec::new();
    answer.push(&sent, &mut out).unwrap();
    let mut seen = Vec::new();
    let mut decoder = Decoder::new(&[Coding::Gzip], Default::default()).unwrap();
    decoder
        .push(&out, &mut |bytes| {
            seen.extend_from_slice(bytes);
            Ok(())
        })
        .unwrap();
    assert_eq!(String::from_utf8(seen).unwrap(), "data: {\"mail\":\"[redacted]\"}\n\n");
}

#[test]
fn headers_about_the_content_are_masked_by_name_as_any_other() {
    let mask = "[[mask]]\nname = \"m\"\nheaders = [\"content-disposition\", \"content-location\"]";
    let mut head = headers(&[
        ("content-type", "application/json"),
        ("content-disposition", "attachment; filename=ada.json"),
        ("content-location", "/people/ada"),
    ]);
    let mut trailers = head.clone();
    assert!(Answer::begin(&plan(mask), &KEY, true, StatusCode::OK, &mut head).is_none());
    mask_trailers(&plan(mask), &KEY, &mut trailers);
    for fields in [head, trailers] {
        assert_eq!(fields["content-type"], "application/json");
        assert_eq!(fields["content-disposition"], "[redacted]");
        assert_eq!(fields["content-location"], "[redacted]");
    }
}

#[test]
fn no_digest_of_what_isnt_seen_is_passed_on_whoever_names_it() {
    let json = ("content-type", "application/json");
    let mut head = headers(&[
        json,
        ("x-ms-blob-content-md5", "x"),
        ("x-ms-content-crc64", "x"),
        ("x-goog-hash", "crc32c=x"),
        ("x-amz-checksum-crc32", "x"),
        ("x-amz-checksum-type", "FULL_OBJECT"),
        ("x-amz-id-2", "x"),
    ]);
    head.append("x-goog-hash", HeaderValue::from_static("md5=x"));
    assert!(Answer::begin(&plan(MASK), &KEY, true, StatusCode::OK, &mut head).is_some());
    assert_eq!(head, headers(&[json, ("x-amz-id-2", "x")]));
    // Those of the request are about its own body.
    let mut asked = headers(&[("x-amz-checksum-crc32", "x"), ("accept-encoding", "gzip")]);
    prepare(&KEY, &mut asked);
    assert_eq!(asked["x-amz-checksum-crc32"], "x");
}

#[test]
fn what_was_answered_under_a_token_is_changed_under_the_servers_own_tag() {
    let mut head = headers(&[("content-type", "application/json"), ("etag", "W/\"v1\"")]);
    let _answer = Answer::begin(&plan(MASK), &KEY, true, StatusCode::OK, &mut head).unwrap();
    let token = head["etag"].clone();
    assert_ne!(token, "W/\"v1\"");
    let mut asked = HeaderMap::new();
    asked.insert(header::IF_MATCH, token.clone());
    prepare(&KEY, &mut asked);
    assert_eq!(asked["if-match"], "W/\"v1\"");
    // Of one that another daemon made it knows nothing.
    asked.insert(header::IF_MATCH, token);
    prepare(&[8; 32], &mut asked);
    assert_eq!(asked["if-match"], "\"unknown\"");
}
