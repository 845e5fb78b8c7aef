//! The policies of a snapshot, indexed by target and action. Cedar's scope tests can't err and come before `when`, so a
//! policy whose scope excludes a target or an action can be left out of its slice without changing any verdict; one
//! without such a scope stands in every slice. Slices that are alike are kept once.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

#[cfg(test)]
use cedar_policy::PolicySet;
use cedar_policy::{
    ActionConstraint, Entities, Entity, EntityId, EntityTypeName, EntityUid, Policy, ResourceConstraint, Schema,
};
use cedar_policy_core::ast::EntityUIDEntry;

use super::annotation::Annotations;
use super::condition::Condition;
use super::reads::Reads;
use crate::config::{Settings, Target};
use crate::ids::{TargetName, WorkloadName};

/// One policy, with what decisions and people want to know of it.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub(super) policy: Policy,
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
    nobody: EntityUid,
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
    pub(super) fn new(rules: Vec<Rule>, schema: &Schema, settings: &Settings) -> Result<Self, String> {
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
        let reads_of: Vec<_> = rules.iter().map(|rule| Reads::of(&rule.policy)).collect();
        let rules: Vec<_> = rules.into_iter().map(Arc::new).collect();
        let conditions: Vec<_> = rules.iter().map(|rule| Arc::new(Condition::of(Arc::clone(rule)))).collect();
        let mut alike: HashMap<Vec<usize>, Slice> = HashMap::new();
        let mut targets = HashMap::new();
        for target in settings.targets.iter() {
            let uid = entity("Target", target.name.as_str())?;
            let mut slices = Vec::with_capacity(ACTIONS.len());
            for name in ACTIONS {
                let action = &actions[name];
                let chosen: Vec<_> = rules
                    .iter()
                    .enumerate()
                    .filter(|(_, rule)| fits_action(&rule.policy, action) && fits_target(&rule.policy, &uid))
                    .map(|(at, _)| at)
                    .collect();
                let slice = match alike.get(&chosen) {
                    Some(slice) => slice.clone(),
                    None => {
                        let names = |kind: &str| chosen.iter().any(|&at| names(&rules[at].policy, kind));
                        let names_groups = names("Group");
                        let names_kin = names_groups || names("Role");
                        let mut reads = Reads::default();
                        chosen.iter().for_each(|&at| reads.merge(&reads_of[at]));
                        let reads = Arc::new(reads);
                        let conditions = chosen.iter().map(|&at| Arc::clone(&conditions[at])).collect();
                        let slice = Slice { conditions, names_groups, names_kin, reads };
                        alike.insert(chosen, slice.clone());
                        slice
                    }
                };
                slices.push(slice);
            }
            let (settings, entry) = (Arc::clone(target), known(&uid));
            targets.insert(target.name.clone(), TargetRules { settings, entry, slices });
        }
        let mut workloads = HashMap::new();
        for workload in &settings.workloads {
            workloads.insert(workload.name.clone(), entity("Workload", workload.name.as_str())?);
        }
        Ok(Self {
            rules: rules.into_iter().map(|rule| (rule.id.clone(), rule)).collect(),
            actions,
            targets,
            workloads,
            nobody: entity("Identity", "none")?,
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
    pub(super) fn nobody(&self) -> &EntityUid {
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
        PolicySet::from_policies(self.rules.values().map(|rule| rule.policy.clone())).expect("ids are unique")
    }
}

impl std::fmt::Debug for Rules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rules").field("policies", &self.rules.keys()).finish_non_exhaustive()
    }
}

fn names(policy: &Policy, kind: &str) -> bool {
    policy.entity_literals().iter().any(|literal| literal.type_name().to_string() == kind)
}

fn fits_action(policy: &Policy, action: &Action) -> bool {
    match policy.action_constraint() {
        ActionConstraint::Any => true,
        ActionConstraint::Eq(uid) => uid == action.uid,
        ActionConstraint::In(groups) => {
            groups.iter().any(|group| action.family.iter().any(|member| member.uid() == *group))
        }
    }
}

fn fits_target(policy: &Policy, target: &EntityUid) -> bool {
    match policy.resource_constraint() {
        // Targets are in nothing, so `in` is `==`; and every resource is a Target.
        ResourceConstraint::Eq(uid) | ResourceConstraint::In(uid) | ResourceConstraint::IsIn(_, uid) => uid == *target,
        ResourceConstraint::Any | ResourceConstraint::Is(_) => true,
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
