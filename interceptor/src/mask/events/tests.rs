use super::super::tests::{KEY, mask, masked, plan};
use super::*;

const EVENTS: &str = "text/event-stream";

#[test]
fn lines_that_arent_data_are_withheld_under_paths_where_they_may_hold_members() {
    let by_name = plan("[[mask]]\nname = \"m\"\njson = [\"$..mail\"]");
    let by_detectors = plan("[[mask]]\nname = \"m\"\ndetect = [\"email\"]");
    let withheld = Err(Withheld::Invalid("a line in an event that isn't data and may hold members"));
    for body in [
        "{\"mail\":\"ada\"}\n\n",
        "{\"mail\":\"ada\"}",
        ": {\"mail\":\"ada\"}\n\n",
        "id: {\"mail\":\"ada\"}\ndata: 1\n\n",
        "data: 1\nid: [\"ada\"]\n\n",
        "event: {\"mail\":\"ada\"}\ndata: 1\n\n",
        "retry: \"ada\"\n\n",
        "mail: ada\n\n",
        "data: 1\n\nmail: ada",
        "\u{feff}mail: ada\n\n",
        "Data: {\"mail\":\"ada\"}\n\n",
    ] {
        assert_eq!(mask(&by_name, EVENTS, [body.as_bytes()]), withheld, "{body}");
        assert_eq!(mask(&by_name, EVENTS, body.as_bytes().chunks(1)), withheld, "{body}, byte by byte");
        // Without paths it is a text as any other.
        assert_eq!(masked(&by_detectors, EVENTS, body), body);
    }
    let body = "\u{feff}: kept alive\nid: 7\nevent: message\nretry: 10\ndata: {\"mail\":\"ada\"}\nid\n\n:\n\n";
    assert_eq!(masked(&by_name, EVENTS, body), body.replace("\"ada\"", "\"[redacted]\""));
}

#[test]
fn an_event_is_judged_by_its_own_length_whatever_comes_with_it() {
    let plan = plan("[[mask]]\nname = \"m\"\ndetect = [\"email\"]");
    for (length, is_taken) in [(LARGEST, true), (LARGEST + 1, false), (LARGEST + 1000, false)] {
        for end in ["\n\n", "\r\n\r\n"] {
            let mut body = vec![b' '; length];
            body[..5].copy_from_slice(b"data:");
            body[length - end.len()..].copy_from_slice(end.as_bytes());
            body.extend_from_slice(b"data: ada@contoso.example\n\n");
            let whole = mask(&plan, EVENTS, [&body[..]]);
            assert_eq!(whole.is_ok(), is_taken, "{length}");
            assert_eq!(mask(&plan, EVENTS, body.chunks(1000)), whole, "{length}, in pieces");
        }
    }
}

#[test]
fn many_events_at_once_cost_no_more_than_one_after_the_other() {
    let plan = plan("[[mask]]\nname = \"m\"\njson = [\"$..mail\"]");
    let body = vec![b'\n'; 1 << 20];
    let mut out = Vec::new();
    // By moving what follows for each event, 500 GB would be moved.
    let begun = std::time::Instant::now();
    Events::default().push(&body, &mut Engine::new(plan, KEY), &mut out).unwrap();
    assert_eq!(out, body);
    assert!(begun.elapsed() < std::time::Duration::from_secs(20), "{:?}", begun.elapsed());
}
