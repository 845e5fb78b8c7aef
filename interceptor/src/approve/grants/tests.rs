use std::sync::atomic::Ordering;

use super::super::tests::{Book, at};
use super::*;
use crate::policy::{Behind, Origin, Scope, Whose};

fn grant(bytes: Option<u64>, rows: Option<u64>) -> Grant {
    Grant {
        id: GrantId::new(),
        workload: "crm".parse().unwrap(),
        whose: Whose::Anyone,
        behind: Behind::Anybody,
        target: "graph".parse().unwrap(),
        scope: Scope::Target,
        origin: Origin::Operator,
        until: at(300),
        uses: None,
        bytes,
        rows,
    }
}

/// A desk with one grant.
fn desk(book: &Arc<Book>, bytes: Option<u64>, rows: Option<u64>) -> (Arc<Desk>, GrantId) {
    let (desk, grant) = (book.desk(), grant(bytes, rows));
    let id = grant.id;
    desk.issue(grant, 300, 0).unwrap();
    (desk, id)
}

#[tokio::test]
async fn bytes_and_rows_end_a_grant_at_the_first_of_its_limits() {
    for (bytes, rows) in [(Some(100), None), (Some(100), Some(1_000)), (Some(1_000_000), Some(10)), (None, Some(10))] {
        let book = Arc::<Book>::default();
        let (desk, id) = desk(&book, bytes, rows);
        assert!(desk.spend(id, 60, 6) && desk.spend(id, 40, 4), "up to the limit: {bytes:?} {rows:?}");
        assert_eq!(desk.limits(id), Some((bytes.is_some(), rows.is_some())));
        assert!(!desk.spend(id, 1, 1), "beyond it: {bytes:?} {rows:?}");
        assert_eq!((desk.limits(id), book.kinds()), (None, vec!["issued", "ended"]));
        assert!(desk.take(id).is_none(), "it isn't used any more");
    }
}

#[tokio::test]
async fn who_begins_when_nothing_is_left_finds_nothing() {
    let book = Arc::<Book>::default();
    let (desk, id) = desk(&book, Some(100), None);
    let mut watched = desk.watch();
    watched.mark_unchanged();
    assert!(desk.spend(id, 99, 0));
    assert!(!watched.has_changed().unwrap(), "each piece of an answer would be told to everybody");
    assert!(desk.spend(id, 1, 0));
    assert!(watched.has_changed().unwrap());
    let state = desk.state();
    assert_eq!(state.grants.get(&id).unwrap().left().bytes, Some(0));
}

#[tokio::test]
async fn what_a_grant_let_through_outlives_the_desk() {
    let book = Arc::<Book>::default();
    let grant = grant(Some(100), Some(10));
    let id = grant.id;
    let (spent_bytes, spent_rows) = (90, 3);
    let granted = Granted {
        grant,
        issued_at: at(-1),
        issuer: Some(0),
        used: 1,
        spent_bytes,
        spent_rows,
        ended_at: None,
        reason: None,
    };
    let desk = book.desk_after(vec![granted], Vec::new());
    assert!(desk.spend(id, 10, 1) && !desk.spend(id, 1, 0));
}

#[tokio::test]
async fn an_end_that_cant_be_recorded_ends_it_all_the_same() {
    let book = Arc::<Book>::default();
    let (desk, id) = desk(&book, Some(100), None);
    book.broken.store(true, Ordering::Relaxed);
    assert!(!desk.spend(id, 101, 0) && !desk.spend(id, 1, 0));
    book.broken.store(false, Ordering::Relaxed);
    desk.expire(at(1));
    assert_eq!(book.kinds(), ["issued", "ended"]);
}
