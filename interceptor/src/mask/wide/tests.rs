use super::super::Withheld;
use super::super::tests::{mask, masked, plan};
use super::*;

#[test]
fn a_zero_byte_or_a_mark_is_told_wherever_it_is_cut() {
    for (text, before) in [
        (&b""[..], 0),
        (b"a", 1),
        (b"\xff", 1),
        (b"ab\xff\xfe", 4),
        (b"\xef\xbb\xbfmail", 7),
        (b"\xff\xfeab", 1),
        (b"\xfe\xff", 1),
        (b"\xfe\0", 1),
        (b"abc\0d\0", 3),
    ] {
        assert_eq!(Wide::default().before(text), before, "{text:?}");
        let mut wide = Wide::default();
        let by_bytes: usize = text.chunks(1).map_while(|byte| Some(wide.before(byte)).filter(|read| *read == 1)).sum();
        assert_eq!(by_bytes, before, "{text:?}, byte by byte");
    }
}

#[test]
fn what_is_in_utf_16_is_withheld_whatever_is_masked() {
    let by_name = plan("[[mask]]\nname = \"m\"\njson = [\"$..mail\"]");
    let by_detectors = plan("[[mask]]\nname = \"m\"\ndetect = [\"email\"]");
    let utf_16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let text = "name,mail\nAda,ada@contoso.example\n";
    for body in [utf_16(text), utf_16(&format!("\u{feff}{text}")), b"\xfe\xff\x4e\x2d".to_vec()] {
        for (plan, kind) in [
            (&by_detectors, "text/plain"),
            (&by_detectors, "text/html"),
            (&by_detectors, "text/event-stream"),
            (&by_detectors, "text/csv"),
            (&by_name, "text/csv"),
            (&by_name, "application/x-www-form-urlencoded"),
        ] {
            let withheld = mask(plan, kind, [&body[..]]);
            assert!(matches!(withheld, Err(Withheld::Invalid(_))), "{kind}: {withheld:?}");
            assert_eq!(mask(plan, kind, body.chunks(1)), withheld, "{kind}, byte by byte");
        }
    }
    // The mark of UTF-8 is another one.
    assert_eq!(masked(&by_detectors, "text/plain", "\u{feff}to ada@contoso.example"), "\u{feff}to [redacted:email]");
}
