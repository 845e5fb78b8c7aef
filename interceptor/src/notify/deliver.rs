//! One try at telling somebody, and whether another is worth it.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use http::StatusCode;
use jiff::Timestamp;

use super::notice::Notice;
use crate::config::ConfigError;
use crate::identity::FetchError;

/// How long a try may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// A try under way; it ends with what the receiver said, in one line.
pub(super) type Delivering<'a> = Pin<Box<dyn Future<Output = Result<String, Undelivered>> + Send + 'a>>;

/// How a channel is reached.
pub(super) trait Deliver: Send + Sync {
    /// Tries once.
    fn deliver<'a>(&'a self, notice: &'a Notice, now: Timestamp) -> Delivering<'a>;
}

/// Why somebody wasn't told. Repeats nothing that was sent, and no URL.
#[derive(Debug, thiserror::Error)]
pub enum Undelivered {
    /// No answer, or none in time.
    #[error("{0}")]
    Unreachable(#[from] FetchError),
    /// An answer that isn't success.
    #[error("the receiver answered with {status}")]
    Answered {
        /// Its status.
        status: StatusCode,
        /// How long it wants to be left alone, if it said so.
        after: Option<Duration>,
        /// What else it said, in one line.
        said: String,
    },
    /// A file can't be used.
    #[error("{0}")]
    File(#[from] ConfigError),
    /// A file holds no URL.
    #[error("`{}` holds no https URL", .0.display())]
    Url(PathBuf),
    /// A file holds no secrets.
    #[error("`{}` holds no secret to sign with: `whsec_` and 24 to 64 bytes in base64, a line each", .0.display())]
    Secret(PathBuf),
    /// The command failed.
    #[error("the command `{program}` {problem}")]
    Command {
        /// Its program.
        program: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// Whether it is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// It would come to the same.
    Never,
    /// Yes; not before this time has passed, if the receiver said one.
    After(Option<Duration>),
}

impl Undelivered {
    /// With what the receiver said. Not for the record: it may repeat what it likes.
    pub fn in_full(&self) -> String {
        match self {
            Undelivered::Answered { said, .. } if !said.is_empty() => format!("{self}: {said}"),
            other => other.to_string(),
        }
    }

    pub(super) fn again(&self) -> Again {
        match self {
            Undelivered::Answered { status, after, .. } => {
                let passes = matches!(*status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
                if passes || status.is_server_error() { Again::After(*after) } else { Again::Never }
            }
            // Operators mend files and commands while the daemon runs.
            _ => Again::After(None),
        }
    }
}
