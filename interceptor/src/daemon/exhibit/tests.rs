use super::*;

fn shown(body: Vec<u8>, partial: Option<&str>) -> Exhibit {
    exhibit(&Message { bytes: body.len() as u64, body, partial: partial.map(str::to_owned), ..Message::default() })
}

/// One that people can't be shown could only be approved blindly.
#[test]
fn whatever_a_body_is_it_fits_an_answer_and_says_when_it_isnt_all() {
    for piece in ["x", "\"", "\u{1}", "\u{7f}", "ü", "🦀", "\u{0}\n"] {
        let body = piece.repeat((16 << 20) / piece.len()).into_bytes();
        let size = body.len() as u64;
        let one = shown(body, None);
        let json = serde_json::to_vec(&one).unwrap().len();
        assert!(json < FRAME * 3 / 4 && json > FRAME / 4, "{piece:?}: {json} bytes");
        assert_eq!((one.partial.as_deref(), one.bytes), (Some("cut"), size), "{piece:?}");
    }
    // What isn't UTF-8 becomes three bytes each.
    let one = shown(vec![0xff; 16 << 20], None);
    assert!(serde_json::to_vec(&one).unwrap().len() < FRAME * 3 / 4 && one.partial.is_some());
}

#[test]
fn what_fits_is_shown_as_it_is() {
    let text = "{\"a\":\"\u{1}ü\"}\n";
    let json = serde_json::to_string(text).unwrap().len() - 2;
    assert_eq!((fitting(text, json), fitting(text, json - 1)), (text, &text[..text.len() - 1]));
    let one = shown(text.as_bytes().to_vec(), Some("encoded"));
    assert_eq!((one.body.as_str(), one.partial.as_deref()), (text, Some("encoded")));
    assert_eq!(shown(vec![b'x'; 1 << 20], None).partial, None);
}
