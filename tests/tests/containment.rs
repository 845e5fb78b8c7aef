//! What a launched workload can't do, with the errno that it gets, and what a launch keeps of its caller. The launcher is
//! driven directly, without a daemon; the network's part of containment is in `steering.rs`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a fixture that can't be made fails its test")]

#[path = "containment/fixture.rs"]
mod fixture;
#[path = "containment/lifecycle.rs"]
mod lifecycle;
#[path = "containment/privileges.rs"]
mod privileges;
#[path = "containment/view.rs"]
mod view;
