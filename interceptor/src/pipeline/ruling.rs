//! A ruling: one decision, with everything that the record says of it. Made for connections, requests and look-ups
//! alike, so that a reload decides again in the same words.

use std::borrow::Cow;
use std::sync::Arc;

use jiff::Timestamp;

use super::World;
use super::authenticate::{Identified, Wanted};
use super::live::Live;
use super::reply::Refusal;
use super::screen::Masked;
use crate::config::{Host, IdentitySource, Protocol, Target};
use crate::detect::secrets;
use crate::error::{Blame, Fault};
use crate::ids::{ApprovalId, Digest, GrantId, LaunchId, OperationId, SessionId, TargetName, WorkloadName};
use crate::mask::{Key, Plan};
use crate::policy::{
    Asker, Basis, Credential, Decision, Denial, Grants, Hold, HttpRequest, Operation, Permit, Question, Terms, decide,
};
use crate::record::event::{Decided, Intent, Verdict};
use crate::who::Workload;

/// The code of an operation that nobody has answered yet.
pub(super) const PENDING: &str = "approval-pending";

/// A decision in the record's words.
#[derive(Debug)]
pub(super) struct Ruling {
    pub(super) target: Option<TargetName>,
    pub(super) action: Cow<'static, str>,
    pub(super) summary: String,
    /// What it authenticates with; none for what carries no credential by its nature.
    pub(super) credential: Option<Credential>,
    /// Whom its token names.
    pub(super) who: Option<Identified>,
    pub(super) verdict: Result<Permit, Refusal>,
    /// What the answer is masked for, if it is permitted.
    pub(super) plan: Option<Arc<Plan>>,
    /// Who has to say yes first, if it would be permitted then.
    pub(super) hold: Option<Terms>,
    /// The approval that it waited for before it was decided like this.
    pub(super) approval: Option<ApprovalId>,
}

/// What decisions are made on.
pub(super) struct Moment<'a> {
    pub(super) world: &'a World,
    pub(super) grants: &'a Grants,
    pub(super) at: Timestamp,
}

/// What grants know an operation by.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Known {
    /// Its digest, once it is read in full.
    pub(super) digest: Option<Digest>,
    /// The grant that it is a use of.
    pub(super) using: Option<GrantId>,
}

/// Whose operation it is.
#[derive(Debug, Clone)]
pub(super) struct Subject {
    pub(super) launch: LaunchId,
    pub(super) workload: WorkloadName,
    pub(super) asker: Asker,
    /// Where its tokens come from.
    pub(super) source: IdentitySource,
}

impl Subject {
    /// The subject that a workload's operations have.
    pub(super) fn of(workload: &Workload) -> Self {
        let name = workload.settings.name.clone();
        Self {
            launch: workload.id,
            workload: name.clone(),
            asker: Asker {
                workload: name,
                classes: workload.settings.classes.clone(),
                initiator: workload.initiator,
                loginuid: workload.loginuid,
            },
            source: workload.settings.identity.clone(),
        }
    }
}

impl Ruling {
    /// Decides `operation`, whose token names `who`.
    pub(super) fn make(
        moment: &Moment<'_>,
        subject: &Subject,
        who: Option<&Identified>,
        operation: Operation<'_>,
        known: Known,
    ) -> Ruling {
        let Moment { world, grants, at } = moment;
        let targets = &world.snapshot.settings.targets;
        let (action, summary) = describe(&operation);
        let credential = match &operation {
            Operation::Http(request) => Some(request.credential),
            Operation::Resolve { .. } | Operation::Connect { .. } | Operation::Token(_) => None,
        };
        let identified = who.cloned();
        let target = match &operation {
            Operation::Resolve { name } => targets.by_host(&Host::Name((*name).clone())),
            Operation::Connect { host, port } => targets.find(host, *port),
            Operation::Http(request) => targets.find(request.host, request.port),
            Operation::Token(request) => targets.by_audience(request.audience),
        };
        let Some(target) = target else {
            let verdict = Err(not_a_target(&operation).into());
            let (target, plan, hold, approval) = (None, None, None, None);
            let who = identified;
            return Ruling { target, action, summary, credential, who, verdict, plan, hold, approval };
        };
        let (mut plan, mut hold) = (None, None);
        let request = match &operation {
            Operation::Http(request) => Some(request.clone()),
            _ => None,
        };
        let verdict = match (&operation, target.protocol) {
            (Operation::Resolve { .. } | Operation::Token(_), _) | (_, Protocol::Http) => {
                let principal = who.map(|who| &*who.principal);
                let Known { digest, using } = known;
                let question = Question { asker: &subject.asker, principal, target, operation, digest, using };
                match decide(&world.snapshot, &question, grants, *at) {
                    Decision::Allow(permit) => match masks(world, permit.basis(), request.as_ref()) {
                        Ok(masks) => {
                            plan = masks;
                            Ok(permit)
                        }
                        Err(fault) => Err(Refusal { basis: Box::new(permit.basis().clone()), ..fault.into() }),
                    },
                    Decision::Hold(Hold { basis, terms }) => match masks(world, &basis, request.as_ref()) {
                        Ok(_masks) => {
                            hold = Some(terms);
                            Err(Refusal { basis: Box::new(basis), ..not_askable().into() })
                        }
                        // Nobody is asked about what no yes lets through.
                        Err(fault) => Err(Refusal { basis: Box::new(basis), ..fault.into() }),
                    },
                    Decision::Deny(denial) => Err(refusal(denial, &action, target)),
                }
            }
            (_, other) => Err(protocol_not_built(other, target).into()),
        };
        let (target, who, approval) = (Some(target.name.clone()), identified, None);
        Ruling { target, action, summary, credential, who, verdict, plan, hold, approval }
    }

    /// The same, with the path of its summary masked: as its answer is, or where it has none, as every answer of its target.
    pub(super) fn concealed(mut self, world: &World, key: &Key) -> Ruling {
        // What is permitted and not masked is of a target that masks nothing, or has no path in its summary.
        if self.verdict.is_ok() && self.plan.is_none() {
            return self;
        }
        let of_target = || {
            let target =
                world.snapshot.settings.targets.iter().find(|target| Some(&target.name) == self.target.as_ref())?;
            world.masking.named(&target.masks)
        };
        if let Some(plan) = self.plan.clone().or_else(of_target).filter(|plan| plan.detects()) {
            self.summary = Masked { plan, key: *key }.summary(&self.summary);
        }
        self
    }

    /// A refusal that needed no decision: the request itself can't be accepted.
    pub(super) fn refused(
        action: Cow<'static, str>,
        summary: String,
        target: Option<TargetName>,
        fault: Fault,
    ) -> Ruling {
        Ruling {
            target,
            action,
            summary,
            credential: None,
            who: None,
            verdict: Err(fault.into()),
            plan: None,
            hold: None,
            approval: None,
        }
    }

    /// A refusal of who sends it, before policy was asked.
    pub(super) fn refuse(live: &Live, target: &Target, wanted: &Wanted, refusal: Refusal) -> Ruling {
        let operation = wanted.operation(live);
        let (action, summary) = describe(&operation);
        let credential = match &operation {
            Operation::Http(request) => Some(request.credential),
            _ => None,
        };
        let target = Some(target.name.clone());
        let verdict = Err(refusal);
        let (who, plan, hold, approval) = (None, None, None, None);
        let ruling = Ruling { target, action, summary, credential, who, verdict, plan, hold, approval };
        ruling.concealed(&live.session().world(), &live.session().worker.pipeline.mask_key)
    }

    /// The same operation, refused after all: because of what people were asked.
    pub(super) fn refused_for(self, refusal: Refusal, approval: Option<ApprovalId>) -> Ruling {
        let basis = Box::new(self.basis().clone());
        let verdict = Err(Refusal { basis, approval: approval.map(Box::new), ..refusal });
        Ruling { verdict, plan: None, hold: None, ..self }
    }

    /// What determined it.
    pub(super) fn basis(&self) -> &Basis {
        match &self.verdict {
            Ok(permit) => permit.basis(),
            Err(refusal) => &refusal.basis,
        }
    }

    /// The code of its refusal; empty where there is none.
    pub(super) fn code(&self) -> &'static str {
        self.verdict.as_ref().err().map_or("", |refusal| refusal.fault.code)
    }

    /// What it is counted as: class, verdict and code. None holds what a workload wrote.
    pub(super) fn labels(&self) -> [&'static str; 3] {
        let class = match &*self.action {
            "connect" => "connect",
            "dns:resolve" => "dns:resolve",
            "http:websocket" => "http:websocket",
            "http:GET" | "http:HEAD" | "http:OPTIONS" => "http:read",
            "token:request" => "token:request",
            _ => "http:write",
        };
        match &self.verdict {
            Ok(_) => [class, "allow", ""],
            Err(refusal) if refusal.fault.code == PENDING => [class, "hold", PENDING],
            Err(refusal) => [class, "deny", refusal.fault.code],
        }
    }

    /// The event that records it: at what time, as which operation, of which session.
    pub(super) fn intent<'a>(&'a self, of: Of, subject: &'a Subject) -> Intent<'a> {
        match &self.verdict {
            Ok(permit) => self.decided((Verdict::Allow, None, self.approval), permit.basis(), of, subject),
            Err(refusal) => self.denied(refusal, of, subject),
        }
    }

    /// The event that records that it is denied, whatever was decided.
    pub(super) fn denied<'a>(&'a self, refusal: &'a Refusal, of: Of, subject: &'a Subject) -> Intent<'a> {
        let verdict = if refusal.fault.code == PENDING { Verdict::Hold } else { Verdict::Deny };
        let approval = refusal.approval.as_deref().copied().or(self.approval);
        self.decided((verdict, Some(refusal.fault.code), approval), &refusal.basis, of, subject)
    }

    fn decided<'a>(
        &'a self,
        (verdict, code, approval): (Verdict, Option<&'static str>, Option<ApprovalId>),
        basis: &'a Basis,
        (at, operation, session): Of,
        subject: &'a Subject,
    ) -> Intent<'a> {
        Intent {
            at,
            event: Decided::Operation,
            operation,
            session,
            launch: subject.launch,
            workload: &subject.workload,
            target: self.target.as_ref(),
            action: &self.action,
            summary: &self.summary,
            verdict,
            code,
            basis,
            initiator: Some(subject.asker.initiator),
            credential: self.credential,
            identity: self.who.as_ref().map(Identified::named),
            approval,
        }
    }
}

/// When something is recorded, as which operation, and of which session.
type Of = (Timestamp, OperationId, Option<SessionId>);

/// The action and the line that stand for an operation. The query isn't in it: it is where secrets travel.
fn describe(operation: &Operation<'_>) -> (Cow<'static, str>, String) {
    let summary = match operation {
        Operation::Resolve { name } => format!("look up {name}"),
        Operation::Connect { host, port } => format!("connect to {host} port {port}"),
        Operation::Http(request) if request.websocket => {
            format!("{} {} as a WebSocket, opaque", request.method, secrets::path(request.path.raw()))
        }
        Operation::Http(request) => [request.method, " ", &secrets::path(request.path.raw())].concat(),
        Operation::Token(request) => format!("{} for {}", request.grant, secrets::path(request.audience)),
    };
    (operation.action().into(), summary)
}

/// What the answer of a request is masked for; what isn't a request has none.
fn masks(world: &World, basis: &Basis, request: Option<&HttpRequest<'_>>) -> Result<Option<Arc<Plan>>, Fault> {
    request.map_or(Ok(None), |request| world.masking.of(&basis.obligations.masks, request))
}

fn not_a_target(operation: &Operation<'_>) -> Fault {
    let told = match operation {
        Operation::Resolve { name } => format!("`{name}` is not a target of this host's Interceptor"),
        Operation::Connect { host, port } => format!("`{host}` port {port} is not a target of this host's Interceptor"),
        Operation::Http(request) => format!("`{}` is not a target of this host's Interceptor", request.host),
        Operation::Token(request) => {
            format!("tokens for `{}` belong to no target of this host's Interceptor", request.audience)
        }
    };
    Fault {
        code: "not-a-target",
        blame: Blame::Policy,
        told,
        next: "use a configured target, or ask the operator of this host to add one; retrying will not help",
    }
}

fn protocol_not_built(protocol: Protocol, target: &Target) -> Fault {
    Fault {
        code: "protocol-not-built",
        blame: Blame::Operator,
        told: format!(
            "target `{}` speaks `{protocol}`, which this version of Interceptor does not mediate",
            target.name
        ),
        next: "ask the operator of this host; retrying will not help",
    }
}

/// What has to be approved and isn't an HTTP request.
pub(super) fn not_askable() -> Fault {
    Fault {
        code: "approval-not-askable",
        blame: Blame::Policy,
        told: "policy wants people to approve it, and they can be asked about HTTP requests only".into(),
        next: "don't retry: ask the operator of this host for a grant, or to mend the policy",
    }
}

fn refusal(denial: Denial, action: &str, target: &Target) -> Refusal {
    let told = format!("`{action}` on `{}` is denied: {}", target.name, denial.told());
    let next = denial.next();
    let fault = Fault { code: denial.code, blame: Blame::Policy, told, next };
    Refusal { basis: Box::new(denial.basis), ..fault.into() }
}
