use super::*;

fn entries(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

fn run_as(switched: bool) -> RunAs {
    RunAs {
        uid: 1000,
        gid: 1000,
        groups: Vec::new(),
        home: Some("/home/mcp".into()),
        switched: switched.then(|| ("mcp".into(), "/bin/sh".into())),
    }
}

#[test]
fn proxies_and_unreachable_services_are_dropped_in_any_case() {
    let caller = entries(&["HTTPS_PROXY=http://p", "no_Proxy=x", "SSH_AUTH_SOCK=/run/x", "LANG=C", "EMPTY="]);
    let env = compose(&caller, &run_as(false)).unwrap();
    let text = env.iter().map(|entry| String::from_utf8_lossy(entry).to_lowercase()).collect::<Vec<_>>();
    assert!(!text.iter().any(|entry| entry.contains("proxy") || entry.contains("ssh_auth")), "{text:?}");
    assert_eq!(value(&env, "LANG"), Some(&b"C"[..]));
    assert_eq!(value(&env, "EMPTY"), Some(&b""[..]));
}

#[test]
fn trust_is_ours_alone() {
    let caller = entries(&["SSL_CERT_FILE=/home/x/mine.pem", "NODE_EXTRA_CA_CERTS=/x", "HOME=/home/alice"]);
    let env = compose(&caller, &run_as(false)).unwrap();
    for (name, wanted, _) in TRUST {
        let found: Vec<_> = env.iter().filter(|e| e.starts_with(format!("{name}=").as_bytes())).collect();
        assert_eq!(found, [format!("{name}={wanted}").as_bytes()]);
    }
    assert_eq!(value(&env, "HOME"), Some(&b"/home/alice"[..]));
    assert_eq!(value(&env, "XDG_RUNTIME_DIR"), Some(&b"/run/user/1000"[..]));
}

#[test]
fn another_user_has_its_own_names_and_home() {
    let env = compose(&entries(&["HOME=/home/alice", "USER=alice"]), &run_as(true)).unwrap();
    assert_eq!(value(&env, "HOME"), Some(&b"/home/mcp"[..]));
    assert_eq!(value(&env, "USER"), Some(&b"mcp"[..]));
    assert_eq!(env.iter().filter(|entry| entry.starts_with(b"HOME=")).count(), 1);
}

#[test]
fn what_is_no_entry_is_refused() {
    for bad in ["novalue", "=x", "A=b\0c"] {
        assert!(compose(&entries(&[bad]), &run_as(false)).is_err(), "{bad:?}");
    }
}
