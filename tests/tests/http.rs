//! The HTTP walk through a real daemon and real workloads: what passes and how, what is refused and how the client is told,
//! what ends when policy, time or the daemon do, and what the record holds of all that.

#[path = "http/change.rs"]
mod change;
#[path = "http/fixture.rs"]
mod fixture;
#[path = "http/hops.rs"]
mod hops;
#[path = "http/masks.rs"]
mod masks;
#[path = "http/memory.rs"]
mod memory;
#[path = "http/messages.rs"]
mod messages;
#[path = "http/recording.rs"]
mod recording;
#[path = "http/refusals.rs"]
mod refusals;
#[path = "http/upstream.rs"]
mod upstream;
