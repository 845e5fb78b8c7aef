//! Fields by name, and JSON read leniently: what is cut short or broken loses its secrets all the same.

use std::borrow::Cow;
use std::sync::LazyLock;

use aho_corasick::AhoCorasick;

use super::MARK;

/// Bytes of the longest string that is taken for a name.
const LONGEST_NAME: usize = 130;

/// Parts of names (lower case, without separators) that make a field secret.
const PARTS: [&str; 18] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "accesstoken",
    "refreshtoken",
    "idtoken",
    "apikey",
    "apitoken",
    "authtoken",
    "privatekey",
    "accountkey",
    "sharedaccess",
    "sharedkey",
    "assertion",
    "connectionstring",
    "sastoken",
    "credentials",
];

/// Whole names (lower case, without separators) of secret fields.
const NAMES: [&str; 14] = [
    "pwd",
    "pass",
    "sig",
    "jwt",
    "cookie",
    "cookies",
    "setcookie",
    "authorization",
    "devicecode",
    "usercode",
    "authcode",
    "authorizationcode",
    "codeverifier",
    "otp",
];

/// Tokens that mark a place in a list: no secret.
const PLACES: [&str; 8] =
    ["pagetoken", "skiptoken", "continuationtoken", "synctoken", "deltatoken", "nexttoken", "maxtoken", "changetoken"];

/// Whether a field of this name holds a secret.
pub(super) fn is_secret(name: &str) -> bool {
    if !name.is_ascii() {
        let letters = name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase);
        return is_secret_plain(letters.take(128).collect::<String>().as_bytes());
    }
    // Most names are, and names are judged by the dozen for each operation.
    let (mut plain, mut length) = ([0; 128], 0);
    for letter in name.bytes().filter(u8::is_ascii_alphanumeric).take(plain.len()) {
        plain[length] = letter.to_ascii_lowercase();
        length += 1;
    }
    is_secret_plain(&plain[..length])
}

/// The same of a name in lower case, without separators.
fn is_secret_plain(name: &[u8]) -> bool {
    static FINDER: LazyLock<Option<AhoCorasick>> = LazyLock::new(|| AhoCorasick::new(PARTS).ok());
    let token = name.ends_with(b"token") && !PLACES.iter().any(|place| name.ends_with(place.as_bytes()));
    token
        || NAMES.iter().any(|known| known.as_bytes() == name)
        // Without a finder, which there always is, everything is secret.
        || FINDER.as_ref().is_none_or(|finder| finder.is_match(name))
}

/// What a member's name says.
#[derive(Clone, Copy)]
struct Judgement {
    /// Whether its value is secret.
    secret: bool,
    /// Whether it is `value`, which is what another member names.
    value: bool,
    /// Whether it is `name` or `key`, which names another member's value.
    names: bool,
}

impl Judgement {
    /// Of the name that this literal is. What can't be read is secret.
    fn of(literal: &[u8]) -> Self {
        let name = decoded(literal);
        let is = |known: &str| name.as_ref().is_some_and(|name| name == known);
        Self {
            secret: name.as_ref().is_none_or(|name| is_secret(name)),
            value: is("value"),
            names: is("name") || is("key"),
        }
    }
}

/// The names of members that were judged last: in a list of objects they come again and again. One for each place that a
/// name may be at, by its length and some of its letters.
struct Judged<'a>([Option<(&'a [u8], Judgement)>; PLACES_OF_NAMES]);

const PLACES_OF_NAMES: usize = 64;

impl<'a> Judged<'a> {
    fn of(&mut self, literal: &'a [u8]) -> Judgement {
        let letter = |at: usize| usize::from(literal.get(at).copied().unwrap_or_default());
        let (length, middle) = (literal.len(), literal.len() / 2);
        let mixed = length * 5 + letter(1) * 7 + letter(middle) * 11 + letter(length.wrapping_sub(2)) * 3;
        let place = &mut self.0[mixed % PLACES_OF_NAMES];
        match place {
            Some((known, judgement)) if *known == literal => *judgement,
            _ => place.insert((literal, Judgement::of(literal))).1,
        }
    }
}

/// A container that is open.
#[derive(Clone, Copy, Default)]
struct Open {
    /// Whether it is in a secret place.
    secret: bool,
    array: bool,
    /// Whether a member `name` of it, or `key`, says that its `value` is secret.
    named: bool,
}

/// JSON with the strings and numbers of secret members replaced, also those inside of them; everything else is copied.
/// Pairs (`["cookie", "…"]`, `{"name": "cookie", "value": "…"}`) are members as well.
pub(super) fn json(input: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(input.len());
    let (mut at, mut copied) = (0, 0);
    let mut open: Vec<Open> = Vec::new();
    let mut judged = Judged([None; PLACES_OF_NAMES]);
    // Whether the value that comes next is secret, and whether it says the name of another.
    let (mut next, mut naming) = (false, false);
    while at < input.len() {
        let here = open.last().copied().unwrap_or_default();
        let secret = next || here.secret;
        match input[at] {
            b'"' => {
                let end = string_end(input, at);
                let after = end + input[end..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
                if input.get(after) == Some(&b':') {
                    let name = judged.of(&input[at..end]);
                    next = name.secret || (here.named && name.value);
                    naming = name.names;
                    at = after + 1;
                    continue;
                }
                if secret {
                    replace(&mut out, input, &mut copied, at..end);
                }
                let may_name = !secret && (here.array || naming) && end - at <= LONGEST_NAME;
                let names = may_name && decoded(&input[at..end]).is_some_and(|name| super::is_secret_header(&name));
                if let Some(here) = open.last_mut() {
                    here.named |= names && naming;
                }
                (at, next, naming) = (end, names && here.array, false);
            }
            b'0'..=b'9' | b'-' if secret => {
                let number = |byte: &&u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
                let end = at + input[at..].iter().take_while(number).count();
                replace(&mut out, input, &mut copied, at..end);
                (at, next) = (end, false);
            }
            byte @ (b'{' | b'[') => {
                open.push(Open { secret, array: byte == b'[', named: false });
                (at, next) = (at + 1, false);
            }
            b'}' | b']' => {
                open.pop();
                (at, next) = (at + 1, false);
            }
            b',' => (at, next) = (at + 1, next && here.array),
            _ => at += 1,
        }
    }
    out.extend_from_slice(&input[copied..]);
    out
}

/// A string literal's text; none if it isn't one.
fn decoded(literal: &[u8]) -> Option<Cow<'_, str>> {
    let inner = literal.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    if inner.contains(&b'\\') {
        return serde_json::from_slice::<String>(literal).ok().map(Cow::Owned);
    }
    std::str::from_utf8(inner).ok().map(Cow::Borrowed)
}

fn replace(out: &mut Vec<u8>, input: &[u8], copied: &mut usize, what: std::ops::Range<usize>) {
    out.extend_from_slice(&input[*copied..what.start]);
    out.push(b'"');
    out.extend_from_slice(MARK.as_bytes());
    out.push(b'"');
    *copied = what.end;
}

/// Behind the closing quote of the string that begins at `at`, or the end of the input.
fn string_end(input: &[u8], at: usize) -> usize {
    let mut end = at + 1;
    while let Some(found) = input.get(end..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
        end += found;
        if input[end] == b'"' {
            return end + 1;
        }
        end += 2;
    }
    input.len()
}
