//! Held operations: asked, told of, approved, denied, left alone; grants and their ends; who may answer and who may not;
//! people who sign in; who watches; emergencies; that every command is an event.

#[path = "approvals/answers.rs"]
mod answers;
#[path = "approvals/commands.rs"]
mod commands;
#[path = "approvals/emergencies.rs"]
mod emergencies;
#[path = "approvals/fixture.rs"]
mod fixture;
#[path = "approvals/grants.rs"]
mod grants;
#[path = "approvals/login.rs"]
mod login;
#[path = "approvals/notify.rs"]
mod notify;
#[path = "approvals/own.rs"]
mod own;
#[path = "approvals/standing.rs"]
mod standing;
#[path = "approvals/terms.rs"]
mod terms;
#[path = "approvals/watch.rs"]
mod watch;
#[path = "approvals/websocket.rs"]
mod websocket;
