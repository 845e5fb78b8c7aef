//! The events. An event's JSON, as it was first written, is what the chain hashes; fields may be added, never changed.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize, Serializer};

use crate::config::Host;
use crate::identity::provenance::{Death, Digest};
use crate::ids::{
    ApprovalId, BreakGlassId, ChannelName, ClientId, GrantId, LaunchId, MessageId, OperationId, PrincipalId, SessionId,
    TargetName, WorkloadName,
};
use crate::policy::{Basis, BreakGlass, Credential, Grant};
use crate::who::Process;

mod adoption;
mod approval;
mod intent;
mod ledger;
mod payload;
mod read;
mod rotation;
mod token;

pub use adoption::{Adoption, Change};
pub use approval::{ApprovalAnswer, ApprovalRequest, Evidence, Spent, Way, as_whom};
pub use intent::{Decided, Intent, Named};
pub use ledger::{Counts, Handled, Ledger};
pub use payload::{Kept, Payload};
pub(super) use read::{Stamp, read};
pub use rotation::{Begun, Hashed};
pub use token::{Identity, TokenIssued};

/// One thing that happened, with its time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When.
    pub at: Timestamp,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event")]
pub enum What {
    /// The daemon began to serve.
    #[serde(rename = "daemon.started")]
    DaemonStarted {
        /// The product's version.
        version: String,
        /// Its process id.
        pid: u32,
    },
    /// The daemon stopped of its own accord.
    #[serde(rename = "daemon.stopped")]
    DaemonStopped {
        /// Why.
        reason: String,
    },
    /// Settings and policies were loaded.
    #[serde(rename = "snapshot.loaded")]
    SnapshotLoaded {
        /// Its generation.
        generation: u64,
        /// BLAKE3 of the sources, in hex.
        digest: String,
        /// Each policy file, name and text.
        sources: Vec<(String, String)>,
        /// Who asked for it: a uid, or none at start and by signal.
        by: Option<u32>,
    },
    /// Settings or policies were refused; the last good ones stay.
    #[serde(rename = "snapshot.rejected")]
    SnapshotRejected {
        /// The first line of the error.
        error: String,
        /// Who asked for it.
        by: Option<u32>,
    },
    /// A workload was launched.
    #[serde(rename = "workload.started")]
    WorkloadStarted {
        /// The launch.
        launch: LaunchId,
        /// The workload's name.
        workload: WorkloadName,
        /// The uid of the person who launched it.
        initiator: u32,
        /// As whom that person logged in, where the kernel knows it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        loginuid: Option<u32>,
        /// The uid it runs as.
        uid: u32,
        /// Its process 1.
        pid: u32,
        /// The command's file, without arguments (they may hold secrets).
        command: String,
        /// The containment level, and the holes that lower it.
        containment: String,
    },
    /// A launched workload ended.
    #[serde(rename = "workload.ended")]
    WorkloadEnded {
        /// The launch.
        launch: LaunchId,
        /// How: `exit 0`, `signal 15`, `unknown`, `released`.
        status: String,
    },
    /// See [`Adoption`].
    #[serde(rename = "adoption")]
    Adoption(Adoption),
    /// See [`Ledger`].
    #[serde(rename = "ledger")]
    Ledger(Ledger),
    /// A connection was accepted.
    #[serde(rename = "session.opened")]
    SessionOpened {
        /// The session.
        session: SessionId,
        /// The launch.
        launch: LaunchId,
        /// The workload's name.
        workload: WorkloadName,
        /// The process, if known. What isn't UTF-8 in the path of its executable is replaced.
        #[serde(serialize_with = "readable")]
        process: Option<Process>,
        /// Where it connected to.
        original: SocketAddr,
        /// The looked-up name or the address behind that, if it is one.
        host: Option<Host>,
        /// The target, if there is one.
        target: Option<TargetName>,
    },
    /// An operation was decided. Durable before anything of it goes on.
    #[serde(rename = "operation.decided")]
    OperationDecided {
        /// The operation.
        operation: OperationId,
        /// Its session; none for a DNS look-up over UDP.
        session: Option<SessionId>,
        /// The launch.
        launch: LaunchId,
        /// The workload's name.
        workload: WorkloadName,
        /// The target, if there is one.
        target: Option<TargetName>,
        /// The action: `connect`, `http:GET`, `dns:resolve`.
        action: String,
        /// What was asked for, in one line, without secrets: `GET /v1.0/users`.
        summary: String,
        /// Whether it went on.
        verdict: Verdict,
        /// The stable code of a denial.
        code: Option<String>,
        /// What determined it.
        basis: Box<Basis>,
        /// The uid of who launched the workload, or of who calls it; none in records of versions that didn't say it here.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        initiator: Option<u32>,
        /// What it authenticates with; none for what carries no credential by its nature.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        credential: Option<Credential>,
        /// Whom its token names; none without a token that is accepted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        identity: Option<Box<Identity>>,
        /// What people are asked about it, or were.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        approval: Option<ApprovalId>,
    },
    /// A token was issued to a workload. In the record before the workload gets it.
    #[serde(rename = "token.issued")]
    TokenIssued(Box<TokenIssued>),
    /// A token is accepted no longer, before its time.
    #[serde(rename = "token.ended")]
    TokenEnded {
        /// The token's digest.
        token: Digest,
        /// Why.
        reason: Death,
    },
    /// An operation ended.
    #[serde(rename = "operation.finished")]
    OperationFinished {
        /// The operation.
        operation: OperationId,
        /// How it ended: `done`, `denied`, or the code of a fault.
        outcome: String,
        /// What policies cut it by, where it was decided again and it wasn't permitted any more.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        policies: Vec<String>,
        /// The HTTP status that the process got.
        status: Option<u16>,
        /// What was sent upstream.
        request: Payload,
        /// What the process got.
        response: Payload,
        /// What was masked in it: the path or the detector's id, and how many values.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        masked: BTreeMap<String, u64>,
        /// What it took of a grant of bytes or rows.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        spent: Option<Spent>,
        /// What the service calls the request: its `request-id`, or the like.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        service_request: Option<String>,
        /// What was kept of what it sent and got.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        kept: Option<Kept>,
    },
    /// What an operation sent and got was kept, sealed. Now the operation's end says that.
    #[serde(rename = "payload.recorded")]
    PayloadRecorded {
        /// The operation.
        operation: OperationId,
        /// Its session, whose key seals it.
        session: SessionId,
        /// BLAKE3 of the sealed bytes, in hex.
        digest: String,
        /// How many they are.
        bytes: u64,
    },
    /// Somebody read what an operation sent and got.
    #[serde(rename = "payload.read")]
    PayloadRead {
        /// The operation.
        operation: OperationId,
        /// The reader's uid.
        uid: u32,
        /// The reader's pid.
        pid: u32,
    },
    /// Payloads of operations before a time are to be deleted. In the record before it is done.
    #[serde(rename = "record.pruned")]
    RecordPruned {
        /// The time; what sessions under a hold sent and got stays.
        before: Timestamp,
        /// Only those of these workloads; none: of all.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        workloads: Vec<WorkloadName>,
        /// Of all workloads but these.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        others: bool,
        /// The uid of who asked for it; none for `record.keep_payloads`.
        uid: Option<u32>,
        /// His pid.
        pid: Option<u32>,
    },
    /// The key of a session is to be destroyed, and with it what it sent and got. In the record before it is done.
    #[serde(rename = "session.erased")]
    SessionErased {
        /// The session.
        session: SessionId,
        /// The uid of who asked for it.
        uid: u32,
        /// His pid.
        pid: u32,
    },
    /// A session was put under a hold, which keeps it from pruning and erasing, or the hold was lifted.
    #[serde(rename = "session.held")]
    SessionHeld {
        /// The session.
        session: SessionId,
        /// Whether it is held from now on.
        held: bool,
        /// The uid of who asked for it.
        uid: u32,
        /// His pid.
        pid: u32,
    },
    /// A connection ended.
    #[serde(rename = "session.closed")]
    SessionClosed {
        /// The session.
        session: SessionId,
        /// Why: `done`, `client-gone`, `max-session`, `policy-changed`, or the code of a fault.
        reason: String,
        /// What policies cut it by, where it was decided again and it wasn't permitted any more.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        policies: Vec<String>,
    },
    /// A control request was refused, changed something, or shows what not everybody is to see.
    #[serde(rename = "control.request")]
    ControlRequest {
        /// The caller's uid.
        uid: u32,
        /// The caller's pid.
        pid: u32,
        /// What was asked for, and behind a space what it is about: `sessions-kill ses_…`.
        request: String,
        /// Why it was refused; none if it was done.
        refused: Option<String>,
    },
    /// An operation is held, and people are asked.
    #[serde(rename = "approval.requested")]
    ApprovalRequested(Box<ApprovalRequest>),
    /// Somebody reads the request that people are asked about. In the record before he does.
    #[serde(rename = "approval.read")]
    ApprovalRead {
        /// What is asked.
        approval: ApprovalId,
        /// The reader's uid.
        uid: u32,
        /// The reader's pid.
        pid: u32,
    },
    /// Somebody answered.
    #[serde(rename = "approval.answered")]
    ApprovalAnswered(Box<ApprovalAnswer>),
    /// Somebody signed in. In the record before it counts.
    #[serde(rename = "login.succeeded")]
    LoginSucceeded {
        /// His uid.
        uid: u32,
        /// His pid.
        pid: u32,
        /// Who he is.
        person: PrincipalId,
        /// The application that he signed in by.
        client: ClientId,
        /// How.
        way: Way,
        /// The approval that it is an answer to, and good for nothing else.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        approval: Option<ApprovalId>,
        /// Until when he is signed in; none where it is for one answer.
        until: Option<Timestamp>,
        /// The ID token's `uti`, by which Entra's sign-in logs know it.
        uti: Option<String>,
    },
    /// A sign-in failed.
    #[serde(rename = "login.refused")]
    LoginRefused {
        /// The uid of who tried.
        uid: u32,
        /// His pid.
        pid: u32,
        /// Whom the ID token named, where it was one that can be believed.
        person: Option<PrincipalId>,
        /// Why.
        code: String,
    },
    /// Somebody isn't signed in any more.
    #[serde(rename = "login.ended")]
    LoginEnded {
        /// His uid.
        uid: u32,
        /// Who he was.
        person: PrincipalId,
        /// Why: `logout`, `expired`, `replaced` (by another sign-in of his).
        reason: String,
    },
    /// A held operation isn't asked about any more.
    #[serde(rename = "approval.closed")]
    ApprovalClosed {
        /// Which.
        approval: ApprovalId,
        /// How: `granted`, `denied`, `expired`, `daemon-restarted`.
        outcome: String,
    },
    /// The glass is broken: for a time a workload may what `break-glass.d` permits.
    #[serde(rename = "break-glass.started")]
    BreakGlassStarted {
        /// For which workload, until when and why.
        broken: Box<BreakGlass>,
        /// The uid of who began it.
        by: u32,
    },
    /// It isn't any more.
    #[serde(rename = "break-glass.ended")]
    BreakGlassEnded {
        /// Which.
        id: BreakGlassId,
        /// Why: `expired`, `stopped`.
        reason: String,
        /// The uid of who ended it.
        by: Option<u32>,
    },
    /// An auditor has looked at what was done.
    #[serde(rename = "break-glass.closed")]
    BreakGlassClosed {
        /// Which.
        id: BreakGlassId,
        /// The uid of the auditor.
        by: u32,
        /// What he found.
        note: String,
    },
    /// From now on a grant lets something through.
    #[serde(rename = "grant.issued")]
    GrantIssued {
        /// What, and for how long. Each use is an `operation.decided` that names it.
        grant: Box<Grant>,
        /// The uid of the operator who issued it; none where it comes of an approval.
        by: Option<u32>,
    },
    /// A grant lets nothing through any more.
    #[serde(rename = "grant.ended")]
    GrantEnded {
        /// Which.
        grant: GrantId,
        /// Why: `revoked`, `expired`.
        reason: String,
        /// The uid of who revoked it.
        by: Option<u32>,
    },
    /// Nobody was told of something by a channel of `[[notify]]`.
    #[serde(rename = "notification.failed")]
    NotificationFailed {
        /// The channel.
        channel: ChannelName,
        /// The notification.
        message: MessageId,
        /// What it was to tell of: `approval-requested`.
        occasion: String,
        /// Whom or what that was about: `apr_…`, `grt_…`.
        about: String,
        /// How often it was tried.
        tries: u32,
        /// What the last try came to, or why there is none.
        reason: String,
    },
    /// For a time operations were denied, because the record couldn't be written, or wasn't known outside the host.
    #[serde(rename = "record.outage")]
    RecordOutage {
        /// Since when.
        since: Timestamp,
        /// Until when; none while it goes on.
        until: Option<Timestamp>,
        /// Why.
        reason: String,
    },
    /// The database ends here, and another one begins.
    #[serde(rename = "record.rotated")]
    RecordRotated {
        /// The uid of who asked for it.
        uid: u32,
        /// His pid.
        pid: u32,
    },
    /// See [`Begun`].
    #[serde(rename = "record.begun")]
    RecordBegun(Begun),
    /// See [`Hashed`].
    #[serde(rename = "record.hashed")]
    RecordHashed(Hashed),
    /// A part of the record can't be read any more. What could be is there; the file is kept.
    #[serde(rename = "record.damaged")]
    RecordDamaged {
        /// The file, and where in it.
        place: String,
        /// What was found.
        detail: String,
    },
}

/// A verdict, without its reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It went on.
    Allow,
    /// It didn't.
    Deny,
    /// It didn't, because nobody has answered yet.
    Hold,
}

impl Verdict {
    /// `allow`, `deny` or `hold`.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Allow => "allow",
            Verdict::Deny => "deny",
            Verdict::Hold => "hold",
        }
    }
}

/// JSON is UTF-8, paths need not be: a process must not become unrecordable by the name of its executable.
fn readable<S: Serializer>(process: &Option<Process>, serializer: S) -> Result<S::Ok, S::Error> {
    let readable = process
        .clone()
        .map(|process| Process { exe: process.exe.map(|exe| exe.to_string_lossy().into_owned().into()), ..process });
    readable.serialize(serializer)
}
