//! `cargo xtask fuzz`: runs the targets of `fuzz/`, which stands outside the workspace because it needs a nightly compiler.
//! Those of the masks start from the golden set; what they find on their way is kept in `fuzz/corpus`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::{ask, root, run, say, target};

const TARGETS: &str = "fuzz/fuzz_targets";
const GOLDEN: &str = "interceptor/src/mask/golden";

/// The longest input, in bytes: some windows of the masks.
const LONGEST: u32 = 300_000;

/// How many masks `fuzz/src/lib.rs` has to choose from.
const MASKS: u8 = 5;

/// The first byte of a seed: it is also masked in pieces of seven bytes.
const CUT: u8 = 6;

/// Runs the targets, each for so many seconds; all of them if none is named.
pub(crate) fn fuzz(wanted: &[String], seconds: u32) -> Result<()> {
    let known = targets()?;
    let chosen = choose(&known, wanted)?;
    tools()?;
    for name in chosen {
        let (corpus, seeds) = (root().join("fuzz/corpus").join(name), target().join("fuzz-seeds").join(name));
        fs::create_dir_all(&corpus).with_context(|| format!("can't make `{}`", corpus.display()))?;
        let count = sow(name, &seeds).with_context(|| format!("can't write `{}`", seeds.display()))?;
        say(name, &format!("{seconds} s, {count} seeds"));
        let mut command = Command::new("cargo");
        command.current_dir(root()).args(["+nightly", "fuzz", "run", name.as_str()]).arg(corpus).arg(seeds);
        command.arg("--").arg(format!("-max_len={LONGEST}")).arg(format!("-max_total_time={seconds}"));
        // The kernel half isn't fuzzed, and needs a linker of its own.
        run(command.env("AYA_BUILD_SKIP", "1"))?;
    }
    Ok(())
}

/// The targets that there are, sorted.
fn targets() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for path in files(&root().join(TARGETS))? {
        names.extend(path.file_stem().and_then(|name| name.to_str()).map(str::to_owned));
    }
    Ok(names)
}

fn choose<'a>(known: &'a [String], wanted: &'a [String]) -> Result<&'a [String]> {
    if let Some(name) = wanted.iter().find(|name| !known.contains(name)) {
        bail!("there is no target `{name}`: the targets are {}", known.join(", "));
    }
    Ok(if wanted.is_empty() { known } else { wanted })
}

/// What fuzzing needs besides the workspace.
fn tools() -> Result<()> {
    if ask("cargo", &["+nightly", "--version"]).is_none() {
        bail!("fuzzing needs a nightly compiler: run `rustup toolchain install nightly`");
    }
    if ask("cargo", &["+nightly", "fuzz", "--version"]).is_none() {
        bail!("fuzzing needs cargo-fuzz: run `cargo install cargo-fuzz --locked`");
    }
    Ok(())
}

/// Writes the seeds of a target anew, from the golden set under each mask; says how many there are.
fn sow(name: &str, folder: &Path) -> Result<usize> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    let mut count = 0;
    for document in golden()? {
        let Some((_, kind)) = place(&document).filter(|(of, _)| *of == name) else { continue };
        let body = fs::read(&document)?;
        for mask in 0..MASKS {
            let seed: Vec<u8> = [CUT, mask].into_iter().chain(kind).chain(body.iter().copied()).collect();
            fs::write(folder.join(count.to_string()), seed)?;
            count += 1;
        }
    }
    Ok(count)
}

/// The files of the golden set: documents, and what becomes of them.
fn golden() -> Result<Vec<PathBuf>> {
    let mut documents = Vec::new();
    for profile in files(&root().join(GOLDEN))? {
        documents.extend(files(&profile)?);
    }
    Ok(documents)
}

/// The target that a document is a seed of, and the byte for its type where the target has several. None for what a
/// document becomes, and for what no target reads.
fn place(document: &Path) -> Option<(&'static str, Option<u8>)> {
    Some(match document.extension()?.to_str()? {
        "json" | "jsonl" => ("mask_json", None),
        "sse" => ("mask_events", None),
        "txt" | "yaml" | "js" => ("mask_text", Some(0)),
        "html" | "xml" => ("mask_text", Some(1)),
        "csv" => ("mask_text", Some(2)),
        "tsv" => ("mask_text", Some(3)),
        "form" => ("mask_text", Some(4)),
        _ => return None,
    })
}

/// What is in a folder, sorted.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("can't read `{}`", folder.display()))? {
        paths.push(entry?.path());
    }
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests;
