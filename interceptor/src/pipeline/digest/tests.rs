use std::io::Write;

use super::*;

#[test]
fn only_what_says_nothing_is_left_out() {
    for name in ["date", "user-agent", "traceparent", "x-ms-client-request-id", "client-request-id", "connection", "te"]
    {
        assert!(is_noise(&name.parse().unwrap()), "{name}");
    }
    for name in ["authorization", "content-type", "accept", "prefer", "if-match", "x-request", "cookie"] {
        assert!(!is_noise(&name.parse().unwrap()), "{name}");
    }
}

#[test]
fn a_body_is_known_by_what_it_says_however_it_is_coded() {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(b"{}").unwrap();
    let gzip = gzip.finish().unwrap();
    let headers = |coding: &str| HeaderMap::from_iter([(header::CONTENT_ENCODING, coding.parse().unwrap())]);
    assert_eq!(decoded(&headers("gzip"), &gzip).unwrap(), b"{}");
    assert_eq!(decoded(&headers("gzip"), &gzip[..9]), None, "a broken one stays as it is, with its header");
    assert_eq!(decoded(&headers("compress"), b"x"), None);
    assert_eq!(decoded(&HeaderMap::new(), b"{}"), None);
}

#[test]
fn no_two_lists_of_fields_have_the_same_digest() {
    let key = ApprovalKey::new(&keyfile::random().unwrap());
    let digest = |fields: &[&str]| {
        let mut digest = Fields(Context::with_key(&key.0));
        fields.iter().for_each(|field| digest.field(field));
        digest.end()
    };
    assert_eq!(digest(&["ab", "c"]), digest(&["ab", "c"]));
    assert_ne!(digest(&["ab", "c"]), digest(&["a", "bc"]));
    assert_ne!(digest(&["a", ""]), digest(&["a"]));
}
