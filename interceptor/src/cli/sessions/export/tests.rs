use super::*;
use crate::cli::sessions::tests::{operation, story};
use crate::record::search::Hit;

#[test]
fn the_way_through_the_record_takes_as_many_answers_as_there_are_and_has_an_end() {
    let mut asked = Vec::new();
    let mut pieces = vec![(2, Some(7), 40), (0, Some(9), 90), (1, None, 95)].into_iter();
    let mut count = 0;
    let ask = |search: &Search| {
        asked.push((search.begins, search.before));
        let (count, next, end) = pieces.next().expect("it asks for no more than there is");
        let hit = || Hit { host: None, operation: operation() };
        Ok(Hits { hits: (0..count).map(|_| hit()).collect(), next, end: Some(end) })
    };
    walk(ask, |_| {
        count += 1;
        Ok(())
    })
    .unwrap();
    assert_eq!(count, 3);
    assert_eq!(asked, [(Some(0), None), (Some(7), Some(40)), (Some(9), Some(40))], "what comes meanwhile is left out");
}

#[test]
fn what_belongs_to_no_session_is_a_line_as_well() {
    let mut look_up = operation();
    (look_up.session, look_up.action) = (None, "dns:resolve".into());
    let written = line(None, &look_up, &Kept::Nothing).unwrap();
    assert!(written["session"].is_null() && written["payload"].is_null(), "{written}");
    assert_eq!(written["operation"]["action"], "dns:resolve");
}

#[test]
fn an_entry_names_the_token_and_what_the_service_calls_the_request() {
    let mut story = story();
    let operation = &mut story.operations[0];
    operation.service_request = Some("5a1f0e2c".into());
    operation.identity.as_mut().expect("an identity").uti = Some("uti-1".into());
    let entry = entry(Some(&story.session), &story.operations[0], &Kept::Nothing);
    let own = &entry["_interceptor"];
    assert_eq!((&own["uti"], &own["service_request"]), (&json!("uti-1"), &json!("5a1f0e2c")), "{entry}");
    assert_eq!(own["session"], json!(story.session.session));
    assert_eq!(entry["request"]["url"], "https://graph.microsoft.com/v1.0/users/\u{202e}7");
}
