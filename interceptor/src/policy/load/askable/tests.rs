use crate::policy::fixture::{settings, snapshot, source};
use crate::policy::rules::ACTIONS;
use crate::policy::{PolicyFault, Snapshot, action};

/// A permit with these annotations, whose scope says this of the action.
fn permit(annotations: &str, action: &str) -> String {
    format!("// the first line\n{annotations} permit(principal{action}, resource == Target::\"graph\");")
}

fn warned(annotations: &str, action: &str) -> Vec<String> {
    snapshot(&permit(annotations, action)).warnings().iter().map(PolicyFault::to_string).collect()
}

#[test]
fn what_nobody_can_be_asked_about_is_warned_of_and_loads() {
    for (annotations, action, name, actions) in [
        ("@approval(\"ada\")", r#", action == Action::"token:request""#, "approval", "`token:request`"),
        ("@confirm(\"sure?\")", r#", action == Action::"connect""#, "confirm", "`connect`"),
        ("@approval(\"ada\") @confirm(\"sure?\")", r#", action in Action::"reach""#, "approval", "`reach`"),
        (
            "@approval(\"ada\")",
            r#", action in [Action::"dns:resolve", Action::"token:request"]"#,
            "approval",
            "`dns:resolve`, `token:request`",
        ),
    ] {
        let said = format!(
            "policy.d/test.cedar:2:1: nobody can be asked about {actions}: what `@{name}` is on is denied until an \
             operator issues a grant"
        );
        assert_eq!(warned(annotations, action), [said], "{annotations} {action}");
    }
}

#[test]
fn what_can_match_a_request_isnt_warned_of() {
    for action in [
        ", action",
        r#", action == Action::"http:websocket""#,
        r#", action in Action::"http""#,
        r#", action in Action::"http:read""#,
        r#", action in [Action::"connect", Action::"http:POST"]"#,
    ] {
        assert_eq!(warned("@approval(\"ada\")", action), [""; 0], "{action}");
    }
    assert_eq!(warned("@reason(\"x\")", r#", action == Action::"token:request""#), [""; 0], "nobody is asked");
}

#[test]
fn every_action_of_requests_can_be_asked_about_and_no_other() {
    let methods = ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "TRACE"];
    let mut of_requests = methods.map(|method| action(method, false)).to_vec();
    of_requests.push(action("GET", true));
    for name in ACTIONS {
        let is_warned = !warned("@approval(\"ada\")", &format!(", action == Action::\"{name}\"")).is_empty();
        assert_eq!(is_warned, !of_requests.contains(&name), "{name}");
    }
}

#[test]
fn a_warning_is_drawn_as_one_and_those_of_emergencies_are_among_them() {
    let text = permit("@approval(\"ada\")", r#", action == Action::"connect""#);
    let snapshot = Snapshot::load_with(settings(), Vec::new(), source(&text), 1).unwrap();
    let [warning] = snapshot.warnings() else { panic!("{:?}", snapshot.warnings()) };
    let drawn = warning.render(false, 120);
    assert!(drawn.contains('⚠') && drawn.contains("@approval(\"ada\")") && drawn.contains("help: "), "{drawn}");
}
