use super::*;

fn headers(lines: &[(&str, &str)]) -> HeaderMap {
    lines.iter().map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap())).collect()
}

#[test]
fn what_connection_names_stays_behind() {
    let mut map = headers(&[
        ("connection", "close, X-Secret-Hop"),
        ("x-secret-hop", "1"),
        ("keep-alive", "timeout=5"),
        ("proxy-authorization", "Basic eA=="),
        ("upgrade", "h2c"),
        ("te", "gzip"),
        ("accept", "*/*"),
    ]);
    strip_hop_by_hop(&mut map, Version::Http1);
    assert_eq!(map, headers(&[("accept", "*/*")]));
}

#[test]
fn a_wish_for_trailers_goes_on() {
    let mut map = headers(&[("te", "gzip, trailers"), ("connection", "te")]);
    strip_hop_by_hop(&mut map, Version::Http1);
    assert_eq!(map, headers(&[("te", "trailers"), ("connection", "te")]));
}

#[test]
fn http2_has_no_connection_header() {
    let mut map = headers(&[("te", "trailers"), ("connection", "te")]);
    strip_hop_by_hop(&mut map, Version::Http2);
    assert_eq!(map, headers(&[("te", "trailers")]));
}

#[test]
fn a_meter_tells_size_and_digest() {
    let meter = Meter::new(metrics::Counter::noop());
    assert_eq!((meter.bytes(), meter.digest()), (0, None));
    meter.count(b"ab");
    meter.count(b"c");
    assert_eq!(meter.bytes(), 3);
    assert_eq!(meter.digest().unwrap(), blake3::hash(b"abc").to_hex().as_str());
}
