use http::{HeaderValue, Request};

use super::*;
use crate::config::{Pin, Protocol};
use crate::transport::http::RequestBody;

fn decoded(path: &str, headers: &[(&str, &str)]) -> Decoded {
    let mut request = Request::builder().uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let (parts, ()) = request.body(()).unwrap().into_parts();
    let path = CanonicalPath::parse(parts.uri.path()).unwrap();
    Decoded { parts, body: RequestBody::default(), path, websocket: false }
}

fn target() -> Target {
    Target {
        name: "graph".parse().unwrap(),
        hosts: vec!["graph.microsoft.com".parse().unwrap()],
        ports: vec![443],
        protocol: Protocol::Http,
        cleartext: false,
        credential: None,
        issues: None,
        audiences: Vec::new(),
        accept_foreign: Vec::new(),
        pin: Pin {
            headers: vec![("x-ms-version".parse().unwrap(), HeaderValue::from_static("2024-11-04"))],
            path_prefix: Some("/v1.0/".into()),
        },
        masks: Vec::new(),
    }
}

#[test]
fn a_pin_adds_what_is_missing_and_refuses_what_contradicts_it() {
    let mut without = decoded("/v1.0/users", &[]);
    pin(&target(), &mut without).unwrap();
    assert_eq!(without.parts.headers["x-ms-version"], "2024-11-04");
    let same = &[("X-Ms-Version", "2024-11-04")];
    assert_eq!(pin(&target(), &mut decoded("/v1.0/users", same)), Ok(()));
    let code = |path: &str, headers: &[(&str, &str)]| pin(&target(), &mut decoded(path, headers)).unwrap_err().code;
    assert_eq!(code("/v1.0/users", &[("x-ms-version", "2019-02-02")]), "pinned-header");
    let twice = [("x-ms-version", "2024-11-04"), ("x-ms-version", "2019-02-02")];
    assert_eq!(code("/v1.0/users", &twice), "pinned-header");
    for outside in ["/beta/users", "/v1.0", "/", "/V1.0/users"] {
        assert_eq!(code(outside, &[]), "outside-pin", "{outside}");
    }
    // What is decoded is what counts.
    assert_eq!(pin(&target(), &mut decoded("/v1%2E0/users", &[])), Ok(()));
}

#[test]
fn one_bearer_token_is_a_token_and_two_are_none() {
    let of =
        |headers: &[(&str, &str)]| bearer(&decoded("/", headers).parts.headers).map(|token| token.map(str::to_owned));
    assert_eq!(of(&[]), Ok(None));
    assert_eq!(of(&[("authorization", "Bearer abc")]), Ok(Some("abc".into())));
    assert_eq!(of(&[("authorization", "bEARER  abc ")]), Ok(Some("abc".into())));
    assert_eq!(of(&[("authorization", "Basic abc")]), Ok(None));
    assert_eq!(of(&[("authorization", "Bearerabc")]), Ok(None));
    let twice = of(&[("authorization", "Bearer a"), ("authorization", "Bearer b")]);
    assert_eq!(twice.unwrap_err().code, "authorization-malformed");
    assert_eq!(of(&[("authorization", "Bearer \u{e9}")]).unwrap_err().code, "authorization-malformed");
}
