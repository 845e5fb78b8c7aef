//! Mail addresses (RFC 5321, RFC 6531), as they stand in texts.

use std::ops::Range;

/// The longest local part, in bytes (RFC 5321 section 4.5.3.1.1).
const LONGEST_LOCAL: usize = 64;

/// Adds the address that ends in `range` of `text`, before and behind which a text may go on without anything between them.
pub(super) fn email(text: &[u8], range: Range<usize>, found: &mut Vec<Range<usize>>) {
    let candidate = &text[range.clone()];
    let Some(at) = memchr::memrchr(b'@', candidate) else { return };
    let at = range.start + at;
    let start = local_start(text, range.start, at);
    let end = at + 1 + domain_end(&text[at + 1..range.end], text.get(range.end).copied());
    let (local, domain) = (&text[start..at], &text[at + 1..end]);
    // Longer than any that is told apart.
    let mut lower = [0; 16];
    let top = &domain[memchr::memrchr(b'.', domain).map_or(0, |dot| dot + 1)..];
    let top = match lower.get_mut(..top.len()) {
        Some(lower) => {
            lower.copy_from_slice(top);
            lower.make_ascii_lowercase();
            &*lower
        }
        None => top,
    };
    let is_address = !local.is_empty()
        && (4..=253).contains(&domain.len())
        // systemd's instances: `getty@tty1.service`; internal names are none that mail reaches, but `.local` people use.
        && (!is_file_ending(top) || (matches!(top, b"local" | b"internal") && domain.len() > 8));
    if is_address {
        found.push(start..end);
    }
}

/// Whether it is the end of a file's name that looks like a top-level domain: `logo@2x.png` is no address. In lower case.
fn is_file_ending(top: &[u8]) -> bool {
    matches!(
        top,
        b"png"
            | b"jpg"
            | b"jpeg"
            | b"gif"
            | b"svg"
            | b"webp"
            | b"ico"
            | b"js"
            | b"mjs"
            | b"cjs"
            | b"ts"
            | b"tsx"
            | b"jsx"
            | b"css"
            | b"scss"
            | b"html"
            | b"json"
            | b"yaml"
            | b"yml"
            | b"toml"
            | b"xml"
            | b"tgz"
            | b"gz"
            | b"tar"
            | b"jar"
            | b"war"
            | b"whl"
            | b"dll"
            | b"exe"
            | b"service"
            | b"socket"
            | b"timer"
            | b"target"
            | b"mount"
            | b"local"
            | b"internal"
            | b"localdomain"
            | b"lock"
    )
}

/// Where the local part starts that ends at `at`, of which as much was taken from `from` on as has no blank in it: the longest
/// end of that which is one. What ends with a quotation mark goes back to the one that opens it (RFC 5321, `Quoted-string`).
fn local_start(text: &[u8], from: usize, at: usize) -> usize {
    let local = &text[from..at];
    if local.ends_with(b"\"") {
        let within = at.saturating_sub(LONGEST_LOCAL + 2)..at - 1;
        let opening = memchr::memrchr(b'"', &text[within.clone()]).map(|quote| within.start + quote);
        let is_one = |quote: usize| quote + 2 < at && text[quote + 1..at - 1].iter().all(|byte| *byte >= b' ');
        return opening.filter(|quote| is_one(*quote)).unwrap_or(at);
    }
    let mut start = memchr::memmem::rfind(local, b"..").map_or(0, |at| at + 2);
    start = start.max(memchr::memrchr(b'"', local).map_or(0, |quote| quote + 1));
    start += last_foreign(&local[start..]).filter(|end| start + end < local.len()).unwrap_or(0);
    start = start.max(local.len().saturating_sub(LONGEST_LOCAL));
    while local.get(start).is_some_and(|byte| is_continuation(*byte)) {
        start += 1;
    }
    let start =
        start + local[start..].iter().take_while(|byte| matches!(byte, b'\'' | b'.' | b'-' | b'%' | b'#')).count();
    from + start
}

/// Where a domain ends behind which a text may go on: a top-level domain of ASCII ends before other scripts.
fn domain_end(domain: &[u8], next: Option<u8>) -> usize {
    let top = memchr::memrchr(b'.', domain).map_or(0, |dot| dot + 1);
    let ascii = domain[top..].iter().take_while(|byte| byte.is_ascii()).count();
    if ascii >= 2 && ascii < domain.len() - top && last_foreign(&domain[top + ascii..]).is_some() {
        return top + ascii;
    }
    // No character is cut in two.
    let mut end = domain.len();
    if next.is_some_and(is_continuation) {
        while end > top && is_continuation(domain[end - 1]) {
            end -= 1;
        }
        end -= usize::from(end > top && !domain[end - 1].is_ascii());
    }
    end
}

/// Where the last character ends that stands in texts right before an address, without a blank; none if there is none.
fn last_foreign(text: &[u8]) -> Option<usize> {
    if text.is_ascii() {
        return None;
    }
    let mut last = None;
    let mut at = 0;
    for chunk in text.utf8_chunks() {
        for c in chunk.valid().chars() {
            at += c.len_utf8();
            // Beyond are scripts without blanks between words, and punctuation. Those of ASCII's family are letters of names.
            if !(c.is_ascii() || matches!(c, '\u{c0}'..='\u{dff}' | '\u{1e00}'..='\u{1fff}')) {
                last = Some(at);
            }
        }
        at += chunk.invalid().len();
        // Latin-1's punctuation.
        if chunk.invalid().iter().any(|byte| *byte < 0xc0) {
            last = Some(at);
        }
    }
    last
}

fn is_continuation(byte: u8) -> bool {
    byte & 0xc0 == 0x80
}
