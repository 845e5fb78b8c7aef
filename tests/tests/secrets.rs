//! Secrets: credentials that a process never holds, what is kept of requests and answers and who can read it, and that
//! nothing that must never be recorded is found anywhere afterwards.

#[path = "secrets/echo.rs"]
mod echo;
#[path = "secrets/fixture.rs"]
mod fixture;
#[path = "secrets/injection.rs"]
mod injection;
#[path = "secrets/limits.rs"]
mod limits;
#[path = "secrets/planted.rs"]
mod planted;
#[path = "secrets/replay.rs"]
mod replay;
#[path = "secrets/retention.rs"]
mod retention;
