//! What a stack tells: which part of the work a sample was taken in. The parts are in the order in which they are asked: the
//! first that finds itself in the stack has the sample.

use std::collections::BTreeMap;

/// The threads of a daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Threads {
    /// One for each core; they do the walks.
    Workers,
    /// Accepting connections, and what takes too long for a worker.
    Others,
    /// Moves the record from the journal into SQLite.
    Writer,
}

impl Threads {
    /// All of them, in the order of the tables.
    pub(crate) const ALL: [Self; 3] = [Self::Workers, Self::Others, Self::Writer];

    /// Their name in the JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Workers => "workers",
            Self::Others => "others",
            Self::Writer => "writer",
        }
    }

    /// By the name that the daemon gave the thread.
    fn of(thread: &str) -> Self {
        match thread {
            "record" => Self::Writer,
            name if name.starts_with("worker-") => Self::Workers,
            _ => Self::Others,
        }
    }
}

/// Where a part is looked for.
#[derive(Debug, Clone, Copy)]
enum Where {
    /// The function that was running is one of these.
    Running(&'static [&'static str]),
    /// A function's name has one of these in it, anywhere in the stack.
    Anywhere(&'static [&'static str]),
    /// As `Anywhere`, and of all parts that are looked for so it is the one nearest to what was running.
    Nearest(&'static [&'static str]),
    /// In what no other part has.
    Rest,
}

/// A part of the work.
#[derive(Debug)]
pub(crate) struct Part {
    /// Its name for people, and in the JSON.
    pub(crate) name: &'static str,
    place: Where,
    is_writers: bool,
}

impl Part {
    /// Whether these threads have it.
    pub(crate) fn is_of(&self, threads: Threads) -> bool {
        self.is_writers == (threads == Threads::Writer)
    }
}

const fn walk(name: &'static str, place: Where) -> Part {
    Part { name, place, is_writers: false }
}

const fn writer(name: &'static str, place: Where) -> Part {
    Part { name, place, is_writers: true }
}

const ALLOCATOR: Where = Where::Running(&[
    "malloc",
    "cfree",
    "calloc",
    "realloc",
    "_int_malloc",
    "_int_free",
    "_int_realloc",
    "_int_memalign",
    "unlink_chunk",
    "malloc_consolidate",
    "sysmalloc",
    "posix_memalign",
    "aligned_alloc",
]);
/// How a stack is entered from user space, or by an interrupt.
const KERNEL: Where = Where::Anywhere(&["entry_SYSCALL", "asm_sysvec", "asm_exc", "irqentry", "ret_from_fork"]);

/// All parts, in the order in which they are asked.
pub(crate) const PARTS: &[Part] = &[
    walk("malloc and free", ALLOCATOR),
    walk("sockets: the kernel's writes, with waking who reads", Where::Anywhere(&["writev", "sendto", "sendmsg"])),
    walk("sockets: the kernel's reads", Where::Anywhere(&["recvfrom", "recvmsg", "readv"])),
    walk(
        "sockets: opened, accepted, closed",
        Where::Anywhere(&["_connect", "_accept4", "_socket", "_close", "shutdown"]),
    ),
    walk("the journal's writes in the kernel", Where::Anywhere(&["pwrite"])),
    walk("waiting, being interrupted and other kernel", KERNEL),
    walk("BLAKE3 of bodies, tokens, payloads", Where::Running(&["_blake3"])),
    walk(
        "deciding: a question is put, policies are evaluated",
        Where::Anywhere(&["interceptor::policy::", "cedar_policy"]),
    ),
    walk(
        "what is kept: compressed and sealed",
        Where::Anywhere(&["ZSTD", "zstd_safe", "record::payload", "record::keys"]),
    ),
    walk("verdict and outcome, as the journal has them", Where::Anywhere(&["interceptor::record::"])),
    walk("answers are masked", Where::Anywhere(&["interceptor::mask::", "pipeline::screen::Screen::data"])),
    walk("what is kept: searched for secrets", Where::Anywhere(&["interceptor::detect::", "pipeline::payload"])),
    walk("whose token it is", Where::Anywhere(&["authenticate", "interceptor::identity"])),
    walk(
        "TLS: handshakes",
        Where::Anywhere(&[
            "handshake",
            "::hs::",
            "client_hello",
            "for_client",
            "into_connection",
            "webpki",
            "25519",
            "nistz256",
            "mlk",
            "keccak",
            "sha512",
            "SHA384",
            "HKDF",
            "hkdf",
            "ECDSA",
            "mod_inverse",
            "EVP_PKEY",
        ]),
    ),
    walk("TLS: records", Where::Anywhere(&["rustls::", "aws_lc", "aead_aes"])),
    // Before the libraries: a function of ours may name their types.
    walk("the rest of the walk", Where::Nearest(&["interceptor::"])),
    walk("HTTP: hyper, h2", Where::Nearest(&["hyper::", "hyper_util::", "h2::", "http::", "httparse"])),
    walk("tasks, timers, channels: tokio", Where::Nearest(&["tokio::", "mio::", "tokio_rustls::"])),
    walk("not told by the stack", Where::Rest),
    writer("malloc and free", ALLOCATOR),
    writer("the kernel: pages written, twice each", Where::Anywhere(&["pwrite", "fdatasync", "fsync"])),
    writer("the kernel: else", KERNEL),
    writer("the chain's BLAKE3", Where::Running(&["_blake3"])),
    writer("the full-text index", Where::Anywhere(&["fts5"])),
    writer("SQLite else", Where::Anywhere(&["sqlite3"])),
    writer("events are read", Where::Anywhere(&["serde", "record::journal", "record::event"])),
    writer("rows are composed, and the rest", Where::Rest),
];

/// The part that a stack is in, what was running first.
fn part(threads: Threads, stack: &[&str]) -> &'static str {
    let has = |words: &[&str], frame: &str| words.iter().any(|word| frame.contains(word));
    let parts = || PARTS.iter().filter(|part| part.is_of(threads));
    let first = parts().find(|part| match part.place {
        Where::Running(names) => stack.first().is_some_and(|frame| names.iter().any(|name| frame.starts_with(name))),
        Where::Anywhere(words) => stack.iter().any(|frame| has(words, frame)),
        Where::Nearest(_) | Where::Rest => false,
    });
    let nearest = || {
        let near = |frame: &&str| parts().find(|part| matches!(part.place, Where::Nearest(words) if has(words, frame)));
        stack.iter().find_map(near)
    };
    let rest = || parts().find(|part| matches!(part.place, Where::Rest));
    first.or_else(nearest).or_else(rest).map_or("", |part| part.name)
}

/// Counts the samples that `perf script` tells: the thread's name on a line of its own, then a line for each frame, then
/// an empty one.
pub(super) fn count(text: &str) -> BTreeMap<Threads, BTreeMap<&'static str, u64>> {
    let mut counts: BTreeMap<Threads, BTreeMap<&'static str, u64>> = BTreeMap::new();
    for sample in text.split("\n\n") {
        let mut lines = sample.lines().filter(|line| !line.is_empty());
        let Some(thread) = lines.next() else { continue };
        let stack: Vec<&str> = lines.filter_map(|line| Some(line.trim().split_once(' ')?.1.trim())).collect();
        if stack.is_empty() {
            continue;
        }
        let threads = Threads::of(thread.trim());
        *counts.entry(threads).or_default().entry(part(threads, &stack)).or_default() += 1;
    }
    counts
}

#[cfg(test)]
mod tests;
