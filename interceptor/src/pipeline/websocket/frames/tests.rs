use proptest::prelude::*;

use super::*;

const TEXT: u8 = 0x01;

/// A frame of this many bytes, with a key where it is masked.
fn frame(first: u8, length: usize, masked: bool) -> Vec<u8> {
    let bit = if masked { MASKED } else { 0 };
    let mut frame = match length {
        0..126 => vec![first, bit | length as u8],
        126..0x1_0000 => [&[first, bit | 126][..], &(length as u16).to_be_bytes()].concat(),
        _ => [&[first, bit | 127][..], &(length as u64).to_be_bytes()].concat(),
    };
    if masked {
        frame.extend([0xFF, 0x88, 0, 0x7F]);
    }
    // What could be taken for Close frames.
    frame.extend([FIN | CLOSE, 0].into_iter().cycle().take(length));
    frame
}

fn frames(masked: bool) -> Frames {
    if masked { Frames::of_client() } else { Frames::of_server() }
}

/// Whether another frame can follow these bytes, and whether a Close frame was among them.
fn followed(masked: bool, pieces: &[&[u8]]) -> (bool, bool) {
    let mut frames = frames(masked);
    for piece in pieces {
        frames.pass(piece);
    }
    (frames.is_between(), frames.is_closed())
}

const BETWEEN: (bool, bool) = (true, false);
const CLOSED: (bool, bool) = (false, true);
const NEITHER: (bool, bool) = (false, false);

/// The same, of all bytes at once.
fn plainly(masked: bool, bytes: &[u8]) -> (bool, bool) {
    let mut at = 0;
    while at < bytes.len() {
        let Some(&[first, second]) = bytes.get(at..at + 2) else { return NEITHER };
        let (wide, short) = (at + 2, usize::from(second & 0x7F));
        let (key, length, is_least) = match short {
            126 => {
                let Some(length) = bytes.get(wide..wide + 2) else { return NEITHER };
                let length = u16::from_be_bytes(length.try_into().unwrap());
                (wide + 2, u64::from(length), length >= 126)
            }
            127 => {
                let Some(length) = bytes.get(wide..wide + 8) else { return NEITHER };
                let length = u64::from_be_bytes(length.try_into().unwrap());
                (wide + 8, length, length > 0xFFFF && length >> 63 == 0)
            }
            _ => (wide, short as u64, true),
        };
        let is_control = first & 0x0F >= 8;
        if second >> 7 != u8::from(masked) || !is_least || is_control && (first < 0x80 || short > 125) {
            return NEITHER;
        }
        let end = (key as u64 + if masked { 4 } else { 0 }).saturating_add(length);
        if end > bytes.len() as u64 {
            return NEITHER;
        }
        if first & 0x0F == 8 {
            return CLOSED;
        }
        at = end as usize;
    }
    BETWEEN
}

#[test]
fn every_form_of_a_header_is_followed_wherever_it_is_cut() {
    for masked in [false, true] {
        for length in [0, 1, 125, 126, 0xFFFF, 0x1_0000, 0x1_0001] {
            // Also in the middle of a message, between whose parts a Close frame may stand (RFC 6455 section 5.4).
            for first in [FIN | TEXT, TEXT, 0, FIN, FIN | 0x40 | TEXT] {
                let whole = frame(first, length, masked);
                let both = [&whole[..], &whole[..]].concat();
                for cut in (1..whole.len().min(20)).chain([whole.len() - 1]) {
                    let (begun, rest) = whole.split_at(cut);
                    assert_eq!(followed(masked, &[begun]), NEITHER, "{masked} {length} {cut}");
                    assert_eq!(followed(masked, &[begun, rest]), BETWEEN, "{masked} {length} {cut}");
                    let (begun, rest) = both.split_at(whole.len() + cut);
                    assert_eq!(followed(masked, &[begun]), NEITHER, "{masked} {length} {cut}");
                    assert_eq!(followed(masked, &[begun, rest]), BETWEEN, "{masked} {length} {cut}");
                }
                let single: Vec<_> = whole.chunks(1).collect();
                assert_eq!(followed(masked, &single), BETWEEN, "{masked} {length}");
            }
        }
        assert_eq!(followed(masked, &[]), BETWEEN);
    }
}

#[test]
fn after_a_close_frame_there_is_nothing() {
    for masked in [false, true] {
        for length in [0, 2, 125] {
            let whole = frame(FIN | CLOSE, length, masked);
            for cut in 1..whole.len() {
                let (begun, rest) = whole.split_at(cut);
                assert_eq!(followed(masked, &[begun]), NEITHER, "{length} {cut}");
                assert_eq!(followed(masked, &[begun, rest]), CLOSED, "{length} {cut}");
            }
            assert_eq!(followed(masked, &[&whole, &frame(FIN | TEXT, 3, masked)]), CLOSED);
        }
    }
}

#[test]
fn what_is_no_frame_ends_all_knowledge() {
    let long = |top: u8| [&[FIN | TEXT, 127, top][..], &[0, 0, 0, 0, 1, 0, 0]].concat();
    for (what, masked, bytes) in [
        ("a length with its topmost bit", false, long(0x80)),
        ("a length that fits into two bytes", false, [&[FIN | TEXT, 127][..], &[0; 6], &[0xFF, 0xFF]].concat()),
        ("a length that fits into none", false, vec![FIN | TEXT, 126, 0, 125]),
        ("a server's that is masked", false, frame(FIN | TEXT, 0, true)),
        ("a client's that isn't", true, frame(FIN | TEXT, 0, false)),
        ("a Close frame in pieces", false, vec![CLOSE, 0]),
        ("a Close frame that is too long", false, frame(FIN | CLOSE, 126, false)),
        ("HTTP", false, b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
    ] {
        let mut frames = frames(masked);
        frames.pass(&bytes);
        // However much follows, and whatever that is.
        for _ in 0..300 {
            assert_eq!((frames.is_between(), frames.is_closed()), NEITHER, "{what}");
            frames.pass(&[0]);
        }
        frames.pass(&frame(FIN | CLOSE, 0, masked));
        assert_eq!((frames.is_between(), frames.is_closed()), NEITHER, "{what}");
    }
    // The longest that there can be is one.
    let mut longest = Frames::of_server();
    longest.pass(&long(0x7F));
    assert_eq!(longest.state, State::Payload { left: 0x7F00_0000_0001_0000, closes: false });
}

#[test]
fn nothing_can_be_said_after_the_end() {
    let mut frames = Frames::of_server();
    frames.pass(&frame(FIN | TEXT, 3, false));
    frames.end();
    assert_eq!((frames.is_between(), frames.is_closed()), NEITHER);
    let mut closed = Frames::of_server();
    closed.pass(&frame(FIN | CLOSE, 2, false));
    closed.end();
    assert!(closed.is_closed(), "its end was told in order");
}

#[test]
fn a_close_frame_says_its_status_and_the_code() {
    assert_eq!(close("grant-ended", None), [&[0x88, 13, 0x03, 0xF0][..], b"grant-ended"].concat());
    assert_eq!(close("daemon-stopped", None), [&[0x88, 16, 0x03, 0xE9][..], b"daemon-stopped"].concat());
    let key = [1, 2, 3, 4];
    let masked = close("killed", Some(key));
    assert_eq!(masked[..6], [0x88, 0x80 | 8, 1, 2, 3, 4]);
    let payload: Vec<u8> = masked[6..].iter().enumerate().map(|(at, byte)| byte ^ key[at % 4]).collect();
    assert_eq!(payload, [&[0x03, 0xF0][..], b"killed"].concat());
}

#[test]
fn a_close_frame_is_one_however_long_its_reason_is() {
    for (reason, length) in [("a".repeat(123), 125), ("a".repeat(124), 125), ("ä".repeat(70), 124)] {
        let frame = close(&reason, None);
        assert_eq!((frame[1], frame.len()), (length, 2 + usize::from(length)));
        assert!(std::str::from_utf8(&frame[4..]).is_ok_and(|text| reason.starts_with(text)), "{frame:?}");
        assert_eq!(followed(false, &[&frame]), CLOSED);
        assert_eq!(followed(true, &[&close(&reason, Some([1; 4]))]), CLOSED);
    }
}

proptest! {
    #[test]
    fn what_passes_in_pieces_is_followed_as_if_it_came_at_once(
        masked in any::<bool>(),
        sent in prop::collection::vec(
            (
                prop::sample::select(&[FIN | TEXT, TEXT, FIN, FIN | 0x09, FIN | 0x02, FIN | CLOSE, CLOSE][..]),
                prop::sample::select(&[0_usize, 1, 5, 124, 125, 126, 127, 300, 0xFFFF, 0x1_0000][..]),
                // Of another end than it should be, once in a while.
                prop::sample::select(&[true, true, true, true, true, true, true, true, false][..]),
            ),
            0..6,
        ),
        rest in prop::collection::vec(any::<u8>(), 0..6),
        lost in 0_usize..20,
        piece in 1_usize..200,
    ) {
        let mut bytes: Vec<u8> =
            sent.iter().flat_map(|(first, length, right)| frame(*first, *length, masked == *right)).collect();
        bytes.extend(rest);
        bytes.truncate(bytes.len().saturating_sub(lost));
        let mut frames = frames(masked);
        let mut passed = 0;
        for piece in bytes.chunks(piece) {
            frames.pass(piece);
            passed += piece.len();
            // The whole is looked at anew each time, so not for each of very many.
            if bytes.len() < 2_000 || passed == bytes.len() {
                let now = (frames.is_between(), frames.is_closed());
                prop_assert_eq!(now, plainly(masked, &bytes[..passed]), "after {} bytes", passed);
            }
        }
    }
}
