//! Annotations: what a policy says beside its condition. `@id` and `@reason` describe; the others oblige whoever acts on
//! a permit. An obligation that isn't built yet is read and judged like the others, and a permit that carries one denies.

use cedar_policy::{Effect, Policy};

use super::Width;
use super::fault::Wrong;
use crate::config::PayloadLevel;
use crate::ids::MaskName;

/// What a policy's annotations say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Annotations {
    pub(super) id: Option<String>,
    pub(super) reason: Option<String>,
    /// In seconds.
    pub(super) max_session: Option<u64>,
    pub(super) record: Option<PayloadLevel>,
    pub(super) masks: Vec<MaskName>,
    pub(super) approval: Option<Approval>,
    /// `@always`: it forbids also while the glass is broken.
    pub(super) always: bool,
}

/// What `@approval`, `@confirm` and the annotations that go with them say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Approval {
    /// Whose members answer.
    pub(super) group: Option<String>,
    /// What the initiator is asked.
    pub(super) confirm: Option<String>,
    /// How many of them.
    pub(super) approvals: Option<u64>,
    /// How long they have, in seconds.
    pub(super) within: Option<u64>,
    /// How long their yes lasts, in seconds.
    pub(super) grant_for: Option<u64>,
    pub(super) grant_uses: Option<u64>,
    pub(super) grant_scope: Option<Width>,
}

/// What an annotation's value has to be.
#[derive(Clone, Copy)]
enum Shape {
    Id,
    Sentence,
    Duration,
    Count(u64),
    Names,
    OneOf(&'static [&'static str], &'static str),
    Nothing,
}

struct Known {
    name: &'static str,
    shape: Shape,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Describes a policy of either effect.
    Describes,
    /// Obliges; on permits only.
    Obliges,
    /// Strengthens; on forbids only.
    Forbids,
    /// Says more of an `@approval`, which has to be there.
    Approves,
    /// Says more of an `@approval` or a `@confirm`, one of which has to be there.
    Holds,
}

const fn known(name: &'static str, shape: Shape, kind: Kind) -> Known {
    Known { name, shape, kind }
}

const KNOWN: [Known; 13] = [
    known("id", Shape::Id, Kind::Describes),
    known("reason", Shape::Sentence, Kind::Describes),
    known("max_session", Shape::Duration, Kind::Obliges),
    known("approval", Shape::Sentence, Kind::Obliges),
    known("approvals", Shape::Count(100), Kind::Approves),
    known("approval_within", Shape::Duration, Kind::Holds),
    known("confirm", Shape::Sentence, Kind::Obliges),
    known("grant_for", Shape::Duration, Kind::Holds),
    known("grant_uses", Shape::Count(1_000_000), Kind::Holds),
    known(
        "grant_scope",
        Shape::OneOf(&["operation", "shape", "action", "target"], "`operation`, `shape`, `action` or `target`"),
        Kind::Holds,
    ),
    known("mask", Shape::Names, Kind::Obliges),
    known("always", Shape::Nothing, Kind::Forbids),
    known("record", Shape::OneOf(&["full", "headers", "none"], "`full`, `headers` or `none`"), Kind::Obliges),
];

impl Annotations {
    /// Reads a policy's annotations; each fault comes with the name of the annotation it is about.
    pub(super) fn read(policy: &Policy) -> Result<Self, Vec<(String, Wrong, Option<String>)>> {
        let mut read = Self::default();
        let mut faults = Vec::new();
        let mut approval = Approval::default();
        for (name, value) in policy.annotations() {
            let Some(known) = KNOWN.iter().find(|known| known.name == name) else {
                let wrong = Wrong::Annotation(format!("`@{name}` isn't an annotation"));
                let names: Vec<_> = KNOWN.iter().map(|known| format!("@{}", known.name)).collect();
                faults.push((name.to_owned(), wrong, Some(format!("the annotations are {}", names.join(", ")))));
                continue;
            };
            if policy.effect() == Effect::Permit && known.kind == Kind::Forbids {
                let wrong = Wrong::Annotation(format!("`@{name}` is for policies that forbid, and this one permits"));
                faults.push((name.to_owned(), wrong, Some("remove it".into())));
                continue;
            }
            if policy.effect() == Effect::Forbid && !matches!(known.kind, Kind::Describes | Kind::Forbids) {
                let wrong = Wrong::Annotation(format!("`@{name}` obliges who is permitted, and this policy forbids"));
                faults.push((name.to_owned(), wrong, Some("move it to the permit, or remove it".into())));
                continue;
            }
            let is_alone = match known.kind {
                Kind::Approves => policy.annotation("approval").is_none(),
                Kind::Holds => policy.annotation("approval").or(policy.annotation("confirm")).is_none(),
                Kind::Describes | Kind::Obliges | Kind::Forbids => false,
            };
            if is_alone {
                let wrong = Wrong::Annotation(format!("`@{name}` says more of an `@approval`, and there is none"));
                faults.push((name.to_owned(), wrong, Some("add `@approval(\"GROUP\")`, or remove it".into())));
                continue;
            }
            if let Err(expected) = known.shape.judge(value) {
                let wrong = Wrong::Value { name: known.name, value: value.escape_debug().to_string(), expected };
                faults.push((name.to_owned(), wrong, None));
                continue;
            }
            match known.name {
                "id" => read.id = Some(value.to_owned()),
                "reason" => read.reason = Some(value.to_owned()),
                "max_session" => read.max_session = duration(value),
                "record" => read.record = value.parse().ok(),
                "approval" => approval.group = Some(value.to_owned()),
                "confirm" => approval.confirm = Some(value.to_owned()),
                "approvals" => approval.approvals = value.parse().ok(),
                "approval_within" => approval.within = duration(value),
                "grant_for" => approval.grant_for = duration(value),
                "grant_uses" => approval.grant_uses = value.parse().ok(),
                "grant_scope" => approval.grant_scope = Width::of(value),
                "always" => read.always = true,
                _ => read.masks = names(value).filter_map(Result::ok).collect(),
            }
        }
        read.approval = Some(approval).filter(|approval| approval.group.is_some() || approval.confirm.is_some());
        if faults.is_empty() { Ok(read) } else { Err(faults) }
    }
}

impl Shape {
    fn judge(self, value: &str) -> Result<(), &'static str> {
        let (fits, expected) = match self {
            Shape::Id => (is_id(value), "an id: 1 to 64 of a-z, A-Z, 0-9, `.`, `-` and `_`"),
            Shape::Sentence => (
                (1..=500).contains(&value.chars().count())
                    && value.trim() == value
                    && !value.chars().any(char::is_control),
                "a text of 1 to 500 characters in one line, without white space at its ends",
            ),
            Shape::Duration => (
                duration(value).is_some(),
                "a duration such as `90s`, `15m`, `8h` or `1h30m`, from 1 second to 30 days",
            ),
            Shape::Count(most) => (
                value.bytes().all(|c| c.is_ascii_digit())
                    && value.parse().is_ok_and(|count: u64| (1..=most).contains(&count)),
                if most == 100 { "a count from 1 to 100" } else { "a count from 1 to 1000000" },
            ),
            Shape::Names => (names(value).all(|name| name.is_ok()), "a list of names, separated by commas"),
            Shape::OneOf(values, expected) => (values.contains(&value), expected),
            Shape::Nothing => (value.is_empty(), "nothing: it stands alone"),
        };
        if fits { Ok(()) } else { Err(expected) }
    }
}

fn names(value: &str) -> impl Iterator<Item = Result<MaskName, crate::ids::IdError>> {
    value.split(',').map(|name| name.trim().parse())
}

fn is_id(value: &str) -> bool {
    (1..=64).contains(&value.len()) && value.bytes().all(|c| c.is_ascii_alphanumeric() || b".-_".contains(&c))
}

/// Reads `1d2h3m4s`: whole numbers with falling units, in all 1 second to 30 days. In seconds.
fn duration(value: &str) -> Option<u64> {
    let mut rest = value;
    let mut total: u64 = 0;
    for (unit, seconds) in [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)] {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        if let Some(after) = rest[digits..].strip_prefix(unit) {
            let count: u64 = rest[..digits].parse().ok()?;
            total = total.checked_add(count.checked_mul(seconds)?)?;
            rest = after;
        }
    }
    (rest.is_empty() && (1..=30 * 86_400).contains(&total)).then_some(total)
}
