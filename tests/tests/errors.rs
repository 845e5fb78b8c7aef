//! Each stable code of the product is documented.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// Where faults, refusals and the reasons of endings are made.
const SOURCES: [&str; 10] = [
    "pipeline",
    "enforce.rs",
    "transport/dial/fault.rs",
    "policy/decide.rs",
    "daemon.rs",
    "daemon/host.rs",
    "daemon/login.rs",
    "control/server.rs",
    "launch.rs",
    "record/query.rs",
];

/// Words with a hyphen in those files that are no codes.
const OTHERS: [&str; 14] = [
    "headers-only",
    "no-store",
    "reload-refused",
    "record-lagging",
    "record-damaged",
    "checkpoint-late",
    "interceptor-justification",
    "request-id",
    "x-ms-request-id",
    "x-request-id",
    "x-amzn-requestid",
    "restrict-access-to-tenants",
    "restrict-access-context",
    "sec-restrict-tenant-access-policy",
];

fn sources() -> Result<Vec<PathBuf>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../interceptor/src");
    let mut files = Vec::new();
    for source in SOURCES {
        let path = root.join(source);
        if path.is_dir() {
            for entry in std::fs::read_dir(&path)? {
                files.push(entry?.path());
            }
        } else {
            files.push(path);
        }
    }
    files.retain(|path| path.is_file());
    Ok(files)
}

/// The string literals that look like a code: lower-case words with hyphens between.
fn codes(text: &str) -> Vec<&str> {
    let is_code = |word: &&str| {
        let parts: Vec<&str> = word.split('-').collect();
        parts.len() > 1 && parts.iter().all(|part| !part.is_empty() && part.bytes().all(|c| c.is_ascii_lowercase()))
    };
    // A comment may hold a lone quote: each line is read by itself.
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.flat_map(|line| line.split('"').skip(1).step_by(2)).filter(is_code).collect()
}

#[test]
fn every_code_is_documented() -> Result<()> {
    let documented = concat!(
        include_str!("../../docs/errors.md"),
        include_str!("../../docs/identity.md"),
        include_str!("../../docs/approvals.md"),
    );
    let mut count = 0;
    for path in sources()? {
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        for code in codes(&text).into_iter().filter(|code| !OTHERS.contains(code)) {
            ensure!(
                documented.contains(&format!("`{code}`")),
                "`{code}` of {} is in none of docs/errors.md, docs/identity.md, docs/approvals.md",
                path.display()
            );
            count += 1;
        }
    }
    ensure!(count > 50, "only {count} codes were found: does this test still look in the right places?");
    Ok(())
}

#[test]
fn a_code_is_told_from_other_text() {
    let text = "code: \"client-gone\", told: \"the client - gone\"\n// don't \"count-this\"\nother(\"a\", \"upper-Case\", \"two-words\")";
    assert_eq!(codes(text), ["client-gone", "two-words"]);
}
