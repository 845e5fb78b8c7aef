//! Policies made ready for Cedar's evaluator. Cedar's authorizer puts each policy's condition together anew for each
//! question, scope tests and all; here that is done once, without the tests that hold for the whole slice. What follows
//! from the conditions is Cedar's: a test holds the two against each other.

use std::collections::HashMap;
use std::sync::Arc;

use cedar_policy::{Effect, Policy, PrincipalConstraint};
use cedar_policy_core::ast::{EntityUID, Expr, Literal, PolicyID, SlotEnv, Value, ValueKind, Var};
use cedar_policy_core::authorizer::AuthorizationError;
use cedar_policy_core::evaluator::Evaluator;
use cedar_policy_core::extensions::Extensions;

use super::ask::Ask;
use super::rules::Rule;

/// A policy with what is left of its condition in a slice: who asks, and `when` and `unless`. That the action and the
/// target are those of its scope holds for every question of the slice.
#[derive(Debug)]
pub(super) struct Condition {
    pub(super) rule: Arc<Rule>,
    expression: Expr,
    slots: SlotEnv,
}

/// What the policies of a slice say to a question.
#[derive(Debug, Default)]
pub(super) struct Said<'a> {
    /// The permits that are satisfied.
    pub(super) permits: Vec<&'a Rule>,
    /// The forbids that are satisfied.
    pub(super) forbids: Vec<&'a Rule>,
    /// The ids of those whose evaluation erred, and how.
    pub(super) errors: Vec<(String, String)>,
}

impl Condition {
    pub(super) fn of(rule: Arc<Rule>, policy: &Policy) -> Self {
        let asks = principal(&policy.principal_constraint());
        let when = policy.as_ref().non_scope_constraints().cloned();
        let expression = match (asks, when) {
            (Some(asks), Some(when)) => Expr::and(asks, when),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => Expr::val(true),
        };
        // Policies here are no templates: they have no slots.
        Self { rule, expression, slots: HashMap::default() }
    }

    /// Whether it is satisfied.
    ///
    /// # Errors
    /// How its evaluation erred.
    pub(super) fn is_satisfied(&self, evaluator: &Evaluator<'_>) -> Result<bool, String> {
        match evaluator.interpret(&self.expression, &self.slots) {
            Ok(Value { value: ValueKind::Lit(Literal::Bool(satisfied)), .. }) => Ok(satisfied),
            Ok(other) => {
                Err(format!("while evaluating policy `{}`: `{other}` is neither true nor false", self.rule.id))
            }
            Err(error) => {
                let id = PolicyID::from_string(&self.rule.id);
                Err(AuthorizationError::PolicyEvaluationError { id, error }.to_string())
            }
        }
    }
}

/// What the policies of its slice say to a question.
pub(super) fn ask<'a>(ask: &Ask<'a>) -> Said<'a> {
    let evaluator = evaluator(ask);
    let mut said = Said::default();
    for condition in ask.slice {
        let rule = &*condition.rule;
        match condition.is_satisfied(&evaluator) {
            Ok(true) if rule.effect == Effect::Permit => said.permits.push(rule),
            Ok(true) => said.forbids.push(rule),
            Ok(false) => {}
            Err(text) => said.errors.push((rule.id.clone(), text)),
        }
    }
    said
}

/// Cedar's evaluator with a question.
pub(super) fn evaluator<'b>(ask: &'b Ask<'_>) -> Evaluator<'b> {
    Evaluator::new(ask.request.clone(), (*ask.entities).as_ref(), Extensions::all_available())
}

/// The scope's test of who asks; none where it tests nothing.
fn principal(scope: &PrincipalConstraint) -> Option<Expr> {
    let principal = || Expr::var(Var::Principal);
    let uid = |uid: &cedar_policy::EntityUid| Expr::val(EntityUID::clone(uid.as_ref()));
    let is = |kind: &cedar_policy::EntityTypeName| Expr::is_entity_type(principal(), kind.as_ref().clone());
    match scope {
        PrincipalConstraint::Any => None,
        PrincipalConstraint::Eq(one) => Some(Expr::is_eq(principal(), uid(one))),
        PrincipalConstraint::In(group) => Some(Expr::is_in(principal(), uid(group))),
        PrincipalConstraint::Is(kind) => Some(is(kind)),
        PrincipalConstraint::IsIn(kind, group) => Some(Expr::and(is(kind), Expr::is_in(principal(), uid(group)))),
    }
}
