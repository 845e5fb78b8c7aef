//! Signing in, over the control socket. Codes pass through it to the daemon, tokens never.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Response;
use crate::policy::Width;
use crate::record::approval::Approval;

/// How somebody wants to sign in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Begin {
    /// The port of `localhost` that a browser is sent back to; none: by a device code.
    pub port: Option<u16>,
    /// The answer that the sign-in is for; none: to be signed in for a time.
    pub answer: Option<ToSign>,
}

/// An answer to be signed by signing in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToSign {
    /// `apr_…`, or the beginning of it.
    pub id: String,
    /// The others of a list that is signed as a whole and in this order, as `id`; none: it is for that one alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<String>,
    /// Yes or no.
    pub yes: bool,
    /// How wide the yes is; none: this operation.
    pub width: Option<Width>,
    /// What is said to it.
    pub note: Option<String>,
}

/// A sign-in that has begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// What it is called from now on.
    pub login: String,
    /// What the person opens.
    pub url: String,
    /// The `state` that the browser will bring back; none with a device code.
    pub state: Option<String>,
    /// What the person enters there, with a device code.
    pub user_code: Option<String>,
    /// How many seconds to wait before it is gone on with, with a device code.
    pub wait: u64,
    /// How many seconds it may take.
    pub within: u64,
}

/// How far a sign-in is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Nobody has entered the code yet: go on after so many seconds.
    Wait(u64),
    /// Signed in.
    SignedIn {
        /// Who.
        person: String,
        /// The groups of approvers that they are in.
        groups: Vec<String>,
        /// Until when.
        until: Timestamp,
    },
    /// The answer that it was for was given.
    Answered(Box<Approval>),
    /// What came of each answer of a list, in its order: an [`Approval`], or why it doesn't count.
    AnsweredAll(Vec<Response>),
}
