use http::Request;
use tokio::io::{AsyncReadExt, DuplexStream, duplex};

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

/// It is left out of what people say yes to.
#[test]
fn a_key_that_isnt_sixteen_bytes_is_refused() {
    for (key, is_taken) in [
        ("AQIDBAUGBwgJCgsMDQ4PEA==", true),
        ("x3JJ+MbDL1Ez/kh9GBhXDw==", true),
        ("", false),
        ("==", false),
        ("dGhlIHNhbXBsZSBub25jZQ", false),
        ("dGhlIHNhbXBsZSBub25jZQAA", false),
        ("dGhlIHNhbXBsZSBub25jZ===", false),
        ("dGhlIHNhbXBsZSBub25jZQA=", false),
        ("dGhlIHNhbXBsZSBub25jZQAB==", false),
        ("delete; the users; now==", false),
        ("dGhlIHNhbXBsZSBub25j_Q==", false),
    ] {
        let lines = [GOOD[0], GOOD[1], ("sec-websocket-key", key), GOOD[3]];
        let expected = if is_taken { "websocket" } else { "websocket-malformed" };
        assert_eq!(asked("GET", Version::HTTP_11, &lines), expected, "{key}");
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

/// One end of a stream that holds so much, and what is on its other end.
fn stream(meter: &Meter, holds: usize) -> (Counted<'_, DuplexStream>, DuplexStream) {
    let (ours, theirs) = duplex(holds);
    (Counted::new(ours, (meter, "client-gone"), Frames::of_server()), theirs)
}

#[tokio::test(start_paused = true)]
async fn last_words_are_said_between_two_frames_once_and_the_stream_then_ends() {
    let meter = Meter::new(metrics::Counter::noop());
    let ours = close("killed", None);
    for (taken, last, is_said) in [
        (&b""[..], Some(&ours), true),
        (b"\x81\x01a", Some(&ours), true),
        (b"\x01\x01a", Some(&ours), true),
        (b"\x81", Some(&ours), false),
        (b"\x81\x02a", Some(&ours), false),
        (b"no frame", Some(&ours), false),
        // Theirs was the last.
        (b"\x88\x00", Some(&ours), true),
        (b"\x88\x00", None, true),
        (b"\x88", Some(&ours), false),
        (b"\x81\x01a", None, false),
    ] {
        let (mut here, mut there) = stream(&meter, 1_000);
        here.write_all(taken).await.unwrap();
        let ending = async move { here.end(last.cloned()).await };
        let reading = async move {
            let mut came = Vec::new();
            there.read_to_end(&mut came).await.unwrap();
            came
        };
        let (said, came) = tokio::join!(ending, reading);
        assert_eq!(said, is_said, "{taken:?}");
        let is_ours = is_said && taken != b"\x88\x00";
        assert_eq!(came, if is_ours { [taken, &ours].concat() } else { taken.to_vec() });
    }
}

#[tokio::test(start_paused = true)]
async fn who_takes_no_last_words_or_doesnt_close_isnt_waited_for() {
    let meter = Meter::new(metrics::Counter::noop());
    // Also where there is room for them: whether they were taken isn't known.
    for holds in [5, 1_000] {
        let (mut here, _there) = stream(&meter, holds);
        let start = Instant::now();
        assert!(!here.end(Some(close("killed", None))).await, "{holds}");
        assert!((LAST_WORDS..LAST_WORDS * 2).contains(&start.elapsed()), "{holds}: {:?}", start.elapsed());
    }
}

/// Of what is to be written only what was taken is at the other end.
#[tokio::test]
async fn what_wasnt_taken_didnt_pass() {
    let meter = Meter::new(metrics::Counter::noop());
    let (mut here, mut there) = stream(&meter, 4);
    assert_eq!(here.write(b"\x81\x03abc").await.unwrap(), 4);
    assert!(!here.taken.is_between(), "half a frame is taken for a whole one");
    there.read_exact(&mut [0; 4]).await.unwrap();
    here.write_all(b"c").await.unwrap();
    assert!(here.taken.is_between());
}

#[tokio::test]
async fn nothing_is_said_after_the_end() {
    let meter = Meter::new(metrics::Counter::noop());
    let (mut here, mut there) = stream(&meter, 1_000);
    here.shutdown().await.unwrap();
    assert!(!here.end(Some(close("killed", None))).await);
    let mut came = Vec::new();
    there.read_to_end(&mut came).await.unwrap();
    assert!(came.is_empty(), "{came:?}");
}
