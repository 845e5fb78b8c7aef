//! Interceptor: just-in-time access control under MCP servers, without changing them.
//!
//! The folder is the walk. A connection: [`transport`] accepts it, [`who`] attributes it, [`detect`] tells what it
//! speaks, [`policy`] admits it. Each of its operations: decoded, decided by [`policy`], recorded by [`record`],
//! forwarded or refused by [`enforce`]. [`pipeline`] holds the order of the stages; dependency points downwards only,
//! in the order in which the modules stand here.

pub mod cli;
pub mod control;
pub mod daemon;

pub mod pipeline;

pub mod adopt;
pub mod export;
pub mod launch;
pub mod notify;

pub mod approve;
pub mod enforce;
pub mod record;
pub mod transport;

pub mod bpf;
pub mod identity;
pub mod vault;
pub mod who;

pub mod detect;
pub mod mask;
pub mod policy;

pub mod clock;
pub mod config;
pub mod error;
pub mod fresh;
pub mod heap;
pub mod ids;
pub mod keyfile;
