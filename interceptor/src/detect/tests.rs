use proptest::prelude::*;

use super::*;

const IS_TLS: Detected = Detected::Is(Kind::Tls);
const IS_HTTP: Detected = Detected::Is(Kind::Http);
const IS_UNKNOWN: Detected = Detected::Is(Kind::Unknown);

#[test]
fn first_bytes_tell_what_is_spoken() {
    let cases: &[(&[u8], Detected)] = &[
        (b"", Detected::NeedMore),
        (b"\x16", Detected::NeedMore),
        (b"\x16\x03\x01\x02\x00", Detected::NeedMore),
        (b"\x16\x03\x01\x02\x00\x01", IS_TLS),
        (b"\x16\x03\x03\x00\x01\x01", IS_TLS),
        (b"\x16\x03\x01\x40\x00\x01", IS_TLS),
        (b"\x16\x03\x01\x40\x01\x01", IS_UNKNOWN),
        (b"\x16\x03\x01\x00\x00", IS_UNKNOWN),
        (b"\x16\x03\x01\x02\x00\x02", IS_UNKNOWN),
        (b"\x16\x02", IS_UNKNOWN),
        (b"\x15\x03\x01\x00\x02\x02\x31", IS_UNKNOWN),
        (b"\x80\x2e\x01\x00\x02", IS_UNKNOWN),
        (b"G", Detected::NeedMore),
        (b"GET ", Detected::NeedMore),
        (b"GET /", IS_HTTP),
        (b"OPTIONS *", IS_HTTP),
        (b"CONNECT a:443 HTTP/1.1\r\n", IS_HTTP),
        (b"VERSION-CONTROL /", IS_HTTP),
        (b"PRI /", IS_HTTP),
        (b"PRI * HTTP/2.0\r", Detected::NeedMore),
        (b"PRI * HTTP/2.0\r\n", Detected::Is(Kind::Http2)),
        (b"PRI * HTTP/2.1\r\n", IS_HTTP),
        (b"GET\t/", IS_UNKNOWN),
        (b"GET  /", IS_UNKNOWN),
        (b"GET \r", IS_UNKNOWN),
        (b"get /", IS_UNKNOWN),
        (b"EHLO\r\n", IS_UNKNOWN),
        (b"SSH-2.0-OpenSSH_9.2\r\n", IS_UNKNOWN),
        (b"\r\nGET /", IS_UNKNOWN),
        (b"\x00\x00\x00\x08\x04\xd2\x16\x2f", IS_UNKNOWN),
        (b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", IS_UNKNOWN),
    ];
    for (bytes, expected) in cases {
        assert_eq!(detect(bytes), *expected, "{:?}", bytes.escape_ascii().to_string());
    }
}

proptest! {
    #[test]
    fn it_always_makes_up_its_mind(bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'A'), Just(b' ')], ENOUGH..64)) {
        prop_assert_ne!(detect(&bytes), Detected::NeedMore);
    }

    #[test]
    fn more_bytes_never_change_a_verdict(bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'\x16'), Just(b'\x03'), Just(b'\x01'), Just(b'G'), Just(b' '), Just(b'/')], 0..40)) {
        let whole = detect(&bytes);
        for cut in 0..bytes.len() {
            if let Detected::Is(kind) = detect(&bytes[..cut]) {
                prop_assert_eq!(Detected::Is(kind), whole);
            }
        }
    }
}
