//! JSON and JSON Lines of whatever bytes under masks: the same however it is cut, JSON if it was JSON, and without what is
//! masked. The first byte is the cut, the second the mask.

#![no_main]

use interceptor_fuzz::{check, plan};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|input: &[u8]| {
    let [cut, choice, body @ ..] = input else { return };
    let _ = check(plan(*choice), "application/x-ndjson", body, *cut);
    let Ok((out, _)) = check(plan(*choice), "application/json", body, *cut) else { return };
    if serde_json::from_slice::<Value>(body).is_err() {
        return;
    }
    // Dropping the only value leaves nothing.
    if !out.iter().all(u8::is_ascii_whitespace) {
        let value: Value = serde_json::from_slice(&out).expect("what was JSON is JSON");
        if usize::from(*choice) % 5 == 0 {
            without_mail(&value, false);
        }
    }
});

/// Every value in a member `mail` is masked.
fn without_mail(value: &Value, masked: bool) {
    match value {
        Value::Object(members) => members.iter().for_each(|(name, value)| without_mail(value, masked || name == "mail")),
        Value::Array(elements) => elements.iter().for_each(|value| without_mail(value, masked)),
        Value::String(text) => assert!(!masked || text == "[redacted]", "{text:?} isn't masked"),
        Value::Number(_) | Value::Bool(_) => assert!(!masked, "{value} isn't masked"),
        Value::Null => {}
    }
}
