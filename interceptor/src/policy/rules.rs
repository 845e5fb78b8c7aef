//! The policies of a snapshot, indexed by target and action. Cedar's scope tests can't err and come before `when`, so a
//! policy whose scope excludes a target or an action can be left out of its slice without changing any verdict; one
//! without such a scope stands in every slice. Slices that are alike are kept once.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use cedar_policy::{
    ActionConstraint, Effect, Entities, Entity, EntityId, EntityTypeName, EntityUid, Policy, ResourceConstraint, Schema,
};
#[cfg(test)]
use cedar_policy::{PolicyId, PolicySet};
use cedar_policy_core::ast::EntityUIDEntry;

use super::annotation::Annotations;
use super::condition::Condition;
use super::reads::Reads;
use crate::config::{Settings, Target};
use crate::ids::{TargetName, WorkloadName};

/// One policy, with what decisions and people want to know of it. Cedar's own form of it isn't kept: of that, [`Condition`] has
/// what is evaluated.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub(super) effect: Effect,
    pub(super) id: String,
    pub(super) annotations: Annotations,
    pub(super) file: String,
    /// From 1.
    pub(super) line: usize,
    pub(super) text: String,
    /// Whether it counts only while the glass is broken.
    pub(super) emergency: bool,
}

/// All policies, ready to be asked.
pub(super) struct Rules {
    rules: BTreeMap<String, Arc<Rule>>,
    actions: HashMap<&'static str, Action>,
    targets: HashMap<TargetName, TargetRules>,
    workloads: HashMap<WorkloadName, EntityUid>,
    nobody: EntityUIDEntry,
    query: EntityUid,
    kinds: Kinds,
}

/// The types of entities that are made for each question. Parsing a name costs more than the rest of making one.
struct Kinds {
    identity: EntityTypeName,
    group: EntityTypeName,
    role: EntityTypeName,
}

struct Action {
    /// Its place in each target's slices.
    index: usize,
    uid: EntityUid,
    entry: EntityUIDEntry,
    /// It and the groups that it is in.
    family: Vec<Entity>,
    entities: Entities,
}

struct TargetRules {
    settings: Arc<Target>,
    entry: EntityUIDEntry,
    slices: Vec<Slice>,
}

/// The policies that could answer a question.
#[derive(Clone)]
struct Slice {
    conditions: Arc<[Arc<Condition>]>,
    /// Whether one of them names a group.
    names_groups: bool,
    /// Whether one of them names a group or a role: if none does, none can tell what a principal is in.
    names_kin: bool,
    /// What they look at of the context.
    reads: Arc<Reads>,
}

/// What stands ready for one target and action.
pub(super) struct Ready<'a> {
    pub(super) settings: &'a Target,
    pub(super) target: &'a EntityUIDEntry,
    pub(super) action: &'a EntityUIDEntry,
    pub(super) family: &'a [Entity],
    pub(super) entities: &'a Entities,
    pub(super) slice: &'a [Arc<Condition>],
    /// Whether a policy of the slice names a group.
    pub(super) names_groups: bool,
    /// Whether one names a group or a role.
    pub(super) names_kin: bool,
    /// What the slice's policies look at of the context.
    pub(super) reads: &'a Reads,
}

/// Every action that an operation can have; [`super::Operation::action`] gives no other.
pub(super) const ACTIONS: [&str; 12] = [
    "connect",
    "dns:resolve",
    "http:GET",
    "http:HEAD",
    "http:OPTIONS",
    "http:POST",
    "http:PUT",
    "http:PATCH",
    "http:DELETE",
    "http:other",
    "token:request",
    "http:websocket",
];

impl Rules {
    /// Indexes policies with ids of their own.
    ///
    /// # Errors
    /// What the schema lacks; a fault of this build.
    pub(super) fn new(rules: Vec<(Rule, Policy)>, schema: &Schema, settings: &Settings) -> Result<Self, String> {
        let hierarchy = schema.action_entities().map_err(|error| error.to_string())?;
        let mut actions = HashMap::new();
        for (index, name) in ACTIONS.into_iter().enumerate() {
            let uid = entity("Action", name)?;
            let kin = |other: &&Entity| other.uid() == uid || hierarchy.is_ancestor_of(&other.uid(), &uid);
            let family: Vec<_> = hierarchy.iter().filter(kin).cloned().collect();
            if !family.iter().any(|member| member.uid() == uid) {
                return Err(format!("the schema has no action `{name}`"));
            }
            let entities = Entities::from_entities(family.clone(), None).map_err(|error| error.to_string())?;
            let entry = known(&uid);
            actions.insert(name, Action { index, uid, entry, family, entities });
        }
        let rules: Vec<_> = rules.into_iter().map(|(rule, policy)| (Arc::new(rule), policy)).collect();
        let scoped: Vec<_> = rules.iter().map(|(rule, policy)| Scoped::new(rule, policy, &actions)).collect();
        // Those for any target, and those for one: a target is asked for its own, not for all.
        let mut every = Vec::new();
        let mut of_target: HashMap<&EntityUid, Vec<usize>> = HashMap::new();
        for (at, one) in scoped.iter().enumerate() {
            one.target.as_ref().map_or(&mut every, |uid| of_target.entry(uid).or_default()).push(at);
        }
        let mut alike: HashMap<Vec<usize>, Slice> = HashMap::new();
        let mut targets = HashMap::new();
        for target in settings.targets.iter() {
            let uid = entity("Target", target.name.as_str())?;
            let mut candidates = [&every[..], of_target.get(&uid).map_or(&[], Vec::as_slice)].concat();
            candidates.sort_unstable();
            let slice = |index: usize| {
                let chosen: Vec<_> = candidates.iter().copied().filter(|&at| scoped[at].actions[index]).collect();
                alike.entry(chosen).or_insert_with_key(|chosen| Slice::of(chosen, &scoped)).clone()
            };
            let (settings, entry) = (Arc::clone(target), known(&uid));
            let slices = (0..ACTIONS.len()).map(slice).collect();
            targets.insert(target.name.clone(), TargetRules { settings, entry, slices });
        }
        let mut workloads = HashMap::new();
        for workload in &settings.workloads {
            workloads.insert(workload.name.clone(), entity("Workload", workload.name.as_str())?);
        }
        Ok(Self {
            rules: rules.into_iter().map(|(rule, _)| (rule.id.clone(), rule)).collect(),
            actions,
            targets,
            workloads,
            nobody: known(&entity("Identity", "none")?),
            query: entity("Query", "query")?,
            kinds: Kinds { identity: kind("Identity")?, group: kind("Group")?, role: kind("Role")? },
        })
    }

    /// What stands ready for this target and action; none if there is no such target.
    pub(super) fn ready(&self, target: &TargetName, action: &str) -> Option<Ready<'_>> {
        let action = self.actions.get(action)?;
        let target = self.targets.get(target)?;
        let slice = target.slices.get(action.index)?;
        Some(Ready {
            settings: &target.settings,
            target: &target.entry,
            action: &action.entry,
            family: &action.family,
            entities: &action.entities,
            slice: &slice.conditions,
            names_groups: slice.names_groups,
            names_kin: slice.names_kin,
            reads: &slice.reads,
        })
    }

    /// The workload's entity, if there is one of this name.
    pub(super) fn workload(&self, name: &WorkloadName) -> Option<&EntityUid> {
        self.workloads.get(name)
    }

    /// An identity's entity.
    pub(super) fn identity(&self, id: &str) -> EntityUid {
        EntityUid::from_type_name_and_id(self.kinds.identity.clone(), EntityId::new(id))
    }

    /// A group's entity, by its id or a name of it.
    pub(super) fn group(&self, name: &str) -> EntityUid {
        EntityUid::from_type_name_and_id(self.kinds.group.clone(), EntityId::new(name))
    }

    /// A role's entity, by its id or a name of it.
    pub(super) fn role(&self, name: &str) -> EntityUid {
        EntityUid::from_type_name_and_id(self.kinds.role.clone(), EntityId::new(name))
    }

    /// `Identity::"none"`.
    pub(super) fn nobody(&self) -> &EntityUIDEntry {
        &self.nobody
    }

    /// The entity that a request's query is.
    pub(super) fn query(&self) -> &EntityUid {
        &self.query
    }

    pub(super) fn rule(&self, id: &str) -> Option<&Rule> {
        self.rules.get(id).map(|rule| &**rule)
    }

    /// All ids, sorted.
    pub(super) fn ids(&self) -> Vec<&str> {
        self.rules.keys().map(String::as_str).collect()
    }

    /// The ids of those that count only while the glass is broken, sorted.
    pub(super) fn of_emergencies(&self) -> Vec<&str> {
        self.rules.values().filter(|rule| rule.emergency).map(|rule| rule.id.as_str()).collect()
    }

    /// All policies as one set: what the slices are compared with.
    #[cfg(test)]
    pub(super) fn whole(&self) -> PolicySet {
        let read =
            |rule: &Arc<Rule>| Policy::parse(Some(PolicyId::new(&rule.id)), &rule.text).expect("it was read once");
        PolicySet::from_policies(self.rules.values().map(read)).expect("ids are unique")
    }
}

impl std::fmt::Debug for Rules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rules").field("policies", &self.rules.keys()).finish_non_exhaustive()
    }
}

/// A policy, with what its place in the slices depends on.
struct Scoped {
    condition: Arc<Condition>,
    reads: Reads,
    /// The only target that its scope lets in; none if it lets in all.
    target: Option<EntityUid>,
    /// Which of [`ACTIONS`] its scope lets in.
    actions: [bool; ACTIONS.len()],
    names_group: bool,
    names_role: bool,
}

impl Scoped {
    fn new(rule: &Arc<Rule>, policy: &Policy, actions: &HashMap<&'static str, Action>) -> Self {
        let target = match policy.resource_constraint() {
            // Targets are in nothing, so `in` is `==`; and every resource is a Target.
            ResourceConstraint::Eq(uid) | ResourceConstraint::In(uid) | ResourceConstraint::IsIn(_, uid) => Some(uid),
            ResourceConstraint::Any | ResourceConstraint::Is(_) => None,
        };
        let scope = policy.action_constraint();
        let fits = |action: &Action| match &scope {
            ActionConstraint::Any => true,
            ActionConstraint::Eq(uid) => *uid == action.uid,
            ActionConstraint::In(groups) => {
                groups.iter().any(|group| action.family.iter().any(|member| member.uid() == *group))
            }
        };
        let literals = policy.entity_literals();
        let names = |kind: &str| literals.iter().any(|literal| literal.type_name().to_string() == kind);
        Self {
            condition: Arc::new(Condition::of(Arc::clone(rule), policy)),
            reads: Reads::of(policy),
            target,
            actions: ACTIONS.map(|name| actions.get(name).is_some_and(fits)),
            names_group: names("Group"),
            names_role: names("Role"),
        }
    }
}

impl Slice {
    fn of(chosen: &[usize], scoped: &[Scoped]) -> Self {
        let chosen = || chosen.iter().map(|&at| &scoped[at]);
        let mut reads = Reads::default();
        chosen().for_each(|one| reads.merge(&one.reads));
        let names_groups = chosen().any(|one| one.names_group);
        Self {
            conditions: chosen().map(|one| Arc::clone(&one.condition)).collect(),
            names_groups,
            names_kin: names_groups || chosen().any(|one| one.names_role),
            reads: Arc::new(reads),
        }
    }
}

/// An entity as a request names it.
pub(super) fn known(uid: &EntityUid) -> EntityUIDEntry {
    EntityUIDEntry::known(uid.as_ref().clone(), None)
}

fn entity(name_of_kind: &str, name: &str) -> Result<EntityUid, String> {
    Ok(EntityUid::from_type_name_and_id(kind(name_of_kind)?, EntityId::new(name)))
}

fn kind(name: &str) -> Result<EntityTypeName, String> {
    name.parse().map_err(|error: cedar_policy::ParseErrors| error.to_string())
}
