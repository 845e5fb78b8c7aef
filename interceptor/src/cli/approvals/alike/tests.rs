use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use super::super::tests::asked;
use super::*;
use crate::control::protocol::Response;
use crate::control::wire;
use crate::ids::ApprovalId;

#[test]
fn rows_are_of_one_workload_target_shape_and_terms() {
    let first = asked().approval;
    let mut others = vec![first.clone(); 9];
    others[1].request.summary = "POST /notes/8".into();
    others[2].request.workload = "batch".parse().unwrap();
    others[3].request.shape.keys = vec!["a".into()];
    others[4].request.terms.approvals = 1;
    others[5].outcome = Some("granted".into());
    // What the list cut may go on in different ways.
    others[6].request.shape.path = "/notes/…".into();
    others[7].request.shape.path = "/notes/…".into();
    others[8].request.shape.websocket = true;
    let lengths: Vec<usize> = rows(&others).iter().map(Vec::len).collect();
    assert_eq!(lengths, [2, 1, 1, 1, 1, 1, 1, 1]);
}

#[test]
fn nothing_that_a_workload_wrote_gets_to_the_terminal_as_it_is() {
    let mut one = asked();
    if let Some(exhibit) = &mut one.exhibit {
        exhibit.start = "POST /notes/\u{202e}7 HTTP/1.1".into();
        exhibit.body = format!("{{\n  \"note\": \"\x07\u{202e}\"\n}}{}", "x".repeat(3000));
    }
    let text = lines(&one, one.exhibit.as_ref().unwrap());
    assert!(!text.contains(['\u{202e}', '\x07', '\x1b']) && text.lines().count() == 3, "{text:?}");
    assert!(text.contains("{ \"note\": ") && text.ends_with("x … 999 bytes in all\n"), "{text:?}");
}

#[test]
fn header_fields_are_shown_and_what_of_a_body_isnt_is_said() {
    let mut one = asked();
    if let Some(exhibit) = &mut one.exhibit {
        exhibit.headers = vec![("x-recipient".into(), "eve".into())];
        exhibit.body = String::new();
        exhibit.partial = Some("encoded".into());
    }
    let text = lines(&one, one.exhibit.as_ref().unwrap());
    assert!(text.contains("      x-recipient: eve\n"), "{text}");
    assert!(text.ends_with("… the body isn't shown as it is: encoded\n"), "{text}");
}

/// A daemon that answers as `answer` does.
fn daemon(folder: &Path, answer: impl Fn(Request) -> Response + Send + 'static) -> PathBuf {
    let path = folder.join("control.sock");
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            let (payload, _none) = wire::receive(&stream, 0).unwrap();
            let response = answer(serde_json::from_slice(&payload).unwrap());
            wire::send(&stream, &serde_json::to_vec(&response).unwrap(), &[]).unwrap();
        }
    });
    path
}

#[test]
fn what_isnt_shown_isnt_approved_with_the_others() {
    let all: Vec<ShownApproval> = (0..4)
        .map(|_| {
            let mut one = asked();
            one.approval.request.approval = ApprovalId::new();
            one
        })
        .collect();
    let ids: Vec<String> = all.iter().map(|one| one.approval.request.approval.to_string()).collect();
    let approved = Arc::new(Mutex::new(Vec::new()));
    let folder = tempfile::tempdir().unwrap();
    let (said, known) = (Arc::clone(&approved), all.clone());
    let socket = daemon(folder.path(), move |request| match request {
        Request::ApprovalsList { .. } => {
            let open: Vec<_> = known.iter().map(|one| one.approval.clone()).collect();
            Response::Done(serde_json::to_value(open).unwrap())
        }
        Request::ApprovalsShow { id } => {
            let at = known.iter().position(|one| one.approval.request.approval.to_string() == id).unwrap();
            let mut one = known[at].clone();
            let refused = |code: &str| {
                let code = code.to_owned();
                Response::Refused { code, message: "no".into(), next: "no".into() }
            };
            match at {
                1 => return refused("answer-too-large"),
                2 => return refused("not-found"),
                // It was closed meanwhile.
                3 => (one.exhibit, one.approval.outcome) = (None, Some("denied".into())),
                _ => {}
            }
            Response::Done(serde_json::to_value(one).unwrap())
        }
        Request::ApprovalsAnswer { id, .. } => {
            let at = known.iter().position(|one| one.approval.request.approval.to_string() == id).unwrap();
            said.lock().unwrap().push(id);
            Response::Done(serde_json::to_value(&known[at].approval).unwrap())
        }
        other => panic!("{other:?}"),
    });
    let row: Vec<&Approval> = all.iter().map(|one| &one.approval).collect();
    let (text, seen) = shown(&socket, &row).unwrap();
    assert_eq!(seen, [row[0]]);
    assert!(text.contains(&format!("{}  can't be shown, so it isn't approved here", ids[1])), "{text}");
    assert!(!text.contains(&ids[2]) && !text.contains(&ids[3]), "{text}");
    batch(&socket, &ids[0], (Width::Operation, None), true, None).unwrap();
    assert_eq!(*approved.lock().unwrap(), ids[..1]);
}
