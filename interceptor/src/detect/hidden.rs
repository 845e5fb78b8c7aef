//! Characters that make a text show something else than is there: text of governed processes is spelled out before people
//! see it, in a terminal or in a message.

use std::borrow::Cow;

/// `text` without what a terminal would obey or what would show something else than is there: control characters
/// (ANSI sequences begin with one), line and paragraph separators, bidirectional overrides, invisible characters. Each
/// is replaced by its code, as in `\u{1b}`.
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(is_harmful) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_harmful(c) { out.extend(c.escape_unicode()) } else { out.push(c) }
    }
    Cow::Owned(out)
}

fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c,
            // Soft hyphen, Arabic letter mark, Mongolian vowel separator: invisible.
            '\u{ad}' | '\u{61c}' | '\u{180e}'
            // Zero width and direction marks; separators, embeddings and overrides; invisible operators and isolates.
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            // Byte order mark, interlinear annotation, tags.
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}
