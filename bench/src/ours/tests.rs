use super::*;

#[test]
fn there_are_200_policies_of_which_ten_are_asked() {
    assert_eq!(policies().matches("@id(").count(), POLICIES);
    assert_eq!(SLICE.matches("@id(").count(), 10);
}
