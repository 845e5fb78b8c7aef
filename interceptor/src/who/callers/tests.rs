use super::*;

fn crm() -> WorkloadName {
    "crm".parse().unwrap()
}

/// Moves all that was noted so far back in time.
fn later(callers: &Callers, by: Duration) {
    for called in callers.all().values_mut().flat_map(BTreeMap::values_mut) {
        called.last = called.last.checked_sub(by).unwrap();
    }
}

#[test]
fn who_calls_counts_while_he_does_and_a_while_after() {
    let callers = Arc::<Callers>::default();
    let late = || callers.within(&crm(), LATE);
    let (first, second) = (callers.enter(&crm(), 7), callers.enter(&crm(), 7));
    later(&callers, LATE);
    drop(first);
    later(&callers, LATE);
    assert_eq!(late(), [7], "a call of his lasts");
    drop(second);
    later(&callers, LATE - Duration::from_secs(1));
    let _other = callers.enter(&crm(), 3);
    assert_eq!(late(), [3, 7]);
    later(&callers, Duration::from_secs(1));
    assert_eq!(late(), [3], "it is long over");
    assert_eq!(callers.within(&crm(), LATE * 2), [3, 7], "but not for what was asked before");
    assert!(callers.within(&"other".parse().unwrap(), LATE).is_empty());
}

#[test]
fn of_many_who_called_longest_ago_is_forgotten() {
    let callers = Arc::<Callers>::default();
    let most = u32::try_from(MOST).unwrap();
    let lasts = callers.enter(&crm(), 0);
    for uid in 1..=most {
        drop(callers.enter(&crm(), uid));
    }
    let late = callers.within(&crm(), LATE);
    assert_eq!(late.len(), MOST);
    assert!(late.contains(&0) && !late.contains(&1) && late.contains(&most));
    drop(lasts);
}
