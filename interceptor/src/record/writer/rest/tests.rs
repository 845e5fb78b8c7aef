use super::*;

#[test]
fn little_stays_and_much_is_given_back_once_nothing_comes() {
    let mut rest = Rest::default();
    rest.put_off(MUCH - 1);
    assert!(rest.at.is_none() && !rest.begins());
    rest.put_off(1);
    let first = rest.at.unwrap();
    assert!(!rest.begins());
    rest.put_off(0);
    assert!(rest.at.unwrap() > first);
    rest.at = Some(Instant::now());
    assert!(rest.begins());
    assert!(rest.at.is_none() && !rest.begins());
    rest.put_off(MUCH - 1);
    assert!(rest.at.is_none());
}
