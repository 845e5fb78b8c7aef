//! `interceptor mask`, as people type it: what it prints, on which stream, and how it exits.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use interceptor_tests::binary;
use tempfile::TempDir;

const RULES: &str = r#"[[rule]]
id = "employee"
regex = 'E-(?P<value>\d{6})'
match = ["employee E-123456"]
no_match = ["E-12"]
"#;

const MASKS: &str = r#"[[mask]]
name = "pii"
json = ["$..mail"]

[[mask]]
name = "found"
detect = ["employee", "phone"]
strategy = "partial"
"#;

/// A configuration and a file of detectors, which nobody needs to be root for.
struct Files(TempDir);

impl Files {
    fn new(rules: &str) -> Result<Self> {
        let files = Self(tempfile::tempdir()?);
        fs::write(files.rules(), rules)?;
        // The last mask finds what the file says.
        fs::write(files.config(), format!("{MASKS}rules = {:?}\n", files.rules()))?;
        Ok(files)
    }

    fn rules(&self) -> PathBuf {
        self.0.path().join("rules.toml")
    }

    fn config(&self) -> PathBuf {
        self.0.path().join("config.toml")
    }

    /// `interceptor mask try` with these arguments, given `input`.
    fn attempt(&self, arguments: &[&str], input: &str) -> Result<Said> {
        let config = text(&self.config())?;
        let mut all = vec!["mask", "try", "--config", config.as_str()];
        all.extend(arguments);
        said(&all, input)
    }

    /// `interceptor mask test` of the file.
    fn test(&self) -> Result<Said> {
        said(&["mask", "test", text(&self.rules())?.as_str()], "")
    }
}

/// What came of a command.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

fn text(path: &Path) -> Result<String> {
    path.to_str().map(str::to_owned).context("the path is text")
}

fn said(arguments: &[&str], input: &str) -> Result<Said> {
    let mut child = Command::new(binary::find("interceptor")?)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    // What fails before it reads leaves nobody to write to; so those get nothing.
    child.stdin.take().context("it has a stdin")?.write_all(input.as_bytes())?;
    let Output { status, stdout, stderr } = child.wait_with_output()?;
    Ok(Said { code: status.code(), out: String::from_utf8(stdout)?, err: String::from_utf8(stderr)? })
}

#[test]
fn the_built_in_detectors_hold_their_examples() -> Result<()> {
    let Said { code, out, err } = said(&["mask", "test"], "")?;
    ensure!(code == Some(0) && err.is_empty(), "{code:?}: {err}");
    ensure!(out.starts_with("ok: ") && out.ends_with(" examples\n"), "{out}");
    Ok(())
}

#[test]
fn a_file_of_detectors_is_run_on_its_own_examples() -> Result<()> {
    let good = Files::new(RULES)?.test()?;
    assert_eq!(good, Said { code: Some(0), out: "ok: 1 rules, 2 examples\n".into(), err: String::new() });
    let wrong = RULES.replace("[\"E-12\"]", "[\"order E-765432\"]").replace("employee E-123456", "employee 123456");
    let Said { code, out, err } = Files::new(&wrong)?.test()?;
    ensure!(code == Some(1), "{code:?}: {out}{err}");
    assert_eq!(
        out,
        "`employee` finds nothing in `employee 123456`\n\
         `employee` finds `765432` in `order E-765432`, where it should find nothing\n"
    );
    ensure!(err.contains("2 of 2 examples came out otherwise"), "{err}");
    Ok(())
}

#[test]
fn a_file_that_is_no_file_of_detectors_is_refused() -> Result<()> {
    let Said { code, out, err } = Files::new(&RULES.replace("id =", "name ="))?.test()?;
    ensure!(code == Some(1) && out.is_empty() && err.contains("rules.toml"), "{code:?}: {out}{err}");
    let Said { code, out, err } = said(&["mask", "test", "/nonexistent/rules.toml"], "")?;
    ensure!(code == Some(1) && out.is_empty() && err.contains("/nonexistent/rules.toml"), "{code:?}: {out}{err}");
    Ok(())
}

#[test]
fn a_mask_is_tried_on_what_comes_in() -> Result<()> {
    let files = Files::new(RULES)?;
    let body = "{\"mail\":\"ada\",\"x\":\"E-123456\",\"tel\":\"+14155552671\"}\n";
    let by_path = "{\"mail\":\"[redacted]\",\"x\":\"E-123456\",\"tel\":\"+14155552671\"}\n";
    let expected = Said { code: Some(0), out: by_path.into(), err: "1 $..mail\n".into() };
    assert_eq!(files.attempt(&["--profile", "pii"], body)?, expected);
    let Said { code, out, err } = files.attempt(&["--profile", "pii,found"], body)?;
    ensure!(code == Some(0), "{code:?}: {err}");
    assert_eq!(out, "{\"mail\":\"[redacted]\",\"x\":\"E-***\",\"tel\":\"+*******2671\"}\n");
    for count in ["1 $..mail\n", "1 employee\n", "1 phone\n"] {
        ensure!(err.contains(count), "{err}");
    }
    let events = "data: {\"mail\":\"ada\"}\n\n";
    let Said { code, out, err } =
        files.attempt(&["--profile", "pii", "--content-type", "text/event-stream"], events)?;
    ensure!(code == Some(0), "{code:?}: {err}");
    assert_eq!(out, "data: {\"mail\":\"[redacted]\"}\n\n");
    Ok(())
}

#[test]
fn what_cant_be_masked_is_said_and_fails() -> Result<()> {
    let files = Files::new(RULES)?;
    let Said { code, err, .. } = files.attempt(&["--profile", "pii"], "{\"mail\":\"ada\"")?;
    ensure!(code == Some(1), "{code:?}: {err}");
    ensure!(err.contains("withheld: ") && err.contains("may be taken for the whole"), "{err}");
    for kind in ["text/plain", "image/png"] {
        let Said { code, out, err } = files.attempt(&["--profile", "pii", "--content-type", kind], "")?;
        ensure!(code == Some(1) && out.is_empty() && err.contains("withheld: "), "{kind}: {code:?}: {out}{err}");
    }
    let Said { code, out, err } = files.attempt(&["--profile", "pi"], "")?;
    ensure!(code == Some(1) && out.is_empty() && err.contains("`pii`, `found`"), "{code:?}: {out}{err}");
    Ok(())
}

#[test]
fn a_profile_has_to_be_named() -> Result<()> {
    let files = Files::new(RULES)?;
    for arguments in [&[][..], &["--profile", "No Name"][..]] {
        let Said { code, out, err } = files.attempt(arguments, "")?;
        ensure!(code == Some(2) && out.is_empty() && err.contains("--profile"), "{code:?}: {out}{err}");
    }
    Ok(())
}

#[test]
fn a_rule_with_the_name_of_a_built_in_one_is_refused() -> Result<()> {
    let both = format!("{RULES}\n{}", RULES.replace("\"employee\"", "\"email\""));
    let Said { code, out, err } = Files::new(&both)?.attempt(&["--profile", "pii"], "")?;
    ensure!(code == Some(1) && out.is_empty() && err.contains("`email`"), "{code:?}: {out}{err}");
    Ok(())
}
