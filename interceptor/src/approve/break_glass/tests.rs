use std::sync::atomic::Ordering;
use std::time::Duration;

use super::super::tests::{Book, at};
use super::*;

fn broken(workload: &str, until: i64) -> BreakGlass {
    BreakGlass {
        id: BreakGlassId::new(),
        workload: workload.parse().unwrap(),
        until: at(until),
        reason: "the directory is down".into(),
        loginuid: None,
    }
}

fn is_broken(desk: &Desk, workload: &str) -> bool {
    desk.state().glass(&workload.parse().unwrap()).is_some()
}

#[tokio::test(start_paused = true)]
async fn it_is_broken_until_its_time_is_over_and_recorded_first() {
    let book = Arc::<Book>::default();
    let desk = book.desk();
    assert!(desk.break_glass(broken("crm", 60), 60, 0).unwrap());
    assert!(!desk.break_glass(broken("crm", 90), 90, 0).unwrap(), "one at a time");
    assert!(desk.break_glass(broken("other", 90), 90, 0).unwrap());
    tokio::time::advance(Duration::from_secs(59)).await;
    desk.expire(at(59));
    assert!(is_broken(&desk, "crm"));
    // The clock says it isn't over; the time that passed does.
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(!is_broken(&desk, "crm") && is_broken(&desk, "other"));
    desk.expire(at(-90_000));
    assert_eq!(book.kinds(), ["broken", "broken", "mended"]);
    assert!(desk.break_glass(broken("crm", 160), 60, 0).unwrap(), "and again");
}

#[tokio::test]
async fn it_ends_before_its_time_once() {
    let book = Arc::<Book>::default();
    let desk = book.desk();
    let glass = broken("crm", 60);
    let id = glass.id;
    desk.break_glass(glass, 60, 0).unwrap();
    assert!(desk.mend_glass(id, 7).unwrap());
    assert!(!desk.mend_glass(id, 7).unwrap());
    assert!(!is_broken(&desk, "crm"));
    assert_eq!(book.kinds(), ["broken", "mended"]);
}

#[tokio::test]
async fn what_cant_be_recorded_breaks_nothing_and_lets_nothing_through_longer() {
    let book = Arc::<Book>::default();
    let desk = book.desk();
    book.broken.store(true, Ordering::Relaxed);
    desk.break_glass(broken("crm", 60), 60, 0).unwrap_err();
    assert!(!is_broken(&desk, "crm"));
    book.broken.store(false, Ordering::Relaxed);
    desk.break_glass(broken("crm", 60), 0, 0).unwrap();
    book.broken.store(true, Ordering::Relaxed);
    desk.expire(at(60));
    assert!(!is_broken(&desk, "crm"));
    book.broken.store(false, Ordering::Relaxed);
    desk.expire(at(61));
    assert_eq!(book.kinds(), ["broken", "mended"], "its end is recorded as soon as it can be");
}

#[tokio::test]
async fn a_restart_goes_on_with_what_is_left_and_never_with_more() {
    let book = Arc::<Book>::default();
    let again = |started_at: i64| {
        let broken = broken("crm", 60);
        let (started_at, started_by) = (at(started_at), 0);
        let one = Broken {
            broken,
            started_at,
            started_by,
            ended_at: None,
            ending: None,
            closed_at: None,
            closed_by: None,
            note: None,
        };
        book.desk_after(Vec::new(), vec![one])
    };
    assert!(is_broken(&again(-10), "crm"));
    assert!(!is_broken(&again(10), "crm"), "begun later than now: the clock was set back");
}
