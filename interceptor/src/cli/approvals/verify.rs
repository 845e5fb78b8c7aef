//! `interceptor approvals verify`: whether the evidence of the answers holds, without trusting the daemon.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::approve::evidence::{self, Finding, Verdict};
use crate::cli::terminal::escape;
use crate::control::client::{self, ClientError};
use crate::control::protocol::Request;
use crate::identity::keys::{KeyError, KeySet};
use crate::record::approval::Recorded;
use crate::record::{QueryError, Reader};

/// What to check, and against what.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The approval's id, or the beginning of it
    #[arg(value_name = "ID")]
    id: String,
    /// Read this database without the daemon, as in /var/lib/interceptor/record.db
    #[arg(long, value_name = "PATH")]
    db: Option<PathBuf>,
    /// Take only keys of this set (JWKS), as in one that was fetched from the issuer and kept
    #[arg(long, value_name = "FILE")]
    keys: Option<PathBuf>,
    /// Print a JSON array
    #[arg(long)]
    json: bool,
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Query(#[from] QueryError),
    #[error(transparent)]
    Unreadable(#[from] evidence::Unreadable),
    #[error(transparent)]
    Keys(#[from] KeyError),
    #[error("can't read `{}`: {error}; name a file with a key set", path.display())]
    File { path: PathBuf, error: std::io::Error },
}

/// Checks; exits 0 where somebody answered and each answer is signed, else 1.
pub(super) fn execute(args: &Args, socket: &Path) -> ExitCode {
    let found = match findings(args, socket) {
        Ok(found) => found,
        Err(error) => return crate::cli::fail(escape(&error.to_string())),
    };
    let text = match args.json {
        true => format!("{:#}\n", serde_json::json!(found)),
        false => told(&found),
    };
    let printed = crate::cli::print(text);
    let all = !found.is_empty() && found.iter().all(|one| one.verdict == Verdict::Signed);
    if all { printed } else { ExitCode::FAILURE }
}

fn findings(args: &Args, socket: &Path) -> Result<Vec<Finding>, Failure> {
    let recorded: Recorded = match &args.db {
        Some(path) => Reader::open(path)?.recorded(&args.id)?,
        None => client::decoded(client::call(socket, &Request::ApprovalsEvidence { id: args.id.clone() })?)?,
    };
    let known = args.keys.as_ref().map(|path| {
        let text = std::fs::read(path).map_err(|error| Failure::File { path: path.clone(), error })?;
        Ok::<_, Failure>(KeySet::parse(&text, &path.display().to_string())?)
    });
    Ok(evidence::check(&recorded, known.transpose()?.as_ref())?)
}

fn told(found: &[Finding]) -> String {
    if found.is_empty() {
        return "nobody has answered\n".into();
    }
    let mut text = String::new();
    for one in found {
        let yes = if one.yes { "yes" } else { "no" };
        let width = one.width.map_or_else(String::new, |width| format!(" to this {width}"));
        let person = one.person.as_ref().map_or_else(String::new, |person| format!(" ({person})"));
        let _ = writeln!(text, "{yes}{width} by uid {}{} at {:.0}", one.uid, escape(&person), one.at);
        let verdict = match one.verdict {
            Verdict::Signed => "signed: the ID token was issued for this very answer".to_owned(),
            Verdict::SignedIn => "not signed: the ID token says who it was, and nothing of the answer".to_owned(),
            Verdict::None => "no evidence: known by the uid alone".to_owned(),
            Verdict::Broken => format!("DOESN'T HOLD: {}", one.flaw.as_deref().unwrap_or_default()),
        };
        let _ = writeln!(text, "  {}", escape(&verdict));
        if let (Some(issuer), Some(audience), Some(kid)) = (&one.issuer, &one.audience, &one.kid) {
            let by = format!("issued by {issuer} for application {audience}, signed with its key {kid}");
            let _ = writeln!(text, "  {}", escape(&by));
        }
    }
    text
}
