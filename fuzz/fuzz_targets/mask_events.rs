//! Server-sent events of whatever bytes under masks: the same however they are cut. The first byte is the cut, the second
//! the mask.

#![no_main]

use interceptor_fuzz::{check, plan};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [cut, choice, body @ ..] = input else { return };
    let _ = check(plan(*choice), "text/event-stream", body, *cut);
});
