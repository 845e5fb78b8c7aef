//! The layering of the `interceptor` library: a module may use modules of its own layer and of lower ones, no two
//! modules use each other, and the pure modules touch neither clock nor IO.

use std::collections::{BTreeMap, BTreeSet};

use super::Finding;
use super::source::Source;

/// The layers, highest first (ARCHITECTURE.md).
const LAYERS: &[&[&str]] = &[
    &["cli", "control", "daemon"],
    &["pipeline"],
    &["adopt", "launch", "export", "notify"],
    &["approve", "enforce", "record", "transport"],
    &["who", "identity", "vault", "bpf"],
    &["policy", "detect", "wire", "mask"],
    &["config", "ids", "clock", "error", "fresh", "heap", "keyfile"],
];

/// Functions of their arguments: no runtime, no files, no sockets, no clock.
const PURE: &[&str] = &["policy", "detect", "wire", "mask"];

/// What the pure modules don't name.
const IMPURE: &[&str] = &["tokio", "std::fs", "std::net::Tcp", "std::process", "std::thread", "SystemClock", "nix"];

const LIBRARY: &str = "interceptor/src/";

/// The findings about all sources of the library.
pub(crate) fn check(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    // The first place where a module uses another.
    let mut edges: BTreeMap<(String, String), (&Source, usize)> = BTreeMap::new();
    for source in sources.iter().filter(|source| !source.is_test()) {
        let Some(module) = module(&source.path) else { continue };
        let Some(layer) = layer(module) else {
            findings.push(source.finding(1, format!("`{module}` has no layer: add it to `LAYERS` of xtask's check")));
            continue;
        };
        for (line, used) in uses(source) {
            match self::layer(&used) {
                Some(of_used) if of_used < layer => {
                    findings.push(source.finding(line, format!("`{module}` uses `{used}`, which stands above it")));
                }
                Some(_) if used != module => {
                    edges.entry((module.to_owned(), used)).or_insert((source, line));
                }
                _ => {}
            }
        }
        if PURE.contains(&module) {
            findings.extend(impurities(source));
        }
    }
    for ((from, to), (source, line)) in &edges {
        if from < to && reaches(&edges, to, from) {
            findings.push(source.finding(*line, format!("`{from}` and `{to}` use each other: one must stand below")));
        }
    }
    findings
}

/// The library's module that a file belongs to; none for its root and the binary.
fn module(path: &str) -> Option<&str> {
    let inside = path.strip_prefix(LIBRARY)?;
    let first = inside.split('/').next()?;
    let module = first.strip_suffix(".rs").unwrap_or(first);
    (module != "lib" && module != "main").then_some(module)
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// The library's modules that a source names, with the line.
pub(crate) fn uses(source: &Source) -> Vec<(usize, String)> {
    let depth = source.path.strip_prefix(LIBRARY).map_or(0, |inside| inside.split('/').count());
    let mut prefixes = vec!["crate::".to_owned()];
    // In `a/b.rs` two times `super` is the library's root.
    prefixes.push("super::".repeat(depth));
    let code = source.code.as_str();
    let mut uses = Vec::new();
    for prefix in prefixes {
        for (at, _) in code.match_indices(&prefix) {
            let before = code[..at].chars().next_back();
            // `$crate::…`, `other_crate::…` and longer chains of `super` are something else.
            if before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | ':' | '$')) {
                continue;
            }
            let line = code[..at].matches('\n').count() + 1;
            uses.extend(heads(&code[at + prefix.len()..]).into_iter().map(|head| (line, head)));
        }
    }
    uses
}

/// The first segments of a path: one, or those of a group in braces.
fn heads(rest: &str) -> Vec<String> {
    let word = |text: &str| -> String { text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect() };
    let Some(group) = rest.strip_prefix('{') else {
        return vec![word(rest)];
    };
    let (mut depth, mut heads, mut fresh) = (0, Vec::new(), true);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => fresh = true,
            c if fresh && (c.is_alphanumeric() || c == '_') => {
                heads.push(word(&group[at..]));
                fresh = false;
            }
            _ => {}
        }
    }
    heads
}

fn impurities(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, line) in source.code.lines().enumerate() {
        for name in IMPURE {
            let names = line.match_indices(name).any(|(at, _)| {
                let before = line[..at].chars().next_back();
                let after = line[at + name.len()..].chars().next();
                let whole = name.contains(':') || after.is_none_or(|c| !c.is_alphanumeric() && c != '_');
                whole && before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != ':')
            });
            if names {
                findings.push(source.finding(number + 1, format!("`{name}` in a pure module: hand the value in")));
            }
        }
    }
    findings
}

fn reaches(edges: &BTreeMap<(String, String), (&Source, usize)>, from: &str, to: &str) -> bool {
    let mut seen = BTreeSet::new();
    let mut open = vec![from];
    while let Some(module) = open.pop() {
        if module == to {
            return true;
        }
        if seen.insert(module) {
            open.extend(edges.keys().filter(|(start, _)| start == module).map(|(_, end)| end.as_str()));
        }
    }
    false
}
