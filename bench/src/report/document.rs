//! Writes docs/performance.md from a mark on, and the drawings beside it. Each section stays as it is until a run has
//! something for it: the cells, the stages and the curves needn't be of one run.

use std::fmt::Write;
use std::fs;

use anyhow::{Context, Result};

use super::{Run, Section, Table, about, root, rows, say, sections};

/// What follows in docs/performance.md is written by the run.
const RESULTS: &str = "<!-- From here on `cargo xtask bench --docs` writes. -->";
/// The sections that there can be, in their order.
const NAMES: [&str; 4] = ["cells", "parts", "stages", "growth"];

/// Writes the drawings, and the results into docs/performance.md.
pub(crate) fn document(run: &Run) -> Result<()> {
    let folder = root().join("docs");
    let sections = sections(run);
    for drawing in sections.iter().filter_map(|section| section.drawing.as_ref()) {
        fs::write(folder.join(drawing.file), &drawing.svg)?;
    }
    let path = folder.join("performance.md");
    let text = fs::read_to_string(&path).with_context(|| format!("can't read `{}`", path.display()))?;
    let new: Vec<_> = sections.iter().map(|section| (section.name, written(run, section))).collect();
    let text = merged(&text, &new).with_context(|| format!("`{}` has no `{RESULTS}`", path.display()))?;
    fs::write(&path, text)?;
    say("docs", &path.display().to_string());
    Ok(())
}

fn mark(name: &str) -> String {
    format!("<!-- {name} -->")
}

/// The text with these sections in place of those that it has under their names.
pub(super) fn merged(text: &str, new: &[(&str, String)]) -> Option<String> {
    let (before, after) = text.split_once(RESULTS)?;
    let mut merged = format!("{before}{RESULTS}\n");
    for name in NAMES {
        let old = || {
            let (_, rest) = after.split_once(&mark(name))?;
            let ends = NAMES.iter().filter_map(|other| rest.find(&mark(other)));
            Some(rest[..ends.min().unwrap_or(rest.len())].to_owned())
        };
        let found = new.iter().find(|(other, _)| *other == name).map(|(_, text)| text.clone());
        if let Some(section) = found.or_else(old) {
            // Writing to a string can't fail.
            let _ = write!(merged, "\n{}\n\n{}\n", mark(name), section.trim());
        }
    }
    Some(merged)
}

fn written(run: &Run, section: &Section) -> String {
    let mut text = format!("## {}\n\n{}\n\n{}\n", section.heading, about(run), rows(run));
    if !section.notes.is_empty() {
        let _ = write!(text, "\n- {}\n", section.notes.join("\n- "));
    }
    if let Some(drawing) = &section.drawing {
        let _ = write!(text, "\n![{}]({})\n", drawing.about, drawing.file);
    }
    for Table { title, head, lines } in &section.tables {
        let _ = writeln!(text, "\n### {title}\n\n| {} |", head.join(" | "));
        let _ = writeln!(text, "|---|{}", "--:|".repeat(head.len() - 1));
        for line in lines {
            let _ = writeln!(text, "| {} |", line.join(" | "));
        }
    }
    text
}
