//! What a worker counts of every operation. Looking a counter up costs more than counting, so each is looked up once.

use std::cell::RefCell;
use std::collections::HashMap;

use metrics::Counter;

use super::ruling::Ruling;

/// The counters of a worker.
pub(super) struct Counted {
    /// Bytes of requests' bodies.
    pub(super) request: Counter,
    /// Bytes of answers' bodies.
    pub(super) response: Counter,
    operations: RefCell<HashMap<[&'static str; 3], Counter>>,
}

impl Default for Counted {
    fn default() -> Self {
        let bytes = |direction| metrics::counter!("interceptor_payload_bytes_total", "direction" => direction);
        Self { request: bytes("request"), response: bytes("response"), operations: RefCell::default() }
    }
}

impl Counted {
    /// Counts an operation.
    pub(super) fn operation(&self, ruling: &Ruling) {
        let labels = ruling.labels();
        self.operations.borrow_mut().entry(labels).or_insert_with(|| operations(labels)).increment(1);
    }
}

/// The counter of operations of this class, verdict and code.
pub(super) fn operations([class, verdict, code]: [&'static str; 3]) -> Counter {
    metrics::counter!("interceptor_operations_total", "class" => class, "verdict" => verdict, "code" => code)
}
