use std::process::{Command, Stdio};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use super::*;
use crate::launch::hold;

#[test]
fn each_end_is_told_once_and_only_when_it_comes() {
    let reaper = Reaper::start().unwrap();
    let (told, ends) = sync_channel(8);
    let mut children: Vec<_> =
        (0..3).map(|_| Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()).collect();
    for (number, child) in children.iter().enumerate() {
        let told = told.clone();
        reaper.once_ended(hold(child.id()).unwrap(), move || told.send(number).unwrap()).unwrap();
    }
    assert!(ends.recv_timeout(Duration::from_millis(50)).is_err());
    for number in [1, 0, 2] {
        drop(children[number].stdin.take());
        assert_eq!(ends.recv_timeout(Duration::from_secs(30)), Ok(number));
        children[number].wait().unwrap();
    }
    assert!(ends.recv_timeout(Duration::from_millis(50)).is_err());
}
