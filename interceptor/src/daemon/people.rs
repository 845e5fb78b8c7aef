//! What people and operators say on the control socket of held operations: who may answer, what they are shown, the
//! grants that operators issue and revoke.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::json;

use super::exhibit::exhibit;
use super::launches::Launches;
use super::listed::listed;
use super::login::{Logins, Session};
use super::payloads;
use super::publish::is_in_group;
use super::reload::Loader;
use crate::approve::{Answerer, Desk, NoAnswer, lets_through, seconds};
use crate::config::Approvers;
use crate::control::peer::Peer;
use crate::control::protocol::{Allowed, Issue, ShownApproval, words};
use crate::control::server::{Answer, Caller};
use crate::ids::{ApprovalId, GrantId, PrincipalId};
use crate::pipeline::Pipeline;
use crate::policy::{Behind, Grant, Origin, Scope, Terms, Whose, Width};
use crate::record::approval::{self, Approval};
use crate::record::event::What;
use crate::record::{QueryError, Reader};
use crate::who::LATE;

/// The longest grant that an operator may issue, in seconds: 30 days.
const LONGEST: u64 = 30 * 86_400;

/// The desk, as people see it.
pub(super) struct People<'a> {
    pub(super) desk: &'a Arc<Desk>,
    pub(super) launches: &'a Arc<Launches>,
    pub(super) loader: &'a Arc<Loader>,
    pub(super) pipeline: &'a Arc<Pipeline>,
    pub(super) logins: &'a Logins,
}

/// What an approver says.
#[derive(Debug, Clone)]
pub(super) struct Said {
    pub(super) yes: bool,
    pub(super) width: Option<Width>,
    pub(super) note: Option<String>,
}

impl People<'_> {
    /// Who a peer is, among those who may be asked, at this moment.
    pub(super) fn answerer(&self, peer: &Peer) -> Answerer {
        let signed = self.logins.of(peer.uid);
        self.answerer_as(peer, signed.as_deref())
    }

    /// Who a peer is, with what its uid signed in with. That counts for the tenant and the application of the moment only, and
    /// only as the person that `[people]` says it is, if it does.
    pub(super) fn answerer_as(&self, peer: &Peer, signed: Option<&Session>) -> Answerer {
        let (uid, loginuid) = (peer.uid, peer.loginuid);
        let world = self.loader.world();
        let identities = &world.snapshot.settings.identities;
        let mapped = identities.people.get(&uid);
        let login = identities.login.as_ref();
        let signed = signed.filter(|one| login.is_some_and(|login| one.is_of(login)));
        let signed = signed.filter(|one| mapped.is_none_or(|person| *person == one.person));
        let is_in = |members: &Approvers| {
            is_local(members, uid, mapped.is_some(), |gid| answers_for(peer, gid))
                || signed.is_some_and(|one| members.take(&one.person, &one.groups))
        };
        let names = |is_in: &dyn Fn(&Approvers) -> bool| -> BTreeSet<String> {
            let groups = identities.approvers.iter().filter(|(_, members)| is_in(members));
            groups.map(|(name, _)| name.clone()).collect()
        };
        let signs_in_to = |members: &Approvers| signed.is_some_and(|one| !members.groups.is_disjoint(&one.groups));
        let (groups, by_sign_in) = (names(&is_in), names(&signs_in_to));
        let person = mapped.or(signed.map(|one| &one.person)).cloned();
        // Who he was before he became this one.
        let before = loginuid.filter(|login| *login != uid).and_then(|login| {
            let signed = || self.logins.of(login).map(|one| one.person.clone());
            identities.people.get(&login).cloned().or_else(signed)
        });
        let persons: BTreeSet<_> = person.iter().cloned().chain(before).collect();
        let others = persons.iter().flat_map(|one| identities.uids_of(one).chain(self.logins.uids_of(one)));
        let others = others.chain(loginuid).filter(|other| *other != uid).collect();
        let evidence = signed.map(|one| Box::new(one.evidence.clone()));
        let required = login.map(|login| login.required).unwrap_or_default();
        let lapsed = BTreeSet::new();
        Answerer { uid, loginuid, person, persons, others, groups, by_sign_in, evidence, required, lapsed }
    }

    /// Refuses who is neither asked nor an operator; the attempt is recorded.
    fn stranger(&self, peer: &Peer, request: &str) -> Answer {
        self.note(peer, request, Some("not-an-approver".into()));
        Answer::refused(
            "not-an-approver",
            format!("uid {} is none of the `[approvers]` of the configuration", peer.uid),
            "sign in with `interceptor login` if you are one by your account, or ask the operator of this host to list you in \
             `[people]` and `[approvers]`",
        )
    }

    pub(super) fn note(&self, peer: &Peer, request: &str, refused: Option<String>) {
        let (uid, pid, request) = (peer.uid, peer.pid, request.to_owned());
        self.launches.journal().note(What::ControlRequest { uid, pid, request, refused });
    }

    /// The open approvals that a caller may see, at most `limit`: all for operators and auditors, else those that they are
    /// asked about.
    pub(super) fn open(&self, caller: &Caller, limit: u32) -> Answer {
        let by = self.answerer(&caller.peer);
        let sees_all = caller.operator || caller.auditor;
        let mut open = self.desk.open();
        open.retain(|approval| sees_all || is_asked(&by, approval));
        if open.is_empty() && by.groups.is_empty() && !sees_all && !self.runs_one(&caller.peer) {
            return self.stranger(&caller.peer, "approvals-list");
        }
        Answer::done(json!(listed(open, limit)))
    }

    /// One approval: as it is shown while it is open, else as it is recorded.
    pub(super) fn show(&self, caller: &Caller, id: &str, reader: &Reader) -> Answer {
        let by = self.answerer(&caller.peer);
        let (approval, message, waiting) = match self.desk.find(&id.to_ascii_lowercase()) {
            Some((approval, message, waiting)) => (approval, Some(message), waiting),
            None => match reader.approval(id) {
                Ok(approval) => (approval, None, 0),
                Err(error) => return unknown(&error),
            },
        };
        if !caller.operator && !caller.auditor && !is_asked(&by, &approval) {
            return self.stranger(&caller.peer, &words("approvals-show", id));
        }
        // What was sent is shown to nobody of whom the record doesn't say it. What is closed is shown without it.
        if message.is_some() {
            let (uid, pid) = (caller.peer.uid, caller.peer.pid);
            let event = What::ApprovalRead { approval: approval.request.approval, uid, pid };
            if let Err(refused) = payloads::note(self.launches.journal(), event) {
                return refused;
            }
        }
        let request = &approval.request;
        let widths = [Width::Operation, Width::Shape, Width::Action, Width::Target];
        let allows = widths.into_iter().filter(|width| *width <= request.terms.grant_scope);
        let allows = allows.map(|width| Allowed { width, told: lets_through(request, width) });
        let world = self.loader.world();
        let identity = request.identity.as_ref();
        let client = identity.and_then(|who| who.client).map(|client| client.to_string());
        let ids = [identity.map(|who| who.principal.as_str()), client.as_deref()];
        let names = world.snapshot.settings.identities.names_for(ids.into_iter().flatten());
        let shown = ShownApproval {
            allows: allows.collect(),
            exhibit: message.as_deref().map(exhibit),
            approval,
            waiting,
            names,
        };
        Answer::done(json!(shown))
    }

    /// Takes an answer. Who it comes from is the kernel's word; what doesn't count is recorded as refused.
    pub(super) fn answer(&self, caller: &Caller, id: &str, said: Said) -> Answer {
        let by = self.answerer(&caller.peer);
        match self.askable(&caller.peer, &by, id, said.yes) {
            Ok(id) => self.say(&caller.peer, &by, id, said).unwrap_or_else(|refused| refused),
            Err(refused) => refused,
        }
    }

    /// The open approval of this id, where this peer is one who could answer it.
    pub(super) fn askable(&self, peer: &Peer, by: &Answerer, id: &str, yes: bool) -> Result<ApprovalId, Answer> {
        let words = words(verb(yes), id);
        let Some((approval, _, _)) = self.desk.find(&id.to_ascii_lowercase()) else {
            if by.groups.is_empty() {
                return Err(self.stranger(peer, &words));
            }
            return Err(self.refused(peer, &words, "approval-closed", &NoAnswer::Closed(id.to_owned())));
        };
        let confirms = by.uid == approval.request.initiator && !approval.request.terms.confirm.is_empty();
        if by.groups.is_empty() && !confirms {
            return Err(self.stranger(peer, &words));
        }
        // Who runs a workload could be it: what answers must be out of its reach.
        if !confirms && self.runs_one(peer) {
            self.note(peer, &words, Some("runs-a-workload".into()));
            return Err(Answer::refused(
                "runs-a-workload",
                format!("a workload runs as uid {}, or was launched by it", peer.uid),
                "answer as a user who runs none",
            ));
        }
        // Also who has called since it was asked: the same may wait for him as well.
        let since = self.desk.age(approval.request.approval).unwrap_or_default();
        let called = self.pipeline.callers.within(&approval.request.workload, LATE.saturating_add(since));
        if !confirms && called.into_iter().any(|uid| by.is(uid)) {
            return Err(self.refused(peer, &words, "own-operation", &NoAnswer::Own));
        }
        Ok(approval.request.approval)
    }

    /// Gives an answer to the desk.
    pub(super) fn say(&self, peer: &Peer, by: &Answerer, id: ApprovalId, said: Said) -> Result<Answer, Answer> {
        let by = &Answerer { lapsed: self.lapsed(id), ..by.clone() };
        let answered = self.desk.answer(id, by, (said.yes, said.width, said.note), self.pipeline.clock.now());
        answered.map(|approval| Answer::done(json!(approval))).map_err(|error| {
            let code = match &error {
                NoAnswer::Closed(_) => "approval-closed",
                NoAnswer::Own => "own-operation",
                NoAnswer::Unsigned(_) => "login-required",
                NoAnswer::NotAsked(_) => "not-asked",
                NoAnswer::Twice => "answered-already",
                NoAnswer::TooWide(_) => "too-wide",
                NoAnswer::Record(_) => "record-unavailable",
            };
            self.refused(peer, &words(verb(said.yes), &id.to_string()), code, &error)
        })
    }

    /// Who answered it for groups that they aren't in any more, with these groups.
    fn lapsed(&self, id: ApprovalId) -> BTreeSet<(u32, String)> {
        let world = self.loader.world();
        let identities = &world.snapshot.settings.identities;
        let Some((approval, _, _)) = self.desk.find(&id.to_string()) else { return BTreeSet::new() };
        let mut lapsed = BTreeSet::new();
        for answer in &approval.answers {
            let signed = self.logins.of(answer.uid);
            let is_known = identities.people.contains_key(&answer.uid);
            let is_in = |group: &String| {
                identities.approvers.get(group).is_some_and(|members| {
                    still_in((group.as_str(), members), answer, signed.as_deref())
                        || is_local(members, answer.uid, is_known, |gid| is_in_group(answer.uid, gid))
                })
            };
            lapsed.extend(answer.groups.iter().filter(|group| !is_in(group)).map(|group| (answer.uid, group.clone())));
        }
        lapsed
    }

    /// Whether a workload runs as this uid, or was launched by it.
    fn runs_one(&self, peer: &Peer) -> bool {
        self.launches.list().iter().any(|one| one.uid == peer.uid || one.initiator == peer.uid)
            || self.launches.adoptions().runs_as(peer.uid)
    }

    fn refused(&self, peer: &Peer, request: &str, code: &str, error: &NoAnswer) -> Answer {
        self.note(peer, request, Some(code.to_owned()));
        Answer::refused(code, error.to_string(), "`interceptor approvals list` shows what is open to you")
    }

    /// Issues a grant as an operator.
    pub(super) fn issue(&self, caller: &Caller, issue: Issue) -> Answer {
        let world = self.loader.world();
        let settings = &world.snapshot.settings;
        let wrong =
            |message: String| Answer::refused("grant-malformed", message, "see `interceptor grants issue --help`");
        if !settings.workloads.iter().any(|workload| workload.name == issue.workload) {
            return wrong(format!("no `[[workload]]` is named `{}`", issue.workload));
        }
        if !settings.targets.iter().any(|target| target.name == issue.target) {
            return wrong(format!("no `[[target]]` is named `{}`", issue.target));
        }
        if !(1..=LONGEST).contains(&issue.seconds) {
            return wrong("a grant lasts from a second to 30 days".into());
        }
        if let Some(action) = issue.action.as_deref().filter(|action| !Scope::has_action(action)) {
            return wrong(format!("`{action}` is no action; `interceptor policy schema` lists them"));
        }
        if let Some(path) = issue.path.as_deref().filter(|path| !path.starts_with('/')) {
            return wrong(format!("the path `{path}` doesn't begin with `/`"));
        }
        let scope = match (issue.action, issue.path) {
            (Some(action), path) => Scope::Action { action, path },
            (None, None) => Scope::Target,
            (None, Some(_)) => return wrong("`--path` narrows an `--action`".into()),
        };
        let at = self.pipeline.clock.now();
        let grant = Grant {
            id: GrantId::new(),
            workload: issue.workload,
            whose: Whose::Anyone,
            behind: issue.initiator.map_or(Behind::Anybody, Behind::Initiator),
            target: issue.target,
            scope,
            origin: Origin::Operator,
            until: at.saturating_add(seconds(issue.seconds)).unwrap_or(at),
            uses: issue.uses,
            bytes: issue.bytes,
            rows: issue.rows,
        };
        match self.desk.issue(grant.clone(), issue.seconds, caller.peer.uid) {
            Ok(()) => Answer::done(json!(grant)),
            Err(error) => unrecorded(&error),
        }
    }

    /// Ends a grant.
    pub(super) fn revoke(&self, caller: &Caller, id: &str, reader: &Reader) -> Answer {
        let id = match reader.grant(id) {
            Ok(id) => id,
            Err(error) => return unknown(&error),
        };
        match self.desk.revoke(id, caller.peer.uid) {
            Ok(true) => Answer::done(json!({ "grant": id })),
            Ok(false) => Answer::refused(
                "not-live",
                format!("`{id}` has ended already"),
                "`interceptor grants list` shows those that live",
            ),
            Err(error) => unrecorded(&error),
        }
    }

    /// Ends a live connection.
    pub(super) fn kill(&self, caller: &Caller, id: &str) -> Answer {
        let id = id.to_ascii_lowercase();
        let found = self.pipeline.registry.find(&id);
        let [session] = found.as_slice() else {
            let message = if found.is_empty() { "is open" } else { "begins like that: more than one" };
            let next = "`interceptor sessions list` shows those that are open";
            return Answer::refused("not-found", format!("no one session `{id}` {message}"), next);
        };
        self.note(&caller.peer, &words("sessions-kill", &session.to_string()), None);
        self.pipeline.registry.tell(*session, crate::pipeline::Order::Cut("killed"));
        Answer::done(json!({ "session": session }))
    }
}

/// Whether somebody is among those who are asked.
fn is_asked(by: &Answerer, approval: &Approval) -> bool {
    let Terms { groups, confirm, .. } = &approval.request.terms;
    let confirms = !confirm.is_empty() && by.uid == approval.request.initiator;
    confirms || groups.iter().any(|group| by.groups.contains(group))
}

/// Whether somebody is one of these by his uid, or by a local group of theirs that `is_in` says he is in. Of whom `[people]` doesn't
/// say who he is, no local group counts.
fn is_local(members: &Approvers, uid: u32, is_known: bool, is_in: impl Fn(u32) -> bool) -> bool {
    members.uids.contains(&uid) || (is_known && members.gids.iter().any(|gid| is_in(*gid)))
}

/// Whether somebody answers for a local group: the process is in it, and so is its user as the host's databases have it at this
/// moment. A session keeps the groups of its beginning, and a process may have more than its user has (newgrp(1),
/// `SupplementaryGroups=`). Of whom it can't be known in which groups he is, he is in none.
fn answers_for(peer: &Peer, gid: u32) -> bool {
    peer.is_in(&[gid]).unwrap_or(false) && is_in_group(peer.uid, gid)
}

/// Whether somebody who answered for a group is in it still by his sign-in. Of what one said that is over nobody knows more than it
/// said: whom his Entra groups put there stays for as long as any group of Entra's is among its members. Whom something else put
/// there doesn't, whatever he signed his answer with.
fn still_in((group, members): (&str, &Approvers), answer: &approval::Answer, signed: Option<&Session>) -> bool {
    let by_account = || {
        let person: Option<PrincipalId> = answer.person.as_deref().and_then(|person| person.parse().ok());
        let signed = signed.filter(|one| Some(&one.person) == person.as_ref());
        let by_groups = match signed {
            Some(one) => members.take(&one.person, &one.groups),
            None => answer.by_sign_in.contains(group) && !members.groups.is_empty(),
        };
        by_groups || person.is_some_and(|person| members.people.contains(&person))
    };
    answer.signed.is_some() && by_account()
}

fn verb(yes: bool) -> &'static str {
    if yes { "approvals-approve" } else { "approvals-deny" }
}

pub(super) fn unknown(error: &QueryError) -> Answer {
    Answer::refused(error.code(), error.to_string(), "see `interceptor approvals list` and `interceptor grants list`")
}

pub(super) fn unrecorded(error: &crate::record::RecordError) -> Answer {
    Answer::refused("record-unavailable", error.to_string(), "what can't be recorded isn't done")
}

#[cfg(test)]
mod tests;
