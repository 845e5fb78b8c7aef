use super::*;

#[test]
fn names_have_one_canonical_form() {
    let name: Hostname = "Graph.Microsoft.COM.".parse().unwrap();
    assert_eq!(name.as_str(), "graph.microsoft.com");
}

#[test]
fn what_parsers_disagree_about_is_no_name() {
    let long = "a.".repeat(127) + "abc";
    for bad in ["", ".", "a..b", "-a.com", "a-.com", "a b", "127.1", "1", "0x7f000001", "a.0x1", "é.com", "a/b", &long]
    {
        assert!(bad.parse::<Hostname>().is_err(), "{bad}");
    }
}

#[test]
fn mapped_addresses_are_the_addresses_they_map() {
    assert_eq!("[::ffff:10.0.0.1]".parse::<Host>(), "10.0.0.1".parse::<Host>());
    assert_eq!("::1".parse::<Host>().unwrap().to_string(), "::1");
}

#[test]
fn a_wildcard_covers_one_label() {
    let pattern: HostPattern = "*.vault.azure.net".parse().unwrap();
    assert!(pattern.matches(&"kv1.vault.azure.net".parse().unwrap()));
    for other in ["vault.azure.net", "a.kv1.vault.azure.net", "kv1.vault.azure.net.evil.com", "10.0.0.1"] {
        assert!(!pattern.matches(&other.parse().unwrap()), "{other}");
    }
    for bad in ["*", "*.com", "a*.example.com", "a.*.com", "*.*.com"] {
        assert!(bad.parse::<HostPattern>().is_err(), "{bad}");
    }
}
