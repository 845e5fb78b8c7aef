use super::*;

fn id() -> SegmentId {
    SegmentId { journal: Ulid::from_bytes([7; 16]), index: 3 }
}

/// Frames of these bodies from offset 64 on, and then zeros.
fn frames(bodies: &[&str]) -> Vec<u8> {
    let mut out = Vec::new();
    for body in bodies {
        let mut frame = vec![0; FRAME_HEADER];
        frame.extend_from_slice(body.as_bytes());
        seal(id(), HEADER + out.len() as u64, &mut frame);
        out.append(&mut frame);
    }
    out.resize(out.len() + 4096, 0);
    out
}

/// The same as an earlier version wrote it.
fn old_frame(body: &[u8]) -> Vec<u8> {
    let head = [&FRAME_MAGIC[..], &[OLD_EVENT], &(body.len() as u32).to_le_bytes()].concat();
    [&head, &old_checksum(id(), HEADER, OLD_EVENT, body)[..], body].concat()
}

#[test]
fn frames_of_earlier_versions_are_read() {
    let mut bytes = old_frame(b"{}");
    assert_eq!(step(id(), HEADER, &bytes), Step::Frame(b"{}"));
    assert_eq!(step(id(), HEADER + 1, &bytes), Step::Bad);
    bytes[17] ^= 1;
    assert_eq!(step(id(), HEADER, &bytes), Step::Bad);
}

/// Written down once: a checksum that changes makes journals unreadable that a daemon left behind.
#[test]
fn a_frame_is_the_same_bytes_for_ever() {
    let frame = frames(&["{\"a\":1}"]);
    let text: String = frame[..23].iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(text, "ff494a03070000001b7553de5db28f027b2261223a317d");
}

#[test]
fn a_header_reads_back_and_a_changed_one_does_not() {
    let whole = header(id());
    assert_eq!(read_header(&whole), Some(id()));
    for at in 0..whole.len() {
        for flip in [1, 0xff] {
            let mut bytes = whole;
            bytes[at] ^= flip;
            assert_eq!(read_header(&bytes), None, "byte {at} ^ {flip:#x}");
        }
    }
    assert_eq!(read_header(&[0; 64]), None);
}

#[test]
fn frames_read_back_one_after_the_other() {
    let bytes = frames(&["{\"a\":1}", "{}"]);
    assert_eq!(step(id(), 64, &bytes), Step::Frame(b"{\"a\":1}"));
    assert_eq!(step(id(), 64 + 23, &bytes[23..]), Step::Frame(b"{}"));
    assert_eq!(step(id(), 64 + 41, &bytes[41..]), Step::Unwritten);
    assert_eq!(step(id(), 64, &bytes[..5]), Step::NeedMore(FRAME_HEADER));
    assert_eq!(step(id(), 64, &bytes[..20]), Step::NeedMore(23));
}

#[test]
fn a_frame_counts_only_at_its_own_place() {
    let bytes = frames(&["{\"a\":1}"]);
    assert_eq!(step(id(), 65, &bytes), Step::Bad);
    assert_eq!(step(SegmentId { index: 4, ..id() }, 64, &bytes), Step::Bad);
}

#[test]
fn every_cut_of_a_last_frame_is_an_unfinished_one() {
    let whole = frames(&["{\"a\":1}"]);
    for cut in 0..23 {
        let mut bytes = whole.clone();
        bytes[cut..].fill(0);
        assert_ne!(step(id(), 64, &bytes), Step::Frame(b"{\"a\":1}"), "cut at {cut}");
        assert_eq!(rest(id(), 64, &bytes), Rest::Nothing, "cut at {cut}");
    }
}

#[test]
fn every_changed_byte_is_damage_and_the_next_frame_is_found() {
    let whole = frames(&["{\"a\":1}", "{}"]);
    for at in 0..23 {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        assert!(!matches!(step(id(), 64, &bytes), Step::Frame(_)), "byte {at}");
        assert_eq!(rest(id(), 64, &bytes), Rest::Damaged(23), "byte {at}");
    }
    let mut blanked = whole;
    blanked[..23].fill(0);
    assert_eq!(step(id(), 64, &blanked), Step::Unwritten);
    assert_eq!(rest(id(), 64, &blanked), Rest::Damaged(23));
}

#[test]
fn a_changed_last_frame_is_damage_up_to_the_end() {
    let whole = frames(&["{\"a\":1}"]);
    for at in 0..23 {
        for flip in [1, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] ^= flip;
            // Also in its length: all that it was is there.
            assert_eq!(rest(id(), 64, &bytes), Rest::Damaged(bytes.len()), "byte {at} ^ {flip:#x}");
        }
    }
}
