//! What the daemon decides on: as many policies as a measure wants, of which a request is asked the same ten.

use std::fmt::Write;

/// How many there are where nothing else is said.
pub(crate) const USUAL: usize = 200;
/// The fewest with tokens: the slice, and the ways.
pub(crate) const FEWEST: usize = 14;
/// Of what is beside the slice, so many policies are for one target; there are at least [`TARGETS`].
const EACH: usize = 50;
/// The least of targets, those that are asked for included.
const TARGETS: usize = 20;

/// The policies of a daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Policies {
    /// One: it permits what is asked for, to everybody.
    One,
    /// One that wants a token which was seen issued, and those that let it be issued.
    Bound,
    /// So many, of which a request is decided on ten; at least [`FEWEST`].
    Many(usize),
}

const ONE: &str = r#"
@id("graph")
permit (principal, action in [Action::"reach", Action::"http:read"], resource == Target::"graph");
"#;

/// The first of the slice, for itself.
const USERS: &str = r#"
@id("users") @mask("people")
permit (principal, action in Action::"http:read", resource == Target::"graph")
  when { context.http.s1 == "users" && context.base.credential == "entra" && context.base.bound == "issued-here" };
"#;

/// What a GET of the API is decided on, with [`USERS`]: these make ten.
const REST: &str = r#"
@id("reports") @mask("people")
permit (principal, action in Action::"http:read", resource == Target::"graph")
  when { context.http.s1 == "reports" && context.base.credential == "entra" && context.base.bound == "issued-here" };
@id("scans") @mask("everything")
permit (principal, action in Action::"http:read", resource == Target::"graph")
  when { context.http.s1 == "scans" && context.base.credential == "entra" && context.base.bound == "issued-here" };
@id("drive")
permit (principal, action in Action::"http:read", resource == Target::"graph")
  when { context.http.s1 == "drive" && context.base.credential == "entra" && context.base.bound == "issued-here" };
@id("no-messages") forbid (principal, action in Action::"http", resource == Target::"graph")
  when { context.http.segments > 3 && context.http.s3 == "messages" };
@id("no-search") forbid (principal, action in Action::"http", resource == Target::"graph")
  when { context.http.query.hasTag("$search") };
@id("no-beta") forbid (principal, action in Action::"http", resource == Target::"graph")
  when { context.http.path like "/beta/*" };
@id("quarantine") forbid (principal, action in Action::"http", resource == Target::"graph")
  when { context.base.classes.contains("quarantined") };
@id("no-agents") forbid (principal, action in Action::"http", resource == Target::"graph")
  when { context.base.kind == "agent-user" };
@id("while-it-lasts") forbid (principal, action in Action::"http", resource == Target::"graph")
  when { context.base.now > datetime("2099-01-01") };
"#;

/// The ways there.
const WAYS: &str = r#"
@id("graph-reach") permit (principal, action in Action::"reach", resource == Target::"graph");
@id("entra-reach") permit (principal, action in Action::"reach", resource == Target::"entra");
@id("sign-in") permit (principal, action in Action::"http:read", resource == Target::"entra");
@id("tokens") permit (principal, action == Action::"token:request", resource == Target::"graph");
"#;

impl Policies {
    /// Whether tokens are looked at.
    pub(crate) fn ask_for_tokens(self) -> bool {
        self != Self::One
    }

    /// Targets besides the one that is asked for and the one that issues tokens.
    pub(crate) fn others(self) -> usize {
        match self {
            Self::One | Self::Bound => 0,
            Self::Many(count) => (count / EACH).max(TARGETS) - 2,
        }
    }

    /// Their text, with the masks or without them.
    pub(crate) fn text(self, is_masked: bool) -> String {
        let mut text = match self {
            Self::One => ONE.to_owned(),
            Self::Bound => USERS.to_owned() + WAYS,
            Self::Many(_) => USERS.to_owned() + REST + WAYS,
        };
        if !is_masked {
            text = text.replace("@mask(\"people\")", "").replace("@mask(\"everything\")", "");
        }
        let Self::Many(count) = self else { return text };
        let others = self.others();
        for number in FEWEST..count {
            let (target, kind) = (number % others, number / others % 2);
            let (effect, condition) = match kind {
                0 => {
                    let collection = format!("context.http.s1 == \"collection{number}\"");
                    ("permit", format!("{collection} && context.base.credential == \"entra\""))
                }
                _ => ("forbid", format!("context.http.path like \"/v1.0/*/private{number}/*\"")),
            };
            // Writing to a string can't fail.
            let _ = writeln!(
                text,
                "@id(\"p{number}\") {effect} (principal, action in Action::\"http:read\", resource == \
                 Target::\"t{target}\") when {{ {condition} }};"
            );
        }
        text
    }
}

#[cfg(test)]
mod tests;
