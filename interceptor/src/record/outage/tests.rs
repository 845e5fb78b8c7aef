use super::*;
use crate::clock::{Clock, SystemClock};

/// The causes that something is to be told of, and whether they are over.
fn told(outages: &mut Outages, lasting: &[Cause], last: bool) -> Vec<(String, bool)> {
    let mut told = Vec::new();
    while let Some(what) = outages.next(SystemClock.now(), last, |cause| lasting.contains(&cause)) {
        let What::RecordOutage { since, until, reason } = what else { panic!("{what:?}") };
        assert!(until.is_none_or(|until| since <= until), "{since} to {until:?}");
        told.push((reason, until.is_some()));
        outages.mark_told();
    }
    told
}

fn one(cause: &str, is_over: bool) -> [(String, bool); 1] {
    [(cause.to_owned(), is_over)]
}

const NOTHING: [(String, bool); 0] = [];

fn note(outages: &mut Outages, cause: Cause, denied: bool) -> bool {
    outages.note(cause, denied, || format!("{cause:?}"))
}

#[test]
fn a_moment_is_told_only_while_it_goes_on_or_if_something_was_denied_in_it() {
    let mut outages = Outages::default();
    note(&mut outages, Cause::Failing, false);
    assert_eq!(told(&mut outages, &[], false), NOTHING, "it was over before anybody could notice");
    note(&mut outages, Cause::Failing, false);
    assert!(!note(&mut outages, Cause::Failing, true), "it is there already");
    assert_eq!(told(&mut outages, &[Cause::Failing], false), NOTHING, "it can't be told before it is over");
    assert_eq!(told(&mut outages, &[], false), one("Failing", true), "what it denied is told");
    assert_eq!(told(&mut outages, &[], true), NOTHING);
    for cause in [Cause::NoRoom, Cause::Unanchored] {
        note(&mut outages, cause, false);
        assert_eq!(told(&mut outages, &[cause], false), one(&format!("{cause:?}"), false));
        assert_eq!(told(&mut outages, &[cause], false), NOTHING, "once");
        assert_eq!(told(&mut outages, &[], false), one(&format!("{cause:?}"), true), "what began ends");
    }
}

#[test]
fn each_cause_is_told_for_itself() {
    let mut outages = Outages::default();
    for cause in [Cause::Unanchored, Cause::Behind, Cause::Full] {
        note(&mut outages, cause, true);
    }
    let all = [Cause::Unanchored, Cause::Behind, Cause::Full];
    assert_eq!(told(&mut outages, &all, false), one("Unanchored", false));
    assert_eq!(told(&mut outages, &all[..2], false), one("Full", true));
    assert!(outages.lasts(Cause::Behind) && !outages.lasts(Cause::Full));
    assert_eq!(told(&mut outages, &[], false).len(), 2);
}

#[test]
fn what_comes_and_goes_all_the_time_is_told_now_and_then_and_at_the_end() {
    let mut outages = Outages::default();
    for _ in 0..100 {
        note(&mut outages, Cause::Full, true);
        told(&mut outages, &[Cause::Full], false);
        let due = told(&mut outages, &[], false);
        assert!(due.len() <= 1);
    }
    // The first was told, the others are one that is put off.
    let until = outages.due().expect("it is due later");
    assert!(until > Instant::now() && until <= Instant::now() + APART);
    assert_eq!(told(&mut outages, &[], false), NOTHING);
    assert_eq!(told(&mut outages, &[], true), one("Full", true), "nothing is put off at the end");
    assert_eq!((outages.due(), outages.there.len()), (None, 0));
}

#[test]
fn what_comes_again_while_its_end_is_recorded_is_another_one() {
    let mut outages = Outages::default();
    note(&mut outages, Cause::Full, true);
    assert!(outages.next(SystemClock.now(), false, |_| false).is_some());
    note(&mut outages, Cause::Full, true);
    outages.mark_told();
    assert!(outages.lasts(Cause::Full));
    assert_eq!(told(&mut outages, &[], true), one("Full", true));
}
