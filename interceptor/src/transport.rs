//! What moves bytes: the certificate authority and trust, the TLS handshake with the workload, dialling the upstream,
//! synthetic names and the resolver that hands them out. Nothing here decides; what is allowed, `policy` says.

pub mod accept;
pub mod authority;
pub mod diagnosis;
pub mod dial;
pub mod fetch;
pub mod hello;
pub mod http;
pub mod names;
pub mod namespace;
pub mod resolver;
pub mod sever;
pub mod taken;
pub mod trust;
