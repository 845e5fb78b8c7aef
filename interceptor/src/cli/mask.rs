//! `interceptor mask`: tries detectors on their own examples, and a mask on a body. Needs no daemon, and no root.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use crate::config::{ConfigError, Rules, Settings, Trust};
use crate::ids::MaskName;
use crate::mask::{BadRule, Key, Masker, Masks, Withheld, examples};

/// What to do with masks.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Run the detectors of a file on the examples that it gives; without a file, the built-in ones.
    Test {
        /// The file of detectors, in TOML
        file: Option<PathBuf>,
    },
    /// Mask what is read from stdin, and print it; what was masked is counted on stderr.
    Try {
        /// The masks of the configuration, separated by commas
        #[arg(long, required = true, value_delimiter = ',')]
        profile: Vec<MaskName>,
        /// The Content-Type that it is read as
        #[arg(long, default_value = "application/json")]
        content_type: String,
    },
}

/// Why a verb failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Config(#[from] ConfigError),
    #[error("{0}")]
    Rule(#[from] BadRule),
    #[error("withheld: {0}; nothing that was printed may be taken for the whole")]
    Withheld(#[from] Withheld),
    #[error("no `[[mask]]` has one of these names; the configuration's masks are {0}")]
    Unknown(String),
    #[error("{0} of {1} examples came out otherwise")]
    Examples(usize, usize),
    #[error("can't read or write: {0}")]
    Io(#[from] io::Error),
}

/// Pseudonyms that are only tried are none that the daemon makes.
const TRIED: Key = [0; 32];

/// Does it; `config` is the configuration file.
pub fn execute(command: &Command, config: &Path) -> ExitCode {
    let done = match command {
        Command::Test { file } => test(file.as_deref()),
        Command::Try { profile, content_type } => attempt(profile, content_type, config),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // A reader that went away (`| head`) is no failure.
        Err(Failure::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(Failure::Config(error @ ConfigError::Invalid(_))) => super::fail_underlined(error),
        Err(failure) => super::fail(failure),
    }
}

fn test(file: Option<&Path>) -> Result<(), Failure> {
    let rules = match file {
        // It decides nothing that is carried out, so anybody's file will do.
        Some(path) => Rules::load(path, Trust::Unchecked)?,
        None => Rules::builtin()?,
    };
    let outcome = examples::run(&rules)?;
    let mut out = io::stdout().lock();
    for failure in &outcome.failures {
        writeln!(out, "{}", failure.to_string().escape_debug())?;
    }
    if !outcome.failures.is_empty() {
        return Err(Failure::Examples(outcome.failures.len(), outcome.examples));
    }
    writeln!(out, "ok: {} rules, {} examples", outcome.rules, outcome.examples)?;
    Ok(out.flush()?)
}

fn attempt(profile: &[MaskName], content_type: &str, config: &Path) -> Result<(), Failure> {
    let settings = Settings::load(config)?;
    let masks = Masks::new(&settings.masks)?;
    let plan = masks.plan(profile).ok_or_else(|| {
        let names: Vec<_> = settings.masks.iter().map(|mask| format!("`{}`", mask.name)).collect();
        Failure::Unknown(if names.is_empty() { "none".into() } else { names.join(", ") })
    })?;
    let mut masker = Masker::new(Arc::new(plan), Some(content_type), TRIED)?;
    let (mut input, mut output) = (io::stdin().lock(), io::stdout().lock());
    let (mut chunk, mut out) = (vec![0; 64 * 1024], Vec::new());
    loop {
        let read = input.read(&mut chunk)?;
        out.clear();
        if read == 0 {
            masker.finish(&mut out)?;
            output.write_all(&out)?;
            output.flush()?;
            break;
        }
        masker.push(&chunk[..read], &mut out)?;
        output.write_all(&out)?;
    }
    let mut errors = io::stderr().lock();
    for (what, count) in masker.counts() {
        writeln!(errors, "{count} {what}")?;
    }
    Ok(())
}
