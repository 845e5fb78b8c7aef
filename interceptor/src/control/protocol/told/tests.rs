use super::*;
use crate::control::protocol::HostCommand;

#[test]
fn what_a_request_is_about_is_told_behind_its_name_and_not_without_end() {
    let id = || "ses_7".to_owned();
    for (request, expected) in [
        (Request::Status, "status"),
        (Request::SessionsKill { id: id() }, "sessions-kill ses_7"),
        (Request::SessionsHold { id: id(), held: true }, "sessions-hold ses_7"),
        (Request::SessionsHold { id: id(), held: false }, "sessions-hold ses_7 --release"),
        (Request::HostCommand { command: HostCommand::Adopt, unit: "crm.service".into() }, "adopt crm.service"),
    ] {
        assert_eq!(request.in_words(), expected);
    }
    let long = Request::PayloadRead { operation: "\u{e4}".repeat(1_000_000) };
    assert_eq!(long.in_words().chars().count(), "payload-read ".len() + ABOUT);
}
