use std::io::Write;

use super::*;
use crate::config::Strategy;
use crate::mask::Place;

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
    let (body, is_whole) = coding::decoded("gzip", bomb, 1 << 10).unwrap();
    assert_eq!((body.len(), is_whole), (1 << 10, false));
    let cut = &gzip(JSON.repeat(2000).as_bytes())[..200];
    let (body, is_whole) = coding::decoded("gzip", cut.to_vec(), 1 << 20).unwrap();
    assert!(body.starts_with(JSON.as_bytes()) && !is_whole, "what can be read is kept");
}

/// People, and who reads the record, must not take the first part of a body for all of it.
#[test]
fn a_body_whose_coding_is_broken_isnt_shown_as_if_it_were_whole() {
    // Something that doesn't shrink to nothing, so that there is a first part to be read.
    let text: String = (0..20_000_u64).map(|n| format!("{:x} ", n.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    zlib.write_all(text.as_bytes()).unwrap();
    let mut bare = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
    bare.write_all(text.as_bytes()).unwrap();
    let mut br = Vec::new();
    brotli::BrotliCompress(&mut text.as_bytes(), &mut br, &Default::default()).unwrap();
    let bare = bare.finish().unwrap();
    assert_ne!(bare[0] & 0x0f, 8, "it would be taken for zlib");
    for (coding, whole) in [
        ("gzip", gzip(text.as_bytes())),
        ("deflate", zlib.finish().unwrap()),
        ("deflate", bare),
        ("br", br),
        ("zstd", zstd::bulk::compress(text.as_bytes(), 1).unwrap()),
    ] {
        let message = taken(coding, "text/plain", whole.clone()).message(10, 1 << 20, true);
        assert_eq!((message.body.len(), message.partial), (text.len(), None), "{coding}");
        let bound = taken(coding, "text/plain", whole.clone()).message(10, text.len() - 1, true);
        assert_eq!((bound.body.len(), bound.partial.as_deref()), (text.len() - 1, Some("cut")), "{coding}");
        let tail = whole[..whole.len() * 3 / 4].to_vec();
        let broken = taken(coding, "text/plain", tail).message(10, 1 << 20, true);
        assert!(broken.body.len() < text.len() && broken.partial.is_some(), "{coding}: {:?}", broken.partial);
    }
    let followed = [gzip(text.as_bytes()), b"and more".to_vec()].concat();
    let message = taken("gzip", "text/plain", followed).message(10, 1 << 20, true);
    assert_eq!(message.partial.as_deref(), Some("cut"), "what follows isn't shown");
}

/// What is told of a body's masks is told of it as it is kept.
#[test]
fn places_that_are_masked_follow_what_is_taken_out_of_a_body() {
    let body = r#"{"token":"s3cr3t-value-that-is-long","id":98765,"n":1}"#;
    let start = |text: &str, what: &str| u32::try_from(text.find(what).unwrap()).unwrap();
    let place = |start, length, strategy| Place { start, length, strategy };
    let noted = |coding: &str, bytes: Vec<u8>, most: usize, whole: bool| {
        // What is masked is told of the body without its coding.
        let id = place(start(body, "98765"), 5, Strategy::Pseudonym);
        let gone = place(start(body, ",\"n\""), 0, Strategy::Drop);
        let masked = Some(Places { places: vec![id, gone], more: None });
        Taken { masked, ..taken(coding, "application/json", bytes) }.message(10, most, whole)
    };
    for (coding, bytes) in [("", body.into()), ("gzip", gzip(body.as_bytes()))] {
        let message = noted(coding, bytes, 1 << 20, true);
        let kept = String::from_utf8(message.body).unwrap();
        assert_eq!(kept, r#"{"token":"[secret]","id":98765,"n":1}"#);
        let places = message.masked.unwrap();
        let id = place(start(&kept, "98765"), 5, Strategy::Pseudonym);
        let gone = place(start(&kept, ",\"n\""), 0, Strategy::Drop);
        assert_eq!((places.places, places.more), (vec![id, gone], None), "{coding}");
    }
    // Cut in the middle of what is masked.
    let cut = noted("gzip", gzip(body.as_bytes()), body.find("765").unwrap(), true);
    assert_eq!((cut.partial.as_deref(), cut.body.ends_with(b"98")), (Some("cut"), true));
    let places = cut.masked.unwrap().places;
    assert_eq!(places.iter().map(|place| place.length).collect::<Vec<_>>(), [2]);
    assert_eq!(places[0].range().end, cut.body.len());
    // Of a body that isn't kept nothing is told.
    for message in [noted("gzip", b"x".to_vec(), 1 << 20, true), noted("", Vec::new(), 0, false)] {
        assert!(message.body.is_empty() && message.masked.is_none(), "{message:?}");
    }
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
