//! Content codings: whatever bytes are decoded or refused, the same however they are cut, within the bounds; and what was
//! encoded is decoded again. The first byte is the cut, the second chooses the codings.

#![no_main]

use interceptor::config::Expansion;
use interceptor::mask::Withheld;
use interceptor::mask::coding::{Coding, Decoder, Encoder};
use libfuzzer_sys::fuzz_target;

const EACH: [Coding; 4] = [Coding::Gzip, Coding::Deflate, Coding::Brotli, Coding::Zstd];
/// 16 MiB whatever the size, and 200 times the size; what one slice becomes may exceed that before it is noticed.
const FREE: usize = 17 << 20;

fuzz_target!(|input: &[u8]| {
    let [cut, choice, body @ ..] = input else { return };
    let first = EACH[usize::from(*choice) % 4];
    let stack = [first, EACH[usize::from(*choice >> 2) % 4]];
    let codings = if choice & 0x80 == 0 { &stack[..1] } else { &stack[..] };
    let whole = decoded(codings, body, body.len().max(1));
    let pieces = decoded(codings, body, usize::from(*cut) + 1);
    match (&whole, &pieces) {
        (Ok(whole), Ok(pieces)) => assert_eq!(whole, pieces, "cut by {cut}"),
        (Err(_), Err(_)) => {}
        _ => panic!("as a whole {:?}, cut by {cut} {:?}", whole.is_ok(), pieces.is_ok()),
    }
    let mut encoder = Encoder::new(codings).expect("these codings are known");
    let mut sent = Vec::new();
    encoder.push(body, cut & 1 == 0, &mut sent).expect("memory takes everything");
    encoder.finish(&mut sent).expect("memory takes everything");
    assert_eq!(decoded(codings, &sent, usize::from(*cut) + 1).expect("it was encoded here"), body);
});

fn decoded(codings: &[Coding], body: &[u8], size: usize) -> Result<Vec<u8>, Withheld> {
    let mut out = Vec::new();
    let mut give = |bytes: &[u8]| {
        out.extend_from_slice(bytes);
        Ok(())
    };
    let mut decoder = Decoder::new(codings, Expansion::default())?;
    for piece in body.chunks(size) {
        decoder.push(piece, &mut give)?;
    }
    decoder.finish(&mut give)?;
    assert!(out.len() <= FREE + 200 * body.len(), "{} bytes became {}", body.len(), out.len());
    Ok(out)
}
