use super::*;

#[test]
fn only_the_browser_with_the_right_state_is_taken_for_it() {
    let get = |path: &str| query(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes(), "s/1");
    assert_eq!(get("/?code=c&state=s%2F1"), Some("code=c&state=s%2F1".into()));
    assert_eq!(get("/?error=access_denied&state=s/1"), Some("error=access_denied&state=s/1".into()));
    for other in ["/?code=c&state=s", "/?code=c", "/", "/favicon.ico", "/x?code=c&state=s%2F1"] {
        assert_eq!(get(other), None, "{other}");
    }
    assert_eq!(query(b"POST /?code=c&state=s%2F1 HTTP/1.1\r\n\r\n", "s/1"), None);
    assert_eq!(query(b"", "s/1"), None);
}
