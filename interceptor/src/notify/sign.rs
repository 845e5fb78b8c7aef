//! Signing a webhook, as Standard Webhooks has it (standardwebhooks, spec/standard-webhooks.md, "signature scheme"):
//! HMAC-SHA-256 of id, time and body.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// How long a secret is, in bytes.
const LENGTHS: std::ops::RangeInclusive<usize> = 24..=64;

/// The value of `webhook-signature`: a signature for each secret in `file`, a line each, so that a receiver can change over
/// from one to the other. `at` is in seconds since 1970. None if a line isn't a secret, or if there is none.
pub(super) fn signature(file: &[u8], id: &str, at: i64, body: &[u8]) -> Option<String> {
    let mut signatures = Vec::new();
    for line in file.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty()) {
        let text = line.strip_prefix(b"whsec_").unwrap_or(line);
        let secret = Zeroizing::new(STANDARD.decode(text).ok()?);
        if !LENGTHS.contains(&secret.len()) {
            return None;
        }
        let mut signing = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &secret));
        signing.update(format!("{id}.{at}.").as_bytes());
        signing.update(body);
        signatures.push(format!("v1,{}", STANDARD.encode(signing.sign())));
    }
    (!signatures.is_empty()).then(|| signatures.join(" "))
}

#[cfg(test)]
mod tests;
