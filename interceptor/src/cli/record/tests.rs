use super::*;

#[test]
fn what_was_done_is_told_and_how_to_check_it() {
    let mut rotated = Rotated {
        previous: "record-20260301T100000Z.db".into(),
        seq: Some(7),
        hash: Some("ab".repeat(32)),
        digest: Some("cd".repeat(32)),
        sealed: true,
    };
    let told = describe(&rotated);
    assert!(told.contains("ends with event 7, is record-20260301T100000Z.db (sealed)\n"), "{told}");
    assert!(told.ends_with("--previous record-20260301T100000Z.db\n") && told.contains(&"cd".repeat(32)), "{told}");
    (rotated.seq, rotated.sealed, rotated.digest) = (None, false, None);
    assert!(describe(&rotated).contains("isn't known") && describe(&rotated).contains("(damaged"));
    assert!(describe(&rotated).contains("\nthe BLAKE3 of that file comes into the record as `record.hashed`"));
}
