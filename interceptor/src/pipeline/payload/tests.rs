use std::io::Write;

use super::*;

fn taken(coding: &str, kind: &str, body: Vec<u8>) -> Taken {
    let mut headers = HeaderMap::new();
    for (name, value) in [(header::CONTENT_ENCODING, coding), (header::CONTENT_TYPE, kind)] {
        if !value.is_empty() {
            headers.insert(name, value.parse().unwrap());
        }
    }
    headers.insert(header::SET_COOKIE, "a=s3cr3t-cookie".parse().unwrap());
    Taken { start: "200 OK".into(), headers, body, ..Taken::default() }
}

const JSON: &str = r#"{"access_token":"s3cr3t-value","id":7}"#;

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn a_body_is_decoded_before_its_secrets_are_taken_out() {
    let mut deflate = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    deflate.write_all(JSON.as_bytes()).unwrap();
    let mut br = Vec::new();
    brotli::BrotliCompress(&mut JSON.as_bytes(), &mut br, &Default::default()).unwrap();
    let zstd = zstd::bulk::compress(JSON.as_bytes(), 1).unwrap();
    for (coding, body) in [
        ("", JSON.as_bytes().to_vec()),
        ("gzip", gzip(JSON.as_bytes())),
        ("deflate", deflate.finish().unwrap()),
        ("br", br),
        ("zstd", zstd.clone()),
        ("zstd, gzip", gzip(&zstd)),
    ] {
        let message = taken(coding, "application/json", body).message(10, 1 << 20, true);
        assert_eq!(String::from_utf8(message.body).unwrap(), r#"{"access_token":"[secret]","id":7}"#, "{coding}");
        assert!(message.headers.contains(&("set-cookie".into(), secrets::MARK.into())));
    }
}

#[test]
fn what_cannot_be_decoded_is_not_kept() {
    for (coding, body) in [("compress", b"x".to_vec()), ("gzip", b"s3cr3t-value".to_vec()), ("a,b,c,d", b"x".to_vec())]
    {
        let message = taken(coding, "", body).message(10, 1 << 20, true);
        assert_eq!((message.body.len(), message.partial.as_deref()), (0, Some("encoded")), "{coding}");
    }
}

#[test]
fn a_coding_cannot_unpack_to_more_than_is_kept() {
    let bomb = gzip(&vec![b'x'; 8 << 20]);
    assert_eq!(coding::decoded("gzip", &bomb, 1 << 10).unwrap().len(), 1 << 10);
    let cut = &gzip(JSON.repeat(2000).as_bytes())[..200];
    assert!(coding::decoded("gzip", cut, 1 << 20).unwrap().starts_with(JSON.as_bytes()), "what can be read is kept");
}

#[test]
fn the_memory_of_bodies_under_way_is_bounded_for_all_and_for_each() {
    let budget = Budget::default();
    let launches: Vec<LaunchId> = (0..5).map(|_| LaunchId::new()).collect();
    assert!(budget.take(launches[0], 16 << 20) && !budget.take(launches[0], 1));
    for launch in &launches[1..4] {
        assert!(budget.take(*launch, 16 << 20));
    }
    assert!(!budget.take(launches[4], 1), "all of it is taken");
    budget.give_back(launches[1], 1);
    assert!(budget.take(launches[4], 1));
}
