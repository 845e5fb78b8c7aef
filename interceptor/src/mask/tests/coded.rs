//! Answers in content codings, through all of an answer's way: decoded, masked, encoded again.

use http::StatusCode;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};

use super::*;
use crate::mask::answer::Answer;
use crate::mask::coding::Coding;

const EACH: [(&str, Coding); 4] =
    [("gzip", Coding::Gzip), ("deflate", Coding::Deflate), ("br", Coding::Brotli), ("zstd", Coding::Zstd)];

/// The body that comes out of an answer whose coded body comes in pieces of this size, decoded.
fn answered(
    plan: &Arc<Plan>,
    content_type: &str,
    codings: &[(&str, Coding)],
    body: &[u8],
    size: usize,
) -> Result<Vec<u8>, Withheld> {
    let (names, codings): (Vec<_>, Vec<_>) = codings.iter().copied().unzip();
    let mut head = HeaderMap::new();
    head.insert(CONTENT_TYPE, content_type.parse().unwrap());
    head.insert(CONTENT_ENCODING, names.join(", ").parse().unwrap());
    let mut answer = Answer::begin(plan, &KEY, true, StatusCode::OK, &mut head).unwrap();
    let mut out = Vec::new();
    for piece in encoded(&codings, body).chunks(size) {
        answer.push(piece, &mut out)?;
    }
    answer.finish(&mut out)?;
    assert_eq!(head[CONTENT_ENCODING], names.join(", "));
    Ok(decoded(&codings, &out))
}

#[test]
fn the_golden_set_comes_out_the_same_in_each_coding() {
    for Document { path, plan, content_type, body } in documents() {
        let plain = mask(&plan, content_type, [&body[..]]);
        for coding in EACH {
            for size in [7, usize::MAX] {
                let answer = answered(&plan, content_type, &[coding], &body, size);
                assert_eq!(answer, plain, "{} in {}, by {size}", path.display(), coding.0);
            }
        }
    }
}

#[test]
fn each_stack_of_three_codings_is_looked_into() {
    let plan = plan("[[mask]]\nname = \"m\"\njson = [\"$..mail\"]");
    let body = br#"{"mail":"ada@contoso.example","x":[1,2,3],"y":"plain"}"#;
    for first in EACH {
        for second in EACH {
            for third in EACH {
                let stack = [first, second, third];
                for size in [1, usize::MAX] {
                    let answer = answered(&plan, "application/json", &stack, body, size).unwrap();
                    let expected = br#"{"mail":"[redacted]","x":[1,2,3],"y":"plain"}"#;
                    assert_eq!(answer, expected, "{stack:?} by {size}");
                }
            }
        }
    }
}
