//! Whether a ClientHello has a server name at all: rustls treats one that is an address as if there were none.

/// Whether the ClientHello in these TLS records has the extension server_name (RFC 6066 section 3). The bytes are those
/// that rustls took for a ClientHello; whatever is wrong with them reads as "no".
pub(super) fn is_present(records: &[u8]) -> bool {
    extensions(&handshake(records)).is_some_and(|mut rest| {
        while let Some((kind, after)) = take_u16(rest) {
            let Some((_, after)) = take_vector(after, 2) else { return false };
            if kind == SERVER_NAME {
                return true;
            }
            rest = after;
        }
        false
    })
}

const SERVER_NAME: u16 = 0;
const HANDSHAKE: u8 = 22;

/// The handshake bytes of consecutive records.
fn handshake(mut records: &[u8]) -> Vec<u8> {
    let mut joined = Vec::with_capacity(records.len());
    while let [HANDSHAKE, _, _, rest @ ..] = records {
        let Some((fragment, after)) = take_vector(rest, 2) else { break };
        joined.extend_from_slice(fragment);
        records = after;
    }
    joined
}

/// RFC 8446 section 4.1.2: after the message's header (4), the version (2) and the random (32) come the session id, the
/// cipher suites, the compression methods and the extensions.
fn extensions(message: &[u8]) -> Option<&[u8]> {
    let (_, rest) = take_vector(message.get(38..)?, 1)?;
    let (_, rest) = take_vector(rest, 2)?;
    let (_, rest) = take_vector(rest, 1)?;
    take_vector(rest, 2).map(|(extensions, _)| extensions)
}

fn take_u16(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let (value, rest) = bytes.split_first_chunk::<2>()?;
    Some((u16::from_be_bytes(*value), rest))
}

/// A vector whose length stands before it in one or two bytes.
fn take_vector(bytes: &[u8], length_bytes: usize) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_at_checked(length_bytes)?;
    let length = length.iter().fold(0, |length, &byte| length << 8 | usize::from(byte));
    rest.split_at_checked(length)
}
