//! Which events a request gives: every command of an operator or an auditor that does something gives one, and so does what
//! shows what was sent, or whom a token names.

use super::Request;

/// What of a request is recorded, and by whom. One that its peer may not ask for always is, before it is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// Nothing: it shows states and lists.
    No,
    /// `control.request`, with its outcome.
    Always,
    /// `control.request`, before it is done: what can't be recorded isn't. And again where it is refused.
    Before,
    /// An event of its own where it is done, `control.request` where it is refused.
    Refused,
    /// Whatever there is to tell, by what answers it: that knows who may do it, and as whom.
    Apart,
}

/// How much is recorded of what a request is about, in characters: whoever asks may write anything there.
const ABOUT: usize = 100;

/// A request as it is recorded: its name, and what it is about.
pub fn words(name: &str, about: &str) -> String {
    match about {
        "" => name.to_owned(),
        about => format!("{name} {}", about.chars().take(ABOUT).collect::<String>()),
    }
}

impl Request {
    /// What is recorded of it.
    pub fn told(&self) -> Told {
        match self {
            Request::Status
            | Request::Workloads
            | Request::Ledger
            | Request::PolicyShow
            | Request::SessionsList { .. }
            | Request::SessionsShow { .. }
            | Request::SessionsOperations { .. }
            | Request::SessionsSearch { .. }
            | Request::SessionsVerify
            | Request::OperationLink { .. }
            | Request::GrantsList { .. }
            | Request::BreakGlassList { .. } => Told::No,
            Request::PolicyReload
            | Request::SessionsPrune { .. }
            | Request::SessionsErase { .. }
            | Request::SessionsHold { .. }
            | Request::RecordRotate
            | Request::NotifyTest { .. } => Told::Always,
            // Tokens' claims are personal data.
            Request::PolicyExplain { .. } | Request::ApprovalsEvidence { .. } | Request::HostCommand { .. } => {
                Told::Before
            }
            Request::PayloadRead { .. }
            | Request::GrantsIssue(_)
            | Request::GrantsRevoke { .. }
            | Request::SessionsKill { .. }
            | Request::BreakGlassStart(_)
            | Request::BreakGlassStop { .. }
            | Request::BreakGlassClose { .. } => Told::Refused,
            Request::ApprovalsList { .. }
            | Request::ApprovalsShow { .. }
            | Request::ApprovalsAnswer { .. }
            | Request::LoginBegin(_)
            | Request::LoginEnd { .. }
            | Request::Logout
            | Request::Run(_) => Told::Apart,
        }
    }

    /// It as it is recorded.
    pub fn in_words(&self) -> String {
        let about = match self {
            Request::PolicyExplain { operation }
            | Request::OperationLink { operation }
            | Request::PayloadRead { operation } => operation.clone(),
            Request::SessionsShow { id }
            | Request::SessionsErase { id }
            | Request::SessionsKill { id }
            | Request::SessionsHold { id, held: true }
            | Request::ApprovalsShow { id }
            | Request::ApprovalsAnswer { id, .. }
            | Request::ApprovalsEvidence { id }
            | Request::GrantsRevoke { id }
            | Request::BreakGlassStop { id }
            | Request::BreakGlassClose { id, .. } => id.clone(),
            Request::SessionsHold { id, held: false } => format!("{id} --release"),
            Request::SessionsOperations { session, .. } => session.clone(),
            Request::SessionsPrune { before } => before.to_string(),
            Request::GrantsIssue(issue) => format!("{} {}", issue.workload, issue.target),
            Request::BreakGlassStart(start) => start.workload.to_string(),
            Request::NotifyTest { channel } => channel.clone(),
            Request::HostCommand { command, unit } => return words(command.as_str(), unit),
            Request::Status
            | Request::Workloads
            | Request::Ledger
            | Request::PolicyReload
            | Request::PolicyShow
            | Request::SessionsList { .. }
            | Request::SessionsSearch { .. }
            | Request::RecordRotate
            | Request::SessionsVerify
            | Request::ApprovalsList { .. }
            | Request::LoginBegin(_)
            | Request::LoginEnd { .. }
            | Request::Logout
            | Request::GrantsList { .. }
            | Request::BreakGlassList { .. }
            | Request::Run(_) => String::new(),
        };
        words(self.name(), &about)
    }
}

#[cfg(test)]
mod tests;
