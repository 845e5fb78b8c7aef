//! Whom it is told when people are asked, and what came of it (`[[notify]]`), as it is configured. What is told, and how
//! it gets there, is `notify`'s.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::ids::ChannelName;

/// A `[[notify]]`: a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotifySettings {
    /// Its name.
    pub name: ChannelName,
    /// How it is reached.
    pub way: NotifyWay,
    /// What it is told of; never empty.
    pub on: Vec<Occasion>,
    /// The groups of approvers that it is for; none: whatever is asked of whom.
    pub groups: Option<Vec<String>>,
}

/// How a channel is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotifyWay {
    /// By a post.
    Post {
        /// What is posted.
        form: Form,
        /// Where to.
        place: Place,
        /// The file with the secret that it is signed with.
        secret: Option<PathBuf>,
        /// A PEM file with the roots that the receiver is verified against; none: those of upstreams.
        ca: Option<PathBuf>,
    },
    /// By a program that is run.
    Command {
        /// The program by its absolute path, and its arguments.
        words: Vec<String>,
        /// The user that it runs as; never 0.
        uid: u32,
        /// His group; never 0.
        gid: u32,
    },
}

/// What is posted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Our own JSON.
    Webhook,
    /// A message with blocks, for an incoming webhook of Slack.
    Slack,
    /// An Adaptive Card, for a webhook of a Teams workflow.
    Teams,
}

/// Where a post goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// This https URL.
    Url(String),
    /// The https URL that is in this file.
    File(PathBuf),
}

impl NotifyWay {
    /// `webhook`, `slack`, `teams` or `command`.
    pub fn kind(&self) -> &'static str {
        match self {
            NotifyWay::Post { form: Form::Webhook, .. } => "webhook",
            NotifyWay::Post { form: Form::Slack, .. } => "slack",
            NotifyWay::Post { form: Form::Teams, .. } => "teams",
            NotifyWay::Command { .. } => "command",
        }
    }
}

macro_rules! occasions {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// What a channel can be told of.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Occasion {
            $($(#[$doc])* $variant,)*
        }

        impl Occasion {
            /// All of them.
            pub const ALL: &[Occasion] = &[$(Occasion::$variant,)*];

            /// Its name, as a configuration and a notification have it.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Occasion::$variant => $name,)*
                }
            }
        }
    };
}

occasions! {
    /// An operation is held, and people are asked.
    ApprovalRequested = "approval-requested",
    /// Somebody answered.
    ApprovalAnswered = "approval-answered",
    /// It isn't asked about any more.
    ApprovalClosed = "approval-closed",
    /// A grant lets something through from now on.
    GrantIssued = "grant-issued",
    /// It lets nothing through any more.
    GrantEnded = "grant-ended",
    /// The glass is broken for a workload.
    BreakGlassStarted = "break-glass-started",
    /// It isn't any more.
    BreakGlassEnded = "break-glass-ended",
    /// An auditor has looked at what was done.
    BreakGlassClosed = "break-glass-closed",
}

impl Occasion {
    /// Whether it is of a broken glass: of that every channel is told.
    pub fn is_emergency(self) -> bool {
        matches!(self, Occasion::BreakGlassStarted | Occasion::BreakGlassEnded | Occasion::BreakGlassClosed)
    }
}

impl fmt::Display for Occasion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Occasion {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.iter().copied().find(|one| one.as_str() == text).ok_or(())
    }
}
