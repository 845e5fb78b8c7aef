use super::*;

#[test]
fn a_grant_lasts_from_a_second_to_thirty_days() {
    for (text, seconds) in [("1s", 1), ("1000ms", 1), ("90s", 90), ("30m", 1800), ("8h", 28_800), ("30d", 2_592_000)] {
        assert_eq!(time::<30>(text), Ok(seconds), "{text}");
    }
    for text in ["", "s", "0s", "999ms", "31d", "721h", "-1m", "5", "5w", "1.5h", "99999999999999999999d"] {
        assert!(time::<30>(text).is_err_and(|told| told.contains("30 days")), "{text}");
    }
}
