use super::*;

#[test]
fn a_token_turns_back_with_its_key_only_and_tells_nothing() {
    let key = [7; 32];
    for tag in ["\"v1\"", "W/\"a,b\"", "\"\""] {
        let token = hide(&key, tag);
        assert_eq!(reveal(&key, &token).as_deref(), Some(tag));
        assert_eq!(reveal(&key, &format!(" {} ", token.trim_start_matches("W/"))).as_deref(), Some(tag));
        assert_eq!(hide(&key, tag), token, "the same tag has the same token");
        assert_eq!(reveal(&[8; 32], &token), None);
        assert!(token.is_ascii() && !token.contains(',') && !token.contains("v1"), "{token}");
    }
}

#[test]
fn what_is_no_token_is_no_tag() {
    let token = hide(&[7; 32], "\"v1\"");
    let mut changed = token.clone().into_bytes();
    changed[10] ^= 1;
    let changed = String::from_utf8(changed).unwrap();
    for other in ["", "*", "\"v1\"", "W/\"\"", "\"AAAA\"", changed.as_str()] {
        assert_eq!(reveal(&[7; 32], other), None, "{other}");
    }
}
