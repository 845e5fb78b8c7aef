use super::*;

#[test]
fn an_authority_names_one_host_and_port() {
    let graph: Host = "graph.microsoft.com".parse().unwrap();
    let cases = [
        ("graph.microsoft.com", 443, true),
        ("GRAPH.microsoft.com.", 443, true),
        ("graph.microsoft.com:443", 443, true),
        ("graph.microsoft.com:8443", 443, false),
        ("graph.microsoft.com", 8443, false),
        ("graph.microsoft.com:8443", 8443, true),
        ("graph.microsoft.com:", 443, false),
        ("user@graph.microsoft.com", 443, false),
        ("evil.example", 443, false),
        ("graph.microsoft.com.evil.example", 443, false),
    ];
    for (text, port, expected) in cases {
        let authority: uri::Authority = text.parse().unwrap();
        assert_eq!(names(&authority, &graph, port, 443), expected, "{text} on port {port}");
    }
    let literal: uri::Authority = "[::1]:8080".parse().unwrap();
    assert!(names(&literal, &"::1".parse().unwrap(), 8080, 80));
}

/// SDKs of Azure Arc ask `127.0.0.1` for what is named `localhost`.
#[test]
fn the_host_itself_has_three_names() {
    let local: Host = "localhost".parse().unwrap();
    for (text, expected) in [
        ("localhost:40342", true),
        ("127.0.0.1:40342", true),
        ("[::1]:40342", true),
        ("127.0.0.2:40342", false),
        ("127.0.0.1:80", false),
        ("other:40342", false),
    ] {
        let authority: uri::Authority = text.parse().unwrap();
        assert_eq!(names(&authority, &local, 40_342, 80), expected, "{text}");
    }
    let elsewhere: Host = "graph.microsoft.com".parse().unwrap();
    assert!(!names(&"localhost".parse().unwrap(), &elsewhere, 80, 80));
}

#[test]
fn two_hosts_are_none() {
    let mut headers = HeaderMap::new();
    assert_eq!(host_header(&headers).unwrap(), None);
    headers.append(header::HOST, "a.example".parse().unwrap());
    assert!(host_header(&headers).unwrap().is_some());
    headers.append(header::HOST, "a.example".parse().unwrap());
    assert_eq!(host_header(&headers).unwrap_err().code, "host-malformed");
}
