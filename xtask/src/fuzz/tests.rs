use super::*;

#[test]
fn the_golden_set_seeds_the_targets_of_the_masks() {
    let targets = targets().unwrap();
    let golden = golden().unwrap();
    let placed: Vec<_> = golden.iter().filter_map(|document| place(document)).collect();
    for name in ["mask_json", "mask_events", "mask_text"] {
        assert!(targets.iter().any(|target| target == name), "{name} of {targets:?}");
        assert!(placed.iter().filter(|(target, _)| *target == name).count() >= 10, "{name}");
    }
    // Each document is there beside what becomes of it, but for those of a type that nobody reads.
    let is_outcome = |path: &&PathBuf| path.extension().is_some_and(|end| end == "out" || end == "withheld");
    let unread = golden.iter().filter(|path| path.extension().is_some_and(|end| end == "bin")).count();
    assert_eq!(placed.len() + unread, golden.iter().filter(is_outcome).count());
}

#[test]
fn seeds_choose_among_the_masks_and_types_that_there_are() {
    let read = |path: &str| fs::read_to_string(root().join(path)).unwrap();
    assert_eq!(read("fuzz/src/lib.rs").matches("\n[[mask]]\n").count(), usize::from(MASKS));
    let text = read("fuzz/fuzz_targets/mask_text.rs");
    let kinds =
        ["text/plain", "text/html", "text/csv", "text/tab-separated-values", "application/x-www-form-urlencoded"];
    let at: Vec<_> = kinds.iter().map(|kind| text.find(&format!("\"{kind}\""))).collect();
    assert!(at.is_sorted() && at.iter().all(Option::is_some), "{at:?}");
}

#[test]
fn a_target_that_isnt_there_is_told_with_those_that_are() {
    let known = ["identity".to_owned(), "mask_json".to_owned()];
    assert_eq!(choose(&known, &[]).unwrap(), known);
    assert_eq!(choose(&known, &known[1..]).unwrap(), &known[1..]);
    let error = choose(&known, &["json".to_owned()]).unwrap_err().to_string();
    assert_eq!(error, "there is no target `json`: the targets are identity, mask_json");
}
