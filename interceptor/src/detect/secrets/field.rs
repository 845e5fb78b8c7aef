//! Fields by name, and JSON read leniently: what is cut short or broken loses its secrets all the same.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::LazyLock;

use aho_corasick::AhoCorasick;

use super::{MARK, Replaced};

/// Bytes of the longest string that is taken for a name.
const LONGEST_NAME: usize = 130;

/// Parts of names (lower case, without separators) that make a field secret.
const PARTS: [&str; 21] = [
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
    "masterkey",
    "primarykey",
    "secondarykey",
    "sharedaccess",
    "sharedkey",
    "assertion",
    "connectionstring",
    "sastoken",
    "credentials",
];

/// Whole names (lower case, without separators) of secret fields.
const NAMES: [&str; 17] = [
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
    "key1",
    "key2",
    "samlresponse",
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
    role: Role,
}

/// What a member is to the others of its object.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    None,
    /// `value`, which is what another member names.
    Value,
    /// `name` or `key`, which names another member's value.
    Names,
    /// `keyName`, as Azure lists the keys of an account: the value beside it is a key.
    NamesKey,
    /// `code`, which is an authorization code or something harmless.
    Code,
    /// What goes with an authorization code only (RFC 6749 section 4.1.3, RFC 7636 section 4.5).
    Grants,
}

impl Role {
    fn of(name: &str) -> Self {
        // From its end, in lower case and without underscores.
        let plain = || name.bytes().rev().filter(|byte| *byte != b'_').map(|byte| byte.to_ascii_lowercase());
        let is = |known: &str| plain().eq(known.bytes().rev());
        match name {
            "value" => Role::Value,
            "name" | "key" => Role::Names,
            _ if is("code") => Role::Code,
            _ if is("granttype") || is("codeverifier") => Role::Grants,
            _ if plain().take("keyname".len()).eq("keyname".bytes().rev()) => Role::NamesKey,
            _ => Role::None,
        }
    }
}

impl Judgement {
    /// Of the name that this literal is. What can't be read is secret.
    fn of(literal: &[u8]) -> Self {
        let name = decoded(literal);
        Self {
            secret: name.as_ref().is_none_or(|name| is_secret(name)),
            role: name.as_ref().map_or(Role::None, |name| Role::of(name)),
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
#[derive(Default)]
struct Open {
    /// Whether it is in a secret place.
    secret: bool,
    array: bool,
    /// Whether a member of it says that its `value` is secret.
    named: bool,
    /// Whether a member of it says that its `code` is secret.
    grants: bool,
    /// Where its `value` and its `code` were, as long as nothing says that they are secret.
    value: Option<(usize, usize)>,
    code: Option<(usize, usize)>,
}

impl Open {
    /// Whether another member said that what comes is secret.
    fn says_secret(&self, role: Role) -> bool {
        (self.named && role == Role::Value) || (self.grants && role == Role::Code)
    }

    /// Its `value` is secret, also if it came before.
    fn name(&mut self, edits: &mut Vec<Edit>) {
        self.named = true;
        edits.extend(self.value.take().map(Edit::hide));
    }

    /// The same of its `code`.
    fn grant(&mut self, edits: &mut Vec<Edit>) {
        self.grants = true;
        edits.extend(self.code.take().map(Edit::hide));
    }

    fn note(&mut self, role: Role, start: usize, end: usize) {
        match role {
            Role::Value => self.value = Some((start, end)),
            Role::Code => self.code = Some((start, end)),
            _ => {}
        }
    }
}

/// What stands in the place of a value.
struct Edit {
    start: usize,
    end: usize,
    /// A literal; none where nothing of the value is kept.
    literal: Option<Vec<u8>>,
}

impl Edit {
    fn hide((start, end): (usize, usize)) -> Self {
        Self { start, end, literal: None }
    }
}

/// So many documents may be in each other, as strings.
const DEEPEST: usize = 4;

/// JSON with the strings and numbers of secret members replaced, also those inside of them, and those of documents that are
/// strings in it; everything else is copied. Pairs (`["cookie", "…"]`, `{"name": "cookie", "value": "…"}`) are members as well.
/// The input begins `from` bytes behind what `replaced` counts from.
pub(super) fn json(input: &[u8], from: usize, replaced: &mut Vec<Replaced>) -> Vec<u8> {
    json_within(input, 0, &mut |place, length| replaced.push((from + place.start..from + place.end, length)))
}

fn json_within(input: &[u8], depth: usize, told: &mut dyn FnMut(Range<usize>, usize)) -> Vec<u8> {
    let mut edits: Vec<Edit> = Vec::new();
    let mut at = 0;
    let mut open: Vec<Open> = Vec::new();
    let mut judged = Judged([None; PLACES_OF_NAMES]);
    // Whether the value that comes next is secret, and what it is to the others.
    let (mut next, mut role) = (false, Role::None);
    while at < input.len() {
        let here = open.last();
        let secret = next || here.is_some_and(|here| here.secret);
        match input[at] {
            b'"' => {
                let end = string_end(input, at);
                let after = end + input[end..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
                if input.get(after) == Some(&b':') {
                    let name = judged.of(&input[at..end]);
                    role = name.role;
                    next = name.secret || here.is_some_and(|here| here.says_secret(role));
                    match (role, open.last_mut()) {
                        (Role::NamesKey, Some(here)) => here.name(&mut edits),
                        (Role::Grants, Some(here)) => here.grant(&mut edits),
                        _ => {}
                    }
                    at = after + 1;
                    continue;
                }
                if secret {
                    edits.push(Edit::hide((at, end)));
                } else if let Some(literal) = document(&input[at..end], depth) {
                    edits.push(Edit { start: at, end, literal: Some(literal) });
                }
                let in_array = here.is_some_and(|here| here.array);
                let may_name = !secret && (in_array || role == Role::Names) && end - at <= LONGEST_NAME;
                let names = may_name && decoded(&input[at..end]).is_some_and(|name| super::is_secret_header(&name));
                if let Some(here) = open.last_mut().filter(|_| !secret) {
                    here.note(role, at, end);
                    if names && role == Role::Names {
                        here.name(&mut edits);
                    }
                }
                (at, next, role) = (end, names && in_array, Role::None);
            }
            b'0'..=b'9' | b'-' if secret || matches!(role, Role::Value | Role::Code) => {
                let number = |byte: &&u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
                let end = at + input[at..].iter().take_while(number).count();
                if secret {
                    edits.push(Edit::hide((at, end)));
                } else if let Some(here) = open.last_mut() {
                    here.note(role, at, end);
                }
                (at, next, role) = (end, false, Role::None);
            }
            byte @ (b'{' | b'[') => {
                open.push(Open { secret, array: byte == b'[', ..Open::default() });
                (at, next, role) = (at + 1, false, Role::None);
            }
            b'}' | b']' => {
                open.pop();
                (at, next, role) = (at + 1, false, Role::None);
            }
            b',' => (at, next, role) = (at + 1, next && here.is_some_and(|here| here.array), Role::None),
            _ => at += 1,
        }
    }
    applied(input, edits, told)
}

fn applied(input: &[u8], mut edits: Vec<Edit>, told: &mut dyn FnMut(Range<usize>, usize)) -> Vec<u8> {
    let mut out = Vec::with_capacity(input.len());
    let mut copied = 0;
    // A value that turned out to be secret afterwards comes before the same value with its own members hidden.
    edits.sort_by_key(|edit| (edit.start, edit.literal.is_some()));
    for Edit { start, end, literal } in edits {
        if start < copied {
            continue;
        }
        out.extend_from_slice(&input[copied..start]);
        let literal = literal.unwrap_or_else(mark);
        out.extend_from_slice(&literal);
        told(start..end, literal.len());
        copied = end;
    }
    out.extend_from_slice(&input[copied..]);
    out
}

fn mark() -> Vec<u8> {
    format!("\"{MARK}\"").into_bytes()
}

/// A string that has quotes in it is read as a document of its own, as the tools of MCP give them: the literal without its
/// secrets, if it has any.
fn document(literal: &[u8], depth: usize) -> Option<Vec<u8>> {
    let mut escapes = memchr::memchr_iter(b'\\', literal).map(|at| &literal[at + 1..]);
    if !escapes.any(|escape| escape.starts_with(b"\"") || escape.starts_with(b"u0022")) {
        return None;
    }
    if depth == DEEPEST {
        return Some(mark());
    }
    let text = serde_json::from_slice::<String>(literal).map_or_else(|_broken| text_of(literal), String::into_bytes);
    let kept = json_within(&text, depth + 1, &mut |_, _| {});
    (kept != text).then(|| serde_json::to_vec(&String::from_utf8_lossy(&kept)).unwrap_or_else(|_never| mark()))
}

/// The text of a string literal that is cut short or broken, as far as it can be read.
fn text_of(literal: &[u8]) -> Vec<u8> {
    let inner = literal.strip_prefix(b"\"").unwrap_or(literal);
    let mut rest = inner.strip_suffix(b"\"").unwrap_or(inner);
    let mut out = Vec::with_capacity(rest.len());
    while let Some(at) = memchr::memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..at]);
        let Some((kind, after)) = rest[at + 1..].split_first() else { return out };
        rest = after;
        match kind {
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'u' => {
                let (digits, after) = rest.split_at(rest.len().min(4));
                let digits = std::str::from_utf8(digits).ok();
                let code = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()).and_then(char::from_u32);
                let letter = code.unwrap_or(char::REPLACEMENT_CHARACTER);
                out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
                rest = after;
            }
            other => out.push(*other),
        }
    }
    out.extend_from_slice(rest);
    out
}

/// The events of a stream (`text/event-stream`, HTML section 9.2.6), each read as JSON with something around it.
pub(super) fn events(input: &[u8], replaced: &mut Vec<Replaced>) -> Vec<u8> {
    let mut out = Vec::with_capacity(input.len());
    let mut rest = input;
    while !rest.is_empty() {
        let (event, after) = rest.split_at(event_end(rest));
        out.extend_from_slice(&json(event, input.len() - rest.len(), replaced));
        rest = after;
    }
    out
}

/// Behind the line that a blank one follows.
fn event_end(input: &[u8]) -> usize {
    memchr::memchr2_iter(b'\n', b'\r', input)
        .find(|at| matches!((input[*at], input.get(at + 1)), (b'\n', Some(b'\n' | b'\r')) | (b'\r', Some(b'\r'))))
        .map_or(input.len(), |at| at + 1)
}

/// A table (CSV, RFC 4180, also with semicolons or tabs) whose first row names its columns: what is in secret ones is replaced.
pub(super) fn table(input: &[u8], replaced: &mut Vec<Replaced>) -> Vec<u8> {
    let head = input.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    let count = |sign: &u8| head.iter().filter(|byte| *byte == sign).count();
    let separator = [b'\t', b';', b','].into_iter().max_by_key(count).unwrap_or(b',');
    let mut secret: Vec<bool> = Vec::new();
    let mut out = Vec::with_capacity(input.len());
    let (mut at, mut column, mut first) = (0, 0, true);
    while at < input.len() {
        let end = cell_end(input, at, separator);
        let cell = &input[at..end];
        if first {
            secret.push(is_secret(&String::from_utf8_lossy(cell)));
        }
        let hide = !first && !cell.is_empty() && secret.get(column).copied().unwrap_or_default();
        out.extend_from_slice(if hide { MARK.as_bytes() } else { cell });
        if hide {
            replaced.push((at..end, MARK.len()));
        }
        let Some(sign) = input.get(end) else { break };
        out.push(*sign);
        let ends_row = *sign != separator;
        first &= !ends_row;
        (at, column) = (end + 1, if ends_row { 0 } else { column + 1 });
    }
    out
}

/// Where the cell that begins at `at` ends: at a separator, the row's end or the input's.
fn cell_end(input: &[u8], at: usize, separator: u8) -> usize {
    let mut end = at;
    let mut quoted = input[at] == b'"';
    if quoted {
        end += 1;
    }
    while let Some(byte) = input.get(end) {
        match byte {
            // A doubled quote leaves the quotes and enters them again.
            b'"' if quoted || input[at] == b'"' => quoted = !quoted,
            b'\r' | b'\n' if !quoted => break,
            byte if !quoted && *byte == separator => break,
            _ => {}
        }
        end += 1;
    }
    end
}

/// A string literal's text; none if it isn't one.
fn decoded(literal: &[u8]) -> Option<Cow<'_, str>> {
    let inner = literal.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    if inner.contains(&b'\\') {
        return serde_json::from_slice::<String>(literal).ok().map(Cow::Owned);
    }
    std::str::from_utf8(inner).ok().map(Cow::Borrowed)
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
