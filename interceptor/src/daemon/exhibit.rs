//! A request as people are shown it who are asked about it: as much of its body as fits an answer of the control socket.

use crate::control::protocol::Exhibit;
use crate::control::wire::FRAME;
use crate::record::payload::Message;

/// How many bytes of JSON a body may be. The rest of an answer is bounded by what a request's head may be.
const ROOM: usize = FRAME / 2;

/// What is shown of a request. A body that doesn't fit is cut, and says so: whoever is asked sees that it isn't all.
pub(super) fn exhibit(message: &Message) -> Exhibit {
    let body = String::from_utf8_lossy(&message.body);
    let fits = fitting(&body, ROOM);
    let cut = (fits.len() < body.len()).then(|| "cut".to_owned());
    Exhibit {
        start: message.start.clone(),
        headers: message.headers.clone(),
        body: fits.to_owned(),
        bytes: message.bytes,
        partial: message.partial.clone().or(cut),
    }
}

/// The beginning of a text that is at most `room` bytes as a string of JSON.
fn fitting(text: &str, mut room: usize) -> &str {
    for (at, char) in text.char_indices() {
        let size = match char {
            '"' | '\\' | '\u{8}' | '\u{c}' | '\n' | '\r' | '\t' => 2,
            // `\u0000`
            '\0'..='\u{1f}' => 6,
            char => char.len_utf8(),
        };
        let Some(left) = room.checked_sub(size) else { return &text[..at] };
        room = left;
    }
    text
}

#[cfg(test)]
mod tests;
