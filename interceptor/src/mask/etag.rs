//! Entity tags (RFC 9110 section 8.8.3) of masked answers. The server's own tag would tell that a masked value has changed
//! to one that a process can guess; a token takes its place that only the key turns back, for If-Match and If-None-Match.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::replace::Key;

/// Bytes of a token that tie it to its tag and its key.
const SEAL: usize = 16;

/// The token for an entity tag, a weak one for a weak one: the masked answer isn't the server's, byte for byte.
pub fn hide(key: &Key, tag: &str) -> String {
    let seal = seal(key, tag.as_bytes());
    let mut token = seal.to_vec();
    token.extend_from_slice(tag.as_bytes());
    cipher(key, &seal, &mut token[SEAL..]);
    format!("W/\"{}\"", URL_SAFE_NO_PAD.encode(token))
}

/// The entity tag of a token; none if it is none of ours.
pub fn reveal(key: &Key, token: &str) -> Option<String> {
    let token = token.trim().strip_prefix("W/").unwrap_or(token.trim());
    let mut token = URL_SAFE_NO_PAD.decode(token.strip_prefix('"')?.strip_suffix('"')?).ok()?;
    let mut tag = (token.len() >= SEAL).then(|| token.split_off(SEAL))?;
    let sealed: [u8; SEAL] = token.try_into().ok()?;
    cipher(key, &sealed, &mut tag);
    // BLAKE3's hashes compare in constant time; so do these, as their parts.
    let same = seal(key, &tag).iter().zip(sealed).fold(0, |differs, (ours, theirs)| differs | (ours ^ theirs)) == 0;
    if same { String::from_utf8(tag).ok() } else { None }
}

fn seal(key: &Key, tag: &[u8]) -> [u8; SEAL] {
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(b"etag seal\0").update(tag);
    let mut seal = [0; SEAL];
    hasher.finalize_xof().fill(&mut seal);
    seal
}

fn cipher(key: &Key, seal: &[u8; SEAL], text: &mut [u8]) {
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(b"etag stream\0").update(seal);
    let mut stream = vec![0; text.len()];
    hasher.finalize_xof().fill(&mut stream);
    text.iter_mut().zip(stream).for_each(|(byte, mask)| *byte ^= mask);
}

#[cfg(test)]
mod tests;
