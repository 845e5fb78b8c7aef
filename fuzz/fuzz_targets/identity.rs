//! Tokens, claims, forms and answers of whatever bytes: read or refused, never a panic, never shown. The first byte
//! chooses what the rest is taken for.

#![no_main]

use interceptor::identity::endpoint::{Answer, Dialect, Kind, TokenRequest, recognise};
use interceptor::identity::keys::KeySet;
use interceptor::identity::overage::Page;
use interceptor::identity::tenants::TenantName;
use interceptor::identity::{Token, challenge, verify};
use libfuzzer_sys::fuzz_target;

const BASE64URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

fuzz_target!(|input: &[u8]| {
    let Some((choice, rest)) = input.split_first() else { return };
    let text = String::from_utf8_lossy(rest);
    match choice % 8 {
        0 => token(&text),
        // Claims by themselves, under a header that passes.
        1 => token(&format!("eyJhbGciOiJSUzI1NiIsImtpZCI6ImEifQ.{}.AAAA", encode(rest))),
        // A header by itself.
        2 => token(&format!("{}.e30.AAAA", encode(rest))),
        3 => {
            let (authorization, body) = text.split_once('\n').unwrap_or(("", &text));
            for dialect in [Dialect::V1, Dialect::V2, Dialect::Oidc] {
                let authorization = (!authorization.is_empty()).then_some(authorization);
                if let Ok(request) = TokenRequest::parse(body.as_bytes(), authorization, dialect) {
                    assert!(request.audiences.len() <= 512);
                }
            }
        }
        4 => {
            if let Ok(answer) = Answer::parse(rest) {
                let _ = answer.expiry(jiff::Timestamp::UNIX_EPOCH);
            }
        }
        5 => {
            let _ = KeySet::parse(rest, "https://keys.example");
            let _ = Page::parse("https://graph.example", rest);
        }
        6 => {
            let _ = challenge::find([&*text]);
            let _ = TenantName::parse(&text);
        }
        _ => {
            let (path, query) = text.split_once('?').unwrap_or((&text, ""));
            let segments: Vec<&str> = path.split('/').collect();
            for kind in [Kind::Entra, Kind::Imds, Kind::Arc, Kind::AppService, Kind::Oidc] {
                for method in ["GET", "POST"] {
                    let _ = recognise(kind, method, &segments, query);
                }
            }
        }
    }
});

fn token(text: &str) {
    match Token::parse(text) {
        Ok(token) => {
            let claims = token.claims();
            let _ = verify::is_current(claims, jiff::Timestamp::UNIX_EPOCH);
            if let Ok((tenant, _)) = claims.object() {
                assert_eq!(Some(tenant), claims.tid);
            }
        }
        Err(error) => assert!(error.code().starts_with("token-")),
    }
}

fn encode(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        text.extend((0..=chunk.len()).map(|n| char::from(BASE64URL[(bits >> (18 - 6 * n) & 63) as usize])));
    }
    text
}
