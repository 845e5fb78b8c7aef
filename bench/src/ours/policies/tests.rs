use super::*;

fn count(policies: Policies) -> usize {
    policies.text(true).matches("@id(").count()
}

#[test]
fn there_are_as_many_as_are_wanted() {
    assert_eq!(count(Policies::One), 1);
    assert_eq!(count(Policies::Bound), 5);
    for many in [FEWEST, 100, USUAL, 10_000] {
        assert_eq!(count(Policies::Many(many)), many);
    }
}

#[test]
fn ten_are_asked_and_10_000_are_over_200_targets() {
    assert_eq!((USERS.to_owned() + REST).matches("@id(").count(), 10);
    assert_eq!(Policies::Many(USUAL).others() + 2, 20);
    assert_eq!(Policies::Many(10_000).others() + 2, 200);
}

#[test]
fn without_masks_nothing_is_masked() {
    assert!(Policies::Many(USUAL).text(true).contains("@mask"));
    assert!(!Policies::Many(USUAL).text(false).contains("@mask"));
}
