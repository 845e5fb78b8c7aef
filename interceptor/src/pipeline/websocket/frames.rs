//! The frames of a WebSocket (RFC 6455 section 5.2), followed in one direction as they pass: a frame of ours can only be put
//! between two of them. A header is all that is kept.

/// A whole frame, or the last of a message.
const FIN: u8 = 0x80;
/// The opcode of a Close frame; those of all control frames have this bit.
const CLOSE: u8 = 0x08;
/// In a header's second byte: that the payload is masked.
const MASKED: u8 = 0x80;
/// The longest header: two bytes, a length of eight, a key of four.
const HEADER: usize = 14;
/// The longest reason: a control frame has 125 bytes at most, and two of them are the status.
const REASON: usize = 123;

/// The statuses that a WebSocket is closed with (section 7.4.1).
const GOING_AWAY: u16 = 1001;
const POLICY_VIOLATION: u16 = 1008;

/// The frames that passed in one direction.
#[derive(Debug)]
pub(super) struct Frames {
    /// Whether they have to be masked.
    masked: bool,
    state: State,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// Between two frames, or in a header of which so much has passed.
    Header { bytes: [u8; HEADER], length: usize },
    /// In a payload of which so much is left; never nothing.
    Payload { left: u64, closes: bool },
    /// After a Close frame.
    Closed,
    /// Where nothing can be said: after what is no frame, or after the end.
    Lost,
}

impl Frames {
    /// What a server sends: not masked (section 5.1).
    pub(super) fn of_server() -> Self {
        Self { masked: false, state: State::next(false) }
    }

    /// What a client sends: masked (section 5.1).
    pub(super) fn of_client() -> Self {
        Self { masked: true, state: State::next(false) }
    }

    /// These bytes passed.
    pub(super) fn pass(&mut self, mut bytes: &[u8]) {
        while let Some((first, rest)) = bytes.split_first() {
            match &mut self.state {
                State::Header { bytes: header, length } => {
                    header[*length] = *first;
                    *length += 1;
                    bytes = rest;
                    if let Some(state) = after(&header[..*length], self.masked) {
                        self.state = state;
                    }
                }
                State::Payload { left, closes } => {
                    let taken = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                    bytes = &bytes[taken..];
                    *left -= taken as u64;
                    if *left == 0 {
                        self.state = State::next(*closes);
                    }
                }
                State::Closed | State::Lost => return,
            }
        }
    }

    /// Nothing more can pass.
    pub(super) fn end(&mut self) {
        if !self.is_closed() {
            self.state = State::Lost;
        }
    }

    /// Whether another frame can follow: all that passed were whole frames, and none of them a Close frame.
    pub(super) fn is_between(&self) -> bool {
        matches!(self.state, State::Header { length: 0, .. })
    }

    /// Whether a whole Close frame passed, after which none may follow (section 5.5.1).
    pub(super) fn is_closed(&self) -> bool {
        self.state == State::Closed
    }
}

impl State {
    /// After a whole frame.
    fn next(closes: bool) -> Self {
        if closes { State::Closed } else { State::Header { bytes: [0; HEADER], length: 0 } }
    }
}

/// What follows a header; none while more of it is to come. Which bits and opcodes extensions use isn't known here.
fn after(header: &[u8], masked: bool) -> Option<State> {
    let [first, second, rest @ ..] = header else { return None };
    let (wide, least) = match second & !MASKED {
        126 => (2, 126),
        127 => (8, 0x1_0000),
        _ => (0, 0),
    };
    // Control frames are short, and in one piece (section 5.5).
    let is_control = first & CLOSE != 0;
    if (second & MASKED != 0) != masked || (is_control && (wide > 0 || first & FIN == 0)) {
        return Some(State::Lost);
    }
    let length = match rest.get(..wide)? {
        [] => u64::from(second & !MASKED),
        bytes => bytes.iter().fold(0_u64, |length, byte| (length << 8) | u64::from(*byte)),
    };
    // In as few bytes as it takes, the topmost bit unused.
    if length < least || length > i64::MAX.unsigned_abs() {
        return Some(State::Lost);
    }
    let key = if masked { 4 } else { 0 };
    if rest.len() < wide + key {
        return None;
    }
    let closes = first & 0x0F == CLOSE;
    Some(if length == 0 { State::next(closes) } else { State::Payload { left: length, closes } })
}

/// A Close frame (section 5.5.1) for what ends with `code`, which is its reason; masked by `key`, where there is one.
pub(super) fn close(code: &str, key: Option<[u8; 4]>) -> Vec<u8> {
    let status = match code {
        "daemon-stopped" | "stopped" | "workload-ended" => GOING_AWAY,
        _ => POLICY_VIOLATION,
    };
    let reason = &code[..code.floor_char_boundary(REASON)];
    let payload = [&status.to_be_bytes()[..], reason.as_bytes()].concat();
    let masked = if key.is_some() { MASKED } else { 0 };
    let mut frame = vec![FIN | CLOSE, masked | payload.len() as u8];
    frame.extend(key.iter().flatten());
    let key = key.unwrap_or_default().into_iter().cycle();
    frame.extend(payload.iter().zip(key).map(|(byte, key)| byte ^ key));
    frame
}

#[cfg(test)]
mod tests;
