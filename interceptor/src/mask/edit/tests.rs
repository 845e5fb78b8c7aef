use super::*;

impl Sink for Vec<u8> {
    fn keep(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    fn skip(&mut self, _length: usize) {}

    fn put(&mut self, bytes: &[u8], _strategy: Strategy) {
        self.extend_from_slice(bytes);
    }
}

fn applied(edits: &Edits, raw: &[u8], map: &Offsets) -> String {
    let mut out = Vec::new();
    edits.apply(raw, map, &mut out, |text, out| out.extend_from_slice(text));
    String::from_utf8(out).unwrap()
}

#[test]
fn edits_do_to_the_written_text_what_was_done_to_the_decoded_one() {
    // `a\u0040b` says `a@b`.
    let raw = b"a\\u0040b";
    let mut map = Offsets::default();
    map.escape(1, 1);
    map.plain(2, 7);
    let mut edits = Edits::default();
    edits.keep(b"a");
    edits.skip(1);
    edits.put(b"X", Strategy::Redact);
    edits.put(b"Y", Strategy::Redact);
    edits.keep(b"b");
    assert_eq!(applied(&edits, raw, &map), "aXYb");
    let mut edits = Edits::default();
    edits.put(b"<", Strategy::Redact);
    edits.skip(2);
    edits.keep(b"b");
    edits.put(b">", Strategy::Redact);
    assert_eq!(applied(&edits, raw, &map), "<b>");
    assert_eq!(applied(&Edits::default(), raw, &map), "a\\u0040b");
}

#[test]
fn an_escape_is_never_cut() {
    // Two decoded bytes stand for one escape of six.
    let raw = b"x\\u00e9y";
    let mut map = Offsets::default();
    map.escape(1, 1);
    map.plain(3, 7);
    let mut edits = Edits::default();
    edits.keep(b"x\xc3");
    edits.skip(1);
    edits.put(b"?", Strategy::Redact);
    edits.keep(b"y");
    assert_eq!(applied(&edits, raw, &map), "x?y");
    assert_eq!((map.start(3), map.end(3), map.end(2), map.start(2)), (7, 7, 7, 1));
}
