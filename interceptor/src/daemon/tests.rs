use super::*;

#[test]
fn the_daemon_leaves_no_core_and_shows_its_memory_to_nobody() {
    let (_soft, before) = getrlimit(Resource::RLIMIT_CORE).unwrap();
    keep_memory_to_itself().unwrap();
    assert!(!nix::sys::prctl::get_dumpable().unwrap());
    assert_eq!(getrlimit(Resource::RLIMIT_CORE).unwrap(), (0, before));
}

#[test]
fn behind_a_clock_that_was_set_back_all_grants_are_over() {
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    let now = at("2026-11-25T10:00:00Z");
    assert_eq!(since(None, now), now);
    assert_eq!(since(Some(at("2026-11-25T09:00:00Z")), now), now);
    assert_eq!(since(Some(at("2026-11-25T10:00:02Z")), now), now, "a clock is set right now and then");
    assert_eq!(since(Some(at("2026-11-25T10:00:03Z")), now), Timestamp::MAX);
}
