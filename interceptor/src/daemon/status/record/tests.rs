use super::*;

/// A record of which there is nothing to tell.
fn well() -> Health {
    Health {
        seq: 7,
        lag_ms: 0,
        backlog: 0,
        backlog_limit: 1 << 20,
        failed: None,
        damaged: 0,
        checkpoint_age_ms: 0,
        unanchored_since: None,
        unanchored_ms: 0,
        renewals: 0,
    }
}

fn told(health: &Health, lacks_reserve: bool) -> (Vec<&'static str>, bool) {
    let now = "2026-03-01T10:10:01Z".parse().unwrap();
    let Causes { told, denies } = causes(health, lacks_reserve, &RecordSettings::default(), now);
    (told.iter().map(|one| one.code).collect(), denies)
}

#[test]
fn each_cause_has_its_code_and_only_some_deny() {
    let at = |text: &str| Some(text.parse().unwrap());
    let table: [(Health, bool, &[&str], bool); 12] = [
        (well(), false, &[], false),
        (Health { failed: Some("the disk is full".into()), ..well() }, false, &["record-unavailable"], true),
        (Health { lag_ms: 5_001, ..well() }, false, &["record-unavailable"], true),
        (Health { backlog: 1 << 20, ..well() }, false, &["record-unavailable"], true),
        (Health { lag_ms: 1_001, ..well() }, false, &["record-lagging"], false),
        (Health { unanchored_since: at("2026-03-01T10:00:00Z"), ..well() }, false, &["record-unanchored"], true),
        (Health { unanchored_since: at("2026-03-01T10:00:02Z"), ..well() }, false, &[], false),
        // By the time that has passed, where the clock was set back.
        (
            Health { unanchored_since: at("2026-03-01T10:10:00Z"), unanchored_ms: 600_001, ..well() },
            false,
            &["record-unanchored"],
            true,
        ),
        (Health { damaged: 1, ..well() }, false, &["record-damaged"], false),
        (Health { checkpoint_age_ms: 600_001, ..well() }, false, &["checkpoint-late"], false),
        (well(), true, &["reserve-missing"], false),
        (Health { failed: Some("the disk is full".into()), ..well() }, true, &["record-unavailable"], true),
    ];
    for (health, lacks_reserve, codes, denies) in table {
        assert_eq!(told(&health, lacks_reserve), (codes.to_vec(), denies), "{health:?}");
    }
}

#[test]
fn what_no_sink_has_a_checkpoint_of_is_told_with_its_time() {
    let health = Health { unanchored_since: Some("2026-03-01T10:00:00.5Z".parse().unwrap()), ..well() };
    let now = "2026-03-01T10:20:00Z".parse().unwrap();
    let Causes { told, .. } = causes(&health, false, &RecordSettings::default(), now);
    assert!(told[0].message.contains("recorded since 2026-03-01T10:00:0"), "{told:?}");
    assert!(told[0].next.contains("`[[export]]`"), "{told:?}");
}
