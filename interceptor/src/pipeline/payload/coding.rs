//! Undoing content codings of what was taken down. It may be cut short; what can be read of it is.

use std::io::{BufReader, Read};

use flate2::read::MultiGzDecoder;
use flate2::{Decompress, FlushDecompress, Status};

/// Codings on top of each other; more are hostile.
const MOST: usize = 3;

/// How much more room is made at once for what is inflated.
const PIECE: usize = 32 << 10;

/// `bytes` without the codings of a `Content-Encoding`, at most `most` bytes, and whether that is all that they are: nothing
/// is broken, cut or left over. None if they can't be undone.
pub(super) fn decoded(codings: &str, mut bytes: Vec<u8>, most: usize) -> Option<(Vec<u8>, bool)> {
    let codings: Vec<String> = codings
        .split(',')
        .map(|coding| coding.trim().to_ascii_lowercase())
        .filter(|coding| !coding.is_empty())
        .collect();
    if codings.len() > MOST {
        return None;
    }
    let mut is_whole = true;
    if bytes.is_empty() {
        return Some((bytes, is_whole));
    }
    for coding in codings.iter().rev() {
        let (out, is_all) = match coding.as_str() {
            "identity" => (bytes, true),
            "gzip" | "x-gzip" => read(MultiGzDecoder::new(bytes.as_slice()), most),
            // Some send the bare format under this name (RFC 9110 section 8.4.1.2).
            "deflate" => inflated(&bytes, bytes[0] & 0x0f == 8, most),
            "br" => read(brotli::Decompressor::new(bytes.as_slice(), 4096), most),
            "zstd" => read(zstd::Decoder::new(BufReader::new(bytes.as_slice())).ok()?, most),
            _ => return None,
        };
        if out.is_empty() {
            return None;
        }
        is_whole &= is_all;
        bytes = out;
    }
    Some((bytes, is_whole))
}

/// What can be read before the end, an error, or the bound; and whether that is all.
fn read(from: impl Read, most: usize) -> (Vec<u8>, bool) {
    let mut out = Vec::new();
    // What came before an error is in `out`.
    let read = from.take((most as u64).saturating_add(1)).read_to_end(&mut out);
    let is_all = read.is_ok() && out.len() <= most;
    out.truncate(most);
    (out, is_all)
}

/// The same of `deflate`, in the format of zlib or bare. Its readers take the end of what they are given for its end.
fn inflated(bytes: &[u8], zlib: bool, most: usize) -> (Vec<u8>, bool) {
    let (mut inflater, mut out, mut rest) = (Decompress::new(zlib), Vec::new(), bytes);
    loop {
        let (taken, given) = (inflater.total_in(), out.len());
        out.reserve(PIECE);
        let status = inflater.decompress_vec(rest, &mut out, FlushDecompress::None);
        let taken = usize::try_from(inflater.total_in() - taken).unwrap_or(rest.len());
        rest = rest.get(taken..).unwrap_or_default();
        let has_ended = matches!(status, Ok(Status::StreamEnd));
        let is_stuck = status.is_err() || (taken == 0 && out.len() == given);
        if has_ended || is_stuck || out.len() > most {
            let is_all = has_ended && rest.is_empty() && out.len() <= most;
            out.truncate(most);
            return (out, is_all);
        }
    }
}
