//! Held operations: asked, told of, approved, denied, left alone; grants and their ends; who may answer and who may not;
//! people who sign in; emergencies.

#[path = "approvals/answers.rs"]
mod answers;
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
