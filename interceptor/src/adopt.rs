//! Adopted workloads: which cgroups they are now ([`find`]), what their processes may that would get around the proxy
//! ([`survey`]), and sockets that they have from before or from elsewhere ([`sockets`]). How their connections are steered
//! is `bpf::adopt`'s part; when all this is looked at, the daemon's.

mod container;
mod filter;
mod find;
mod procfs;
mod sockets;
mod survey;
mod unit;

pub use container::Engines;
pub use find::{Cgroup, Found, Tree, common, is_gone, told, watched};
pub use procfs::{Namespaces, Process, is_shortage};
pub use sockets::{DESCRIPTORS, Sockets, Stray};
pub use survey::{Hole, Survey};
pub use unit::{DropIn, UnitError};
