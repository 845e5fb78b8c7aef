//! Undoing content codings of what was taken down. It may be cut short; what can be read of it is.

use std::io::{BufReader, Read};

use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};

/// Codings on top of each other; more are hostile.
const MOST: usize = 3;

/// `bytes` without the codings of a `Content-Encoding`, at most `most` bytes; none if they can't be undone.
pub(super) fn decoded(codings: &str, bytes: &[u8], most: usize) -> Option<Vec<u8>> {
    let codings: Vec<String> = codings
        .split(',')
        .map(|coding| coding.trim().to_ascii_lowercase())
        .filter(|coding| !coding.is_empty())
        .collect();
    let mut bytes = bytes.to_vec();
    if codings.len() > MOST {
        return None;
    }
    if bytes.is_empty() {
        return Some(bytes);
    }
    for coding in codings.iter().rev() {
        bytes = match coding.as_str() {
            "identity" => bytes,
            "gzip" | "x-gzip" => read(MultiGzDecoder::new(bytes.as_slice()), most),
            // Some send the bare format under this name (RFC 9110 section 8.4.1.2).
            "deflate" if bytes[0] & 0x0f == 8 => read(ZlibDecoder::new(bytes.as_slice()), most),
            "deflate" => read(DeflateDecoder::new(bytes.as_slice()), most),
            "br" => read(brotli::Decompressor::new(bytes.as_slice(), 4096), most),
            "zstd" => read(zstd::Decoder::new(BufReader::new(bytes.as_slice())).ok()?, most),
            _ => return None,
        };
        if bytes.is_empty() {
            return None;
        }
    }
    Some(bytes)
}

/// What can be read before the end, an error, or the bound.
fn read(from: impl Read, most: usize) -> Vec<u8> {
    let mut out = Vec::new();
    // What came before an error is in `out`.
    let _cut = from.take(most as u64).read_to_end(&mut out);
    out
}
