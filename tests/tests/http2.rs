//! HTTP/2 and WebSocket through a real daemon and real workloads: what is agreed on, how streams are decided apart and
//! don't stop each other, what ends which of them, and what a hostile peer gains.

#![expect(clippy::expect_used, reason = "what a test makes itself is as it says")]

#[path = "http2/agreement.rs"]
mod agreement;
#[path = "http2/change.rs"]
mod change;
#[path = "http2/clients.rs"]
mod clients;
#[path = "http2/fixture.rs"]
mod fixture;
#[path = "http2/floods.rs"]
mod floods;
#[path = "http2/last_words.rs"]
mod last_words;
#[path = "http2/masks.rs"]
mod masks;
#[path = "http2/peers.rs"]
mod peers;
#[path = "http2/principals.rs"]
mod principals;
#[path = "http2/streams.rs"]
mod streams;
#[path = "http2/websocket.rs"]
mod websocket;
