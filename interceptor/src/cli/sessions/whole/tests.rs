use super::*;
use crate::cli::sessions::tests::story as one;

#[test]
fn a_session_is_asked_for_until_all_of_it_is_there() {
    let all: Vec<Operation> =
        (0..7).map(|number| Operation { operation: format!("op_{number}"), ..one().operations.remove(0) }).collect();
    let mut asked = Vec::new();
    let whole = gather("ses_01", |request| {
        let from = match request {
            Request::SessionsShow { .. } => 0,
            Request::SessionsOperations { session, after } => {
                assert_eq!(*session, one().session.session, "by its whole id");
                all.iter().position(|operation| operation.operation == *after).unwrap() + 1
            }
            other => panic!("{} was asked", other.name()),
        };
        asked.push(from);
        let piece: Vec<_> = all.iter().skip(from).take(3).cloned().collect();
        let omitted = (all.len() - piece.len()) as u64;
        let story = Story { operations: piece.clone(), omitted, ..one() };
        Ok(if from == 0 { serde_json::to_value(story) } else { serde_json::to_value(piece) }.unwrap())
    })
    .unwrap();
    assert_eq!((whole.operations, whole.omitted), (all.clone(), 0));
    assert_eq!(asked, [0, 3, 6]);
}
