use super::*;

#[test]
fn the_daemon_leaves_no_core_and_shows_its_memory_to_nobody() {
    let (_soft, before) = getrlimit(Resource::RLIMIT_CORE).unwrap();
    keep_memory_to_itself().unwrap();
    assert!(!nix::sys::prctl::get_dumpable().unwrap());
    assert_eq!(getrlimit(Resource::RLIMIT_CORE).unwrap(), (0, before));
}
