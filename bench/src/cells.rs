//! The cells: what is asked, how, and what counts.

/// One thing that is measured.
#[derive(Debug)]
pub(crate) struct Cell {
    /// Its name on the command line and in the JSON.
    pub(crate) name: &'static str,
    /// Its name for people.
    pub(crate) title: &'static str,
    pub(crate) what: What,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// A closed loop of requests.
    Traffic(Traffic),
    /// Resident memory, idle and with 1,000 connections.
    Memory,
    /// The start of a process.
    Launch,
}

/// A closed loop of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Traffic {
    /// `http1`, `http2` or `connect`, as the load has it.
    pub(crate) how: &'static str,
    pub(crate) connections: usize,
    pub(crate) streams: usize,
    /// The collection that is asked for; policy masks each in its own way.
    pub(crate) path: &'static str,
    /// Whether all parts share one core.
    pub(crate) one_core: bool,
    /// Whether the client's key share is post-quantum.
    pub(crate) post_quantum: bool,
}

impl Traffic {
    /// Whether it is HTTP/2.
    pub(crate) fn is_http2(&self) -> bool {
        self.how == "http2"
    }

    /// Whether bytes count, and not requests.
    pub(crate) fn is_bulk(&self) -> bool {
        self.path == "drive"
    }
}

const fn traffic(how: &'static str, connections: usize, streams: usize, path: &'static str) -> Traffic {
    Traffic { how, connections, streams, path, one_core: false, post_quantum: true }
}

const fn one_core(traffic: Traffic) -> Traffic {
    Traffic { one_core: true, ..traffic }
}

/// All of them, in the order of the tables.
pub(crate) const CELLS: &[Cell] = &[
    Cell { name: "http1-64", title: "HTTP/1.1, 64 connections", what: What::Traffic(traffic("http1", 64, 1, "users")) },
    Cell {
        name: "http1-1",
        title: "HTTP/1.1, 1 connection, one core",
        what: What::Traffic(one_core(traffic("http1", 1, 1, "users"))),
    },
    Cell { name: "http2-64", title: "HTTP/2, 64 connections", what: What::Traffic(traffic("http2", 64, 1, "users")) },
    Cell {
        name: "http2-1x64",
        title: "HTTP/2, 1 connection, 64 streams",
        what: What::Traffic(traffic("http2", 1, 64, "users")),
    },
    Cell {
        name: "http2-1x1",
        title: "HTTP/2, 1 connection, 1 stream, one core",
        what: What::Traffic(one_core(traffic("http2", 1, 1, "users"))),
    },
    Cell {
        name: "tls",
        title: "new TLS connections, X25519",
        what: What::Traffic(Traffic { post_quantum: false, ..traffic("connect", 16, 1, "users") }),
    },
    Cell {
        name: "tls-pq",
        title: "new TLS connections, X25519MLKEM768",
        what: What::Traffic(traffic("connect", 16, 1, "users")),
    },
    Cell {
        name: "json-paths",
        title: "100 KB of JSON, 3 paths masked",
        what: What::Traffic(traffic("http1", 16, 1, "reports")),
    },
    Cell {
        name: "json-detectors",
        title: "100 KB of JSON, all detectors",
        what: What::Traffic(traffic("http1", 16, 1, "scans")),
    },
    Cell { name: "bulk", title: "100 MB", what: What::Traffic(traffic("http1", 1, 1, "drive")) },
    Cell { name: "memory", title: "memory", what: What::Memory },
    Cell { name: "launch", title: "launch of a workload", what: What::Launch },
];
