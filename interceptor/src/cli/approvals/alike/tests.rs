use super::super::tests::asked;
use super::*;

#[test]
fn rows_are_of_one_workload_target_shape_and_terms() {
    let first = asked().approval;
    let mut others = vec![first.clone(); 6];
    others[1].request.summary = "POST /notes/8".into();
    others[2].request.workload = "batch".parse().unwrap();
    others[3].request.shape.keys = vec!["a".into()];
    others[4].request.terms.approvals = 1;
    others[5].outcome = Some("granted".into());
    let lengths: Vec<usize> = rows(&others).iter().map(Vec::len).collect();
    assert_eq!(lengths, [2, 1, 1, 1, 1]);
}

#[test]
fn nothing_that_a_workload_wrote_gets_to_the_terminal_as_it_is() {
    let mut one = asked();
    if let Some(exhibit) = &mut one.exhibit {
        exhibit.start = "POST /notes/\u{202e}7 HTTP/1.1".into();
        exhibit.body = format!("{{\n  \"note\": \"\x07\u{202e}\"\n}}{}", "x".repeat(3000));
    }
    let text = lines(&one);
    assert!(!text.contains(['\u{202e}', '\x07']) && text.lines().count() == 2, "{text:?}");
    assert!(text.contains("{ \"note\": ") && text.ends_with("x …\n"), "{text:?}");
}
