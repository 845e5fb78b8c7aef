//! What goes over the control socket: one request, one response, each a frame of JSON (see [`super::wire`]).

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{TargetName, WorkloadName};
use crate::policy::{Explanation, InForce, Width};
use crate::record::approval::Approval;
use crate::record::event::TokenIssued;
use crate::record::search::Search;

mod login;
mod status;
mod told;

pub use login::{Begin, Begun, Step, ToSign};
pub use status::{AdoptedCgroup, Cause, Exported, Launched, Serving, Status};
pub use told::{Told, words};

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Whether the daemon serves, and what stands in the way.
    Status,
    /// The launched workloads.
    Workloads,
    /// What the kernel counted of each workload, beside what the proxy handled.
    Ledger,
    /// Load settings and policies again.
    PolicyReload,
    /// The policies in force.
    PolicyShow,
    /// Why an operation was decided as it was.
    PolicyExplain {
        /// `op_…`
        operation: String,
    },
    /// The latest sessions, newest first.
    SessionsList {
        /// How many at most.
        limit: u32,
    },
    /// One session with its operations.
    SessionsShow {
        /// `ses_…`, or the beginning of one that only one session has.
        id: String,
    },
    /// More operations of a session than fit into one answer: those after one.
    SessionsOperations {
        /// `ses_…`, whole.
        session: String,
        /// The last operation that is known, `op_…`.
        after: String,
    },
    /// The event that an operation's verdict is in, with its place in the chain.
    OperationLink {
        /// `op_…`, whole.
        operation: String,
    },
    /// What an operation sent and got. That it was read is recorded first.
    PayloadRead {
        /// `op_…`, whole.
        operation: String,
    },
    /// Operations that fit, newest first.
    SessionsSearch {
        /// What they have to fit.
        search: Box<Search>,
    },
    /// Delete the payloads of operations before a time.
    SessionsPrune {
        /// The time.
        before: Timestamp,
    },
    /// Destroy the key of a session.
    SessionsErase {
        /// `ses_…`, or the beginning of one that only one session has.
        id: String,
    },
    /// Keep a session from pruning and erasing, or no longer.
    SessionsHold {
        /// `ses_…`, or the beginning of one that only one session has.
        id: String,
        /// Whether it is held from now on.
        held: bool,
    },
    /// Seal the database and begin a new one.
    RecordRotate,
    /// Check the chain and rebuild the projections to compare them.
    SessionsVerify,
    /// What people are asked. Who is neither an operator nor an auditor sees what he is asked.
    ApprovalsList {
        /// The recorded ones as well, for operators and auditors.
        all: bool,
        /// How many at most. Where more are open, each workload's oldest are among them, by turns.
        limit: u32,
    },
    /// One approval.
    ApprovalsShow {
        /// `apr_…`, or the beginning of one that only one approval has.
        id: String,
    },
    /// Answer an approval. Who answers is read from the kernel.
    ApprovalsAnswer {
        /// `apr_…`, or the beginning of it.
        id: String,
        /// Yes or no.
        yes: bool,
        /// How wide the yes is; none: this operation.
        width: Option<Width>,
        /// What is said to it.
        note: Option<String>,
    },
    /// The events of an approval, with the evidence of its answers.
    ApprovalsEvidence {
        /// `apr_…`, or the beginning of it.
        id: String,
    },
    /// Begin to sign in as a person. Whose uid that is, is read from the kernel.
    LoginBegin(Box<Begin>),
    /// Go on with a sign-in of the same uid.
    LoginEnd {
        /// What [`Begun`] calls it.
        login: String,
        /// The query that the browser brought; none with a device code.
        query: Option<String>,
    },
    /// Be signed in no longer.
    Logout,
    /// The grants.
    GrantsList {
        /// Those that have ended as well.
        all: bool,
        /// How many at most.
        limit: u32,
    },
    /// Let something through for a time.
    GrantsIssue(Issue),
    /// End a grant before its time.
    GrantsRevoke {
        /// `grt_…`, or the beginning of it.
        id: String,
    },
    /// Break the glass: for a time a workload may what `break-glass.d` permits.
    BreakGlassStart(BreakGlassStart),
    /// End it before its time.
    BreakGlassStop {
        /// `brk_…`, or the beginning of it.
        id: String,
    },
    /// An auditor has looked at what was done.
    BreakGlassClose {
        /// `brk_…`, or the beginning of it.
        id: String,
        /// What he found.
        note: String,
    },
    /// What lasts, and what no auditor has closed.
    BreakGlassList {
        /// The closed ones as well.
        all: bool,
        /// How many at most.
        limit: u32,
    },
    /// End a live connection.
    SessionsKill {
        /// `ses_…`, or the beginning of one that only one live session has.
        id: String,
    },
    /// Send a test notification.
    NotifyTest {
        /// The channel's name.
        channel: String,
    },
    /// Take down what a command is about to do to a unit of this host without the daemon.
    HostCommand {
        /// The command.
        command: HostCommand,
        /// The unit's name.
        unit: String,
    },
    /// Launch a workload. Three descriptors come along: its standard input, output and error.
    Run(Run),
}

/// A command that works on the host itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostCommand {
    /// Writes the drop-in of a unit.
    Adopt,
    /// Removes it.
    Release,
}

impl HostCommand {
    /// `adopt` or `release`.
    pub fn as_str(self) -> &'static str {
        match self {
            HostCommand::Adopt => "adopt",
            HostCommand::Release => "release",
        }
    }
}

/// A launch. Who asks, the working directory and the limits are read from the kernel, not from here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// The workload; none: the one whose `match` fits.
    pub workload: Option<WorkloadName>,
    /// The user to run as instead of the caller (only where the workload's `user` says the same).
    pub user: Option<String>,
    /// Whether the workload gets a terminal of its own: its size in rows and columns.
    pub tty: Option<(u16, u16)>,
    /// The command and its arguments, as bytes that need not be UTF-8.
    pub argv: Vec<Vec<u8>>,
    /// The environment, `NAME=value`.
    pub env: Vec<Vec<u8>>,
}

/// What an operator lets through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issue {
    /// For this workload.
    pub workload: WorkloadName,
    /// Only where this uid launched it; none: whoever did.
    #[serde(default)]
    pub initiator: Option<u32>,
    /// On this target.
    pub target: TargetName,
    /// This action, or group of actions; none: everything.
    pub action: Option<String>,
    /// Only below this path.
    pub path: Option<String>,
    /// For how long, in seconds.
    pub seconds: u64,
    /// How often; none: without end.
    pub uses: Option<u64>,
    /// How many bytes of answers; none: without end.
    #[serde(default)]
    pub bytes: Option<u64>,
    /// How many rows of answers; none: without end.
    #[serde(default)]
    pub rows: Option<u64>,
}

/// A breaking of the glass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BreakGlassStart {
    /// For this workload.
    pub workload: WorkloadName,
    /// For how long, in seconds.
    pub seconds: u64,
    /// Why.
    pub reason: String,
}

/// What [`Request::ApprovalsShow`] is answered with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownApproval {
    /// What is asked, and the answers so far.
    #[serde(flatten)]
    pub approval: Approval,
    /// How many operations wait for the answer now.
    pub waiting: usize,
    /// The request, decoded, without secrets; none once it is closed.
    pub exhibit: Option<Exhibit>,
    /// What a yes lets through, by how wide it is.
    pub allows: Vec<Allowed>,
    /// What the configuration calls ids that are in here, by id.
    pub names: BTreeMap<String, String>,
}

/// A request, as people are shown it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exhibit {
    /// Its first line.
    pub start: String,
    /// Its header fields.
    pub headers: Vec<(String, String)>,
    /// Its body; what isn't UTF-8 is replaced.
    pub body: String,
    /// The size of the body as it was sent.
    pub bytes: u64,
    /// Why the body isn't all there, if it isn't.
    pub partial: Option<String>,
}

/// What a yes lets through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allowed {
    /// How wide it is.
    pub width: Width,
    /// In plain words.
    pub told: String,
}

/// What the daemon answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Response {
    /// Done; the value's shape is the request's. For `Run` one descriptor comes along: the channel to process 1.
    Done(serde_json::Value),
    /// Not done.
    Refused {
        /// The stable code.
        code: String,
        /// What stood in the way.
        message: String,
        /// What to do next.
        next: String,
    },
}

impl Request {
    /// Its name, as it goes over the wire.
    pub fn name(&self) -> &'static str {
        match self {
            Request::Status => "status",
            Request::Workloads => "workloads",
            Request::Ledger => "ledger",
            Request::PolicyReload => "policy-reload",
            Request::PolicyShow => "policy-show",
            Request::PolicyExplain { .. } => "policy-explain",
            Request::SessionsList { .. } => "sessions-list",
            Request::SessionsShow { .. } => "sessions-show",
            Request::SessionsOperations { .. } => "sessions-operations",
            Request::OperationLink { .. } => "operation-link",
            Request::PayloadRead { .. } => "payload-read",
            Request::SessionsSearch { .. } => "sessions-search",
            Request::SessionsPrune { .. } => "sessions-prune",
            Request::SessionsErase { .. } => "sessions-erase",
            Request::SessionsHold { .. } => "sessions-hold",
            Request::RecordRotate => "record-rotate",
            Request::SessionsVerify => "sessions-verify",
            Request::ApprovalsList { .. } => "approvals-list",
            Request::ApprovalsShow { .. } => "approvals-show",
            Request::ApprovalsAnswer { .. } => "approvals-answer",
            Request::ApprovalsEvidence { .. } => "approvals-evidence",
            Request::LoginBegin(_) => "login-begin",
            Request::LoginEnd { .. } => "login-end",
            Request::Logout => "logout",
            Request::GrantsList { .. } => "grants-list",
            Request::GrantsIssue(_) => "grants-issue",
            Request::GrantsRevoke { .. } => "grants-revoke",
            Request::SessionsKill { .. } => "sessions-kill",
            Request::BreakGlassStart(_) => "break-glass-start",
            Request::BreakGlassStop { .. } => "break-glass-stop",
            Request::BreakGlassClose { .. } => "break-glass-close",
            Request::BreakGlassList { .. } => "break-glass-list",
            Request::NotifyTest { .. } => "notify-test",
            Request::HostCommand { .. } => "host-command",
            Request::Run(_) => "run",
        }
    }

    /// Who may ask for it.
    pub fn right(&self) -> Right {
        match self {
            Request::Status
            | Request::Run(_)
            | Request::SessionsList { .. }
            | Request::SessionsShow { .. }
            | Request::SessionsOperations { .. }
            | Request::SessionsSearch { .. }
            | Request::OperationLink { .. }
            | Request::PayloadRead { .. }
            | Request::ApprovalsList { all: false, .. }
            | Request::ApprovalsShow { .. }
            | Request::ApprovalsAnswer { .. }
            | Request::LoginBegin(_)
            | Request::LoginEnd { .. }
            | Request::Logout => Right::Anyone,
            Request::Workloads
            | Request::Ledger
            | Request::PolicyShow
            | Request::PolicyExplain { .. }
            | Request::SessionsHold { .. }
            | Request::SessionsVerify
            | Request::ApprovalsList { all: true, .. }
            | Request::ApprovalsEvidence { .. }
            | Request::GrantsList { .. }
            | Request::BreakGlassList { .. } => Right::Reader,
            Request::PolicyReload
            | Request::SessionsPrune { .. }
            | Request::SessionsErase { .. }
            | Request::SessionsKill { .. }
            | Request::RecordRotate
            | Request::GrantsIssue(_)
            | Request::GrantsRevoke { .. }
            | Request::BreakGlassStart(_)
            | Request::BreakGlassStop { .. }
            | Request::NotifyTest { .. }
            | Request::HostCommand { .. } => Right::Operator,
            Request::BreakGlassClose { .. } => Right::Auditor,
        }
    }
}

/// Who may ask for something. What anyone may ask for is narrowed where it is answered: a launch by its workload's
/// `match`, a session by who launched its workload, an approval by `[approvers]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// Everybody on the host.
    Anyone,
    /// Operators and auditors.
    Reader,
    /// Root and operators.
    Operator,
    /// Auditors, and no others.
    Auditor,
}

/// What [`Request::PolicyExplain`] is answered with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Explained {
    /// The verdict and what determined it.
    #[serde(flatten)]
    pub explanation: Explanation,
    /// The token that the operation came with, as it was issued; none without one.
    #[serde(default)]
    pub token: Option<TokenIssued>,
    /// What the configuration calls ids that are in here, by id.
    #[serde(default)]
    pub names: BTreeMap<String, String>,
}

/// What [`Request::PolicyReload`] is answered with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// What is in force now.
    #[serde(flatten)]
    pub now: InForce,
    /// What changed in the configuration file but is read at start only: `paths`, `cgroup`, `export`, `record`.
    pub restart_needed_for: Vec<String>,
    /// Why not all is adopted that is to be; it is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_adopted: Option<String>,
    /// What the policies can't do although they say so, a line each: `file:line:column: …`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}
