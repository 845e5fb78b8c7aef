//! THREATS.md names the test that holds each claim; here it is seen to that the test exists.

use super::Finding;
use super::source::{Source, words};

/// The document, below the workspace's root.
pub(crate) const THREATS: &str = "THREATS.md";

/// The names in `document` that no test file bears.
pub(crate) fn missing(document: &str, sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in document.lines().enumerate() {
        for name in line.split('`').skip(1).step_by(2).filter(|name| is_test_name(name)) {
            if !sources.iter().any(|source| holds(source, name)) {
                let message = format!("no test is called `{name}`: correct the name, or write the test");
                findings.push(Finding { path: THREATS.into(), line: index + 1, message });
            }
        }
    }
    findings
}

/// `topic::test` or `module::path::tests::test`; policy's own names (`Identity::"none"`) aren't.
fn is_test_name(name: &str) -> bool {
    name.contains("::")
        && !name.ends_with(':')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == ':')
}

/// Whether a test file of the name's topic or module has the test's name as a word; macros make some of the functions.
fn holds(source: &Source, name: &str) -> bool {
    let mut path: Vec<&str> = name.split("::").collect();
    let Some(test) = path.pop() else { return false };
    let place = path.join("/");
    let topic = format!("tests/tests/{place}.rs");
    let module = format!("interceptor/src/{place}");
    let fits = source.path == topic || source.path.starts_with(&module) && source.is_test();
    fits && source.code.lines().any(|line| words(line).any(|word| word == test))
}
