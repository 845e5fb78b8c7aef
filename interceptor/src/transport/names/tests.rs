use std::fs;
use std::io::Write;

use super::*;

fn name(text: &str) -> Hostname {
    text.parse().unwrap()
}

#[test]
fn a_name_keeps_its_pair_and_the_pair_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let names = Names::open(dir.path(), 10).unwrap();
    let public = names.assign(&name("graph.microsoft.com"), Pool::Public).unwrap();
    let private = names.assign(&name("db.corp"), Pool::Private).unwrap();
    let second = names.assign(&name("login.microsoftonline.com"), Pool::Public).unwrap();
    assert_eq!(public, ("55.160.0.1".parse().unwrap(), "2d49:6e74:6572::1".parse().unwrap()));
    assert_eq!(private, ("10.213.0.1".parse().unwrap(), "fd49:6e74:6572::1".parse().unwrap()));
    assert_eq!(second, ("55.160.0.2".parse().unwrap(), "2d49:6e74:6572::2".parse().unwrap()));
    // Also when the name's real addresses have changed sides since.
    assert_eq!(names.assign(&name("graph.microsoft.com"), Pool::Private).unwrap(), public);
    assert_eq!(names.pair_of(&name("db.corp")), Some(private));
    assert_eq!(names.pair_of(&name("unknown.corp")), None);
    let graph = Some(name("graph.microsoft.com"));
    let (v4, v6) = public;
    for address in [IpAddr::V4(v4), IpAddr::V6(v6), IpAddr::V6(v4.to_ipv6_mapped())] {
        assert_eq!(names.name_of(address), graph, "{address}");
    }
}

#[test]
fn an_address_that_no_name_has_is_synthetic_and_means_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let names = Names::open(dir.path(), 10).unwrap();
    names.assign(&name("graph.microsoft.com"), Pool::Public).unwrap();
    for text in [
        "55.160.0.0",
        "55.160.0.2",
        "55.160.255.255",
        "10.213.0.1",
        "2d49:6e74:6572::",
        "2d49:6e74:6572::2",
        "2d49:6e74:6572:1::1",
        "2d49:6e74:6572:ffff:ffff:ffff:ffff:ffff",
        "fd49:6e74:6572::1",
        "::ffff:10.213.9.9",
    ] {
        let address: IpAddr = text.parse().unwrap();
        assert!(Names::is_synthetic(address), "{text}");
        assert_eq!(names.name_of(address), None, "{text}");
    }
    for text in
        ["55.159.255.255", "55.161.0.0", "10.212.0.1", "10.214.0.1", "2d49:6e74:6573::1", "fd49::1", "127.0.0.1", "::1"]
    {
        assert!(!Names::is_synthetic(text.parse().unwrap()), "{text}");
    }
}

#[test]
fn names_survive_a_restart_and_a_torn_last_line() {
    let dir = tempfile::tempdir().unwrap();
    let before = {
        let names = Names::open(dir.path(), 10).unwrap();
        let graph = names.assign(&name("graph.microsoft.com"), Pool::Public).unwrap();
        (graph, names.assign(&name("db.corp"), Pool::Private).unwrap())
    };
    let file = dir.path().join("names");
    let whole = fs::read(&file).unwrap();
    for torn in ["p", "public 2", "public 2 torn.example", "private 2 torn.example.com"] {
        fs::OpenOptions::new().append(true).open(&file).unwrap().write_all(torn.as_bytes()).unwrap();
        let names = Names::open(dir.path(), 10).unwrap();
        assert_eq!(names.pair_of(&name("graph.microsoft.com")), Some(before.0));
        assert_eq!(names.name_of(before.1.0.into()), Some(name("db.corp")));
        assert_eq!(names.pair_of(&name("torn.example.com")), None);
        drop(names);
        assert_eq!(fs::read(&file).unwrap(), whole);
    }
    let names = Names::open(dir.path(), 10).unwrap();
    let next = names.assign(&name("next.example.com"), Pool::Public).unwrap();
    assert_eq!(next.0, Ipv4Addr::new(55, 160, 0, 2));
    drop(names);
    assert_eq!(Names::open(dir.path(), 10).unwrap().pair_of(&name("next.example.com")), Some(next));
}

#[test]
fn every_prefix_of_the_file_reads_as_the_whole_lines_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let names = Names::open(dir.path(), 10).unwrap();
    for index in 0..4 {
        names.assign(&name(&format!("n{index}.example.com")), Pool::Private).unwrap();
    }
    let whole = fs::read(dir.path().join("names")).unwrap();
    for cut in 0..=whole.len() {
        fs::write(dir.path().join("names"), &whole[..cut]).unwrap();
        let names = Names::open(dir.path(), 10).unwrap();
        let lines = whole[..cut].iter().filter(|&&byte| byte == b'\n').count();
        let known = (0..4).filter(|index| names.pair_of(&name(&format!("n{index}.example.com"))).is_some()).count();
        assert_eq!(known, lines, "cut at {cut}");
    }
}

#[test]
fn what_was_never_written_is_refused() {
    for (text, line) in [
        ("public 1 a.example.com\nnonsense\n", 2),
        ("public 0 a.example.com\n", 1),
        ("public 65536 a.example.com\n", 1),
        ("public 1 a..b\n", 1),
        ("public 1 a.example.com extra\n", 1),
        ("secret 1 a.example.com\n", 1),
        ("public 1 a.example.com\npublic 1 b.example.com\n", 2),
        ("public 1 a.example.com\nprivate 1 a.example.com\n", 2),
    ] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("names"), text).unwrap();
        match Names::open(dir.path(), 10) {
            Err(NamesError::Malformed { line: at, .. }) => assert_eq!(at, line, "{text}"),
            other => panic!("{text}: {other:?}"),
        }
    }
}

#[test]
fn a_workload_has_as_many_names_as_its_limit_says() {
    let dir = tempfile::tempdir().unwrap();
    let names = Names::open(dir.path(), 2).unwrap();
    let first = names.assign(&name("a.example.com"), Pool::Public).unwrap();
    names.assign(&name("b.example.com"), Pool::Private).unwrap();
    assert!(matches!(names.assign(&name("c.example.com"), Pool::Public), Err(NamesError::Full(2))));
    assert_eq!(names.assign(&name("a.example.com"), Pool::Public).unwrap(), first);
}

#[test]
fn a_pool_ends_with_its_last_slot() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("names"), "public 65535 last.example.com\n").unwrap();
    let names = Names::open(dir.path(), 100_000).unwrap();
    assert!(matches!(names.assign(&name("a.example.com"), Pool::Public), Err(NamesError::Full(_))));
    names.assign(&name("a.example.com"), Pool::Private).unwrap();
}
