use super::*;

#[test]
fn every_rule_compiles_for_both_machines_and_has_a_reason() {
    for arch in [TargetArch::x86_64, TargetArch::aarch64] {
        let compiled = seccompiler::compile_from_json(RULES.as_bytes(), arch).unwrap();
        assert!(compiled.values().all(|program| program.len() < 4096));
    }
    let rules: serde_json::Value = serde_json::from_str(RULES).unwrap();
    for (group, filter) in rules.as_object().unwrap() {
        for rule in filter["filter"].as_array().unwrap() {
            let reason = rule["comment"].as_str().unwrap_or_default();
            assert!(reason.len() > 9, "{group}: {rule} has no reason");
        }
    }
}

#[test]
fn the_groups_are_loaded_in_their_order_and_the_last_is_that_of_sockets() {
    let rules: serde_json::Value = serde_json::from_str(RULES).unwrap();
    let rules = rules.as_object().unwrap();
    assert_eq!(rules.keys().map(String::as_str).collect::<Vec<_>>(), ["1 not there", "2 not permitted", "3 sockets"]);
    for (group, filter) in rules {
        let mut calls = filter["filter"].as_array().unwrap().iter().map(|rule| rule["syscall"].as_str().unwrap());
        let is_socket = |call: &str| call.starts_with("socket");
        assert!(calls.all(|call| is_socket(call) == (group == "3 sockets")), "{group}");
    }
    let filters = Filters::compile().unwrap();
    assert_eq!(filters.silent.len(), 3);
    assert!(actions(&filters.sockets).contains(&(libc::SECCOMP_RET_ERRNO | libc::EAFNOSUPPORT.unsigned_abs())));
}

#[test]
fn what_is_refused_of_sockets_is_asked_about_and_nothing_else_is() {
    let sockets = Filters::compile().unwrap().sockets;
    let (before, asking) = (actions(&sockets), actions(&asking(&sockets)));
    let expected = before.iter().map(|action| match action & libc::SECCOMP_RET_ACTION_FULL {
        libc::SECCOMP_RET_ERRNO => libc::SECCOMP_RET_USER_NOTIF,
        _ => *action,
    });
    assert_eq!(asking, expected.collect::<Vec<_>>());
    assert!(asking.contains(&libc::SECCOMP_RET_USER_NOTIF) && asking.contains(&libc::SECCOMP_RET_ALLOW));
}

/// As under a container's manager that is asked about calls itself: a process can be asked about at one descriptor only.
#[test]
fn where_somebody_is_asked_already_the_kernel_refuses() {
    nix::sys::prctl::set_no_new_privs().unwrap();
    let filters = Filters::compile().unwrap();
    let first = filters.load_asking().unwrap();
    assert!(first.is_some(), "nobody is asked");
    assert!(filters.load_asking().unwrap().is_none(), "two are asked");
    // It would wait for ever, if it were asked about.
    let refused = nix::sys::socket::socket(
        nix::sys::socket::AddressFamily::Packet,
        nix::sys::socket::SockType::Raw,
        nix::sys::socket::SockFlag::empty(),
        None,
    );
    assert_eq!(refused.unwrap_err(), nix::errno::Errno::EAFNOSUPPORT);
}

/// What a program may end with.
fn actions(program: &[libc::sock_filter]) -> Vec<u32> {
    let ends = program.iter().filter(|step| u32::from(step.code) == libc::BPF_RET | libc::BPF_K);
    ends.map(|step| step.k).collect()
}
