//! Text, HTML, CSV, TSV and forms of whatever bytes under masks: the same however they are cut. The first byte is the cut,
//! the second the mask, the third the type.

#![no_main]

use interceptor_fuzz::{check, plan};
use libfuzzer_sys::fuzz_target;

// `cargo xtask fuzz` makes its seeds by this order.
const TYPES: [&str; 5] =
    ["text/plain", "text/html", "text/csv", "text/tab-separated-values", "application/x-www-form-urlencoded"];

fuzz_target!(|input: &[u8]| {
    let [cut, choice, kind, body @ ..] = input else { return };
    let _ = check(plan(*choice), TYPES[usize::from(*kind) % TYPES.len()], body, *cut);
});
