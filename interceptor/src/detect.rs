//! What a connection speaks, told from its first bytes. Pure, and only as far as steering needs it: TLS, HTTP/1.1,
//! HTTP/2, or neither; what exactly a target speaks, its configuration says. Reading the ClientHello is `transport::hello`'s.

pub mod hidden;
pub mod secrets;

/// The most bytes that a verdict can need; whoever peeks needs no larger buffer.
pub const ENOUGH: usize = METHOD_MAX + 2;

/// The longest method that is taken for one. The registry's longest is `UPDATEREDIRECTREF` with 17 letters.
const METHOD_MAX: usize = 24;

/// What a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It opens with a TLS handshake record that holds a ClientHello (RFC 8446 section 5.1).
    Tls,
    /// It opens with an HTTP request line (RFC 9112 section 3).
    Http,
    /// It opens with HTTP/2's preface (RFC 9113 section 3.4), in clear.
    Http2,
    /// Neither.
    Unknown,
}

/// What can be said of the bytes so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detected {
    /// This is what it speaks; more bytes wouldn't change it.
    Is(Kind),
    /// Too few bytes yet. Never said of [`ENOUGH`] bytes or more.
    NeedMore,
}

/// Tells from the first bytes of a connection what it speaks.
pub fn detect(first: &[u8]) -> Detected {
    match first.first() {
        None => Detected::NeedMore,
        Some(&HANDSHAKE) => client_hello(first),
        Some(c) if c.is_ascii_uppercase() => request_line(first),
        Some(_) => Detected::Is(Kind::Unknown),
    }
}

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;

/// Record: type, version 3.x, length; then the handshake message's type.
fn client_hello(first: &[u8]) -> Detected {
    let fits = |at: usize, test: fn(u8) -> bool| first.get(at).is_none_or(|&byte| test(byte));
    if !(fits(1, |major| major == 3) && fits(2, |minor| minor <= 4) && fits(5, |kind| kind == CLIENT_HELLO)) {
        return Detected::Is(Kind::Unknown);
    }
    match first {
        // An empty record, or one longer than 2^14, is no record that a ClientHello comes in.
        [_, _, _, high, low, ..] if !(1..=1 << 14).contains(&u16::from_be_bytes([*high, *low])) => {
            Detected::Is(Kind::Unknown)
        }
        [_, _, _, _, _, _, ..] => Detected::Is(Kind::Tls),
        _ => Detected::NeedMore,
    }
}

/// What no request line begins with: HTTP/2's preface, as far as it is needed to tell.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";

/// A method in capital letters, a space, and the first byte of the request target.
fn request_line(first: &[u8]) -> Detected {
    if first.starts_with(PREFACE) {
        return Detected::Is(Kind::Http2);
    }
    if PREFACE.starts_with(first) {
        return Detected::NeedMore;
    }
    let method = first.iter().take_while(|c| c.is_ascii_uppercase() || matches!(c, b'-' | b'_')).count();
    match (first.get(method), first.get(method + 1)) {
        _ if method > METHOD_MAX => Detected::Is(Kind::Unknown),
        (None, _) | (Some(b' '), None) => Detected::NeedMore,
        (Some(b' '), Some(target)) if target.is_ascii_graphic() => Detected::Is(Kind::Http),
        _ => Detected::Is(Kind::Unknown),
    }
}

#[cfg(test)]
mod tests;
