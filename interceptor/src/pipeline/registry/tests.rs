use std::collections::BTreeSet;

use super::Registry;
use crate::ids::{LaunchId, SessionId};

#[test]
fn whose_connections_have_ended_is_told_once() {
    let registry = Registry::default();
    let (first, second) = (LaunchId::new(), LaunchId::new());
    let sessions: Vec<SessionId> = [first, first, second]
        .map(|launch| {
            let session = SessionId::new();
            let _ = registry.enter(session, launch);
            session
        })
        .into();
    assert!(registry.left().is_empty(), "all live");
    registry.leave(sessions[0]);
    registry.leave(sessions[1]);
    assert_eq!(registry.left(), BTreeSet::from([first]));
    assert!(registry.left().is_empty());
    registry.leave(sessions[2]);
    // It was never there.
    registry.leave(SessionId::new());
    assert_eq!(registry.left(), BTreeSet::from([second]));
}
