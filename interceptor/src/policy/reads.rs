//! What policies look at of the context. A question is put with no more than the policies of its slice look at: each
//! attribute costs an expression that Cedar evaluates, and most are of no interest to most policies.

use std::collections::{BTreeMap, BTreeSet};

use cedar_policy::Policy;
use serde_json::Value;

/// What policies look at of the context.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Reads {
    /// Whether one of them takes the context as a whole, so that all of it counts.
    everything: bool,
    /// By record: `base`, `http`, ….
    records: BTreeMap<String, Fields>,
}

/// What they look at of one record of the context.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Fields {
    all: bool,
    named: BTreeSet<String>,
}

/// One record of the context, as policies look at it.
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'a> {
    everything: bool,
    fields: Option<&'a Fields>,
}

/// For those who want to see all of a question.
pub(super) static EVERYTHING: Reads = Reads { everything: true, records: BTreeMap::new() };

impl Reads {
    /// What this policy looks at. What can't be read in Cedar's JSON format looks at everything, as far as we know.
    pub(super) fn of(policy: &Policy) -> Self {
        let mut reads = Self::default();
        match policy.to_json() {
            Ok(json) => reads.visit(&json["conditions"]),
            Err(_unreadable) => reads.everything = true,
        }
        reads
    }

    /// What both look at.
    pub(super) fn merge(&mut self, other: &Self) {
        self.everything |= other.everything;
        for (record, fields) in &other.records {
            let into = self.records.entry(record.clone()).or_default();
            into.all |= fields.all;
            into.named.extend(fields.named.iter().cloned());
        }
    }

    /// One record of the context.
    pub(super) fn view(&self, record: &str) -> View<'_> {
        View { everything: self.everything, fields: self.records.get(record) }
    }

    /// Goes through an expression. Only where the context is followed by one attribute, or by two, it is known what of it
    /// counts.
    fn visit(&mut self, expression: &Value) {
        if let Some(path) = path(expression) {
            match &path[..] {
                [] => self.everything = true,
                [record] => self.fields(record).all = true,
                [record, field, ..] => {
                    let field = (*field).to_owned();
                    self.fields(record).named.insert(field);
                }
            }
            return;
        }
        // `context has http`: a record is always there, or never, whatever is in it.
        if let Some(has) = expression.get("has")
            && let (Some(mut path), Some(attributes)) = (path(&has["left"]), attributes(&has["attr"]))
        {
            path.extend(attributes);
            if let [record, field, ..] = path[..] {
                let field = field.to_owned();
                self.fields(record).named.insert(field);
            }
            return;
        }
        match expression {
            Value::Array(items) => items.iter().for_each(|item| self.visit(item)),
            Value::Object(members) => members.values().for_each(|member| self.visit(member)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn fields(&mut self, record: &str) -> &mut Fields {
        self.records.entry(record.to_owned()).or_default()
    }
}

impl View<'_> {
    /// Whether this attribute of the record counts.
    pub(super) fn has(self, field: &str) -> bool {
        self.everything || self.fields.is_some_and(|fields| fields.all || fields.named.contains(field))
    }
}

/// The attributes after `context`, from the first on; none if the expression doesn't begin there.
fn path(expression: &Value) -> Option<Vec<&str>> {
    if expression.get("Var").and_then(Value::as_str) == Some("context") {
        return Some(Vec::new());
    }
    let get = expression.get(".")?;
    let mut path = path(&get["left"])?;
    path.push(get["attr"].as_str()?);
    Some(path)
}

/// `x has a`, and `x has a.b`.
fn attributes(json: &Value) -> Option<Vec<&str>> {
    match json {
        Value::String(one) => Some(vec![one]),
        Value::Array(several) => several.iter().map(Value::as_str).collect(),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
