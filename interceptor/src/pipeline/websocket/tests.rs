use http::Request;

use super::*;

/// What a request with these header fields is taken for: `websocket`, `no`, or the code of the refusal.
fn asked(method: &str, version: Version, lines: &[(&str, &str)]) -> String {
    let mut request = Request::builder().method(method).version(version);
    for (name, value) in lines {
        request = request.header(*name, *value);
    }
    match is_asked(&request.body(()).unwrap().into_parts().0) {
        Ok(true) => "websocket".into(),
        Ok(false) => "no".into(),
        Err(fault) => fault.code.into(),
    }
}

const GOOD: [(&str, &str); 4] = [
    ("connection", "keep-alive, Upgrade"),
    ("upgrade", "WebSocket"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("sec-websocket-version", "13"),
];

#[test]
fn an_opening_handshake_is_taken_for_one() {
    assert_eq!(asked("GET", Version::HTTP_11, &GOOD), "websocket");
    assert_eq!(asked("GET", Version::HTTP_11, &[("accept", "*/*")]), "no");
}

#[test]
fn half_a_handshake_is_refused() {
    assert_eq!(asked("POST", Version::HTTP_11, &GOOD), "websocket-malformed");
    assert_eq!(asked("GET", Version::HTTP_10, &GOOD), "websocket-malformed");
    for left_out in [0, 2, 3] {
        let rest: Vec<_> =
            GOOD.into_iter().enumerate().filter(|(at, _)| *at != left_out).map(|(_, line)| line).collect();
        assert_eq!(asked("GET", Version::HTTP_11, &rest), "websocket-malformed", "without {:?}", GOOD[left_out]);
    }
    for more in [("content-length", "1"), ("transfer-encoding", "chunked"), ("sec-websocket-version", "13")] {
        let lines = [&GOOD[..], &[more]].concat();
        assert_eq!(asked("GET", Version::HTTP_11, &lines), "websocket-malformed", "with {more:?}");
    }
}

#[test]
fn other_upgrades_are_refused() {
    for (protocols, code) in [
        ("h2c", "h2c-refused"),
        ("websocket, h2c", "h2c-refused"),
        ("websocket, tls/1.0", "upgrade-refused"),
        ("tls/1.0", "upgrade-refused"),
        ("", "upgrade-refused"),
    ] {
        let lines = [GOOD[0], ("upgrade", protocols), GOOD[2], GOOD[3]];
        assert_eq!(asked("GET", Version::HTTP_11, &lines), code, "{protocols}");
    }
}
