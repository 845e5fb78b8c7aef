//! `[[mask]]`, and the masks that a target names.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use http::header::{self, HeaderName};

use super::super::raw::{RawMask, RawTarget};
use super::super::{ConfigError, JsonPath, Mask, Rule, Rules, Strategy, Trust};
use super::Resolver;
use crate::ids::MaskName;

impl Resolver<'_> {
    pub(super) fn masks(&mut self, raw: &[RawMask], trust: Trust) -> Result<Vec<Arc<Mask>>, ConfigError> {
        // Most commands read a configuration without looking for anything.
        let detects = raw.iter().any(|raw| !raw.detect.is_empty() || raw.rules.is_some());
        let builtin = if detects { Rules::builtin()? } else { Rules::default() };
        let mut names = HashSet::new();
        let mut masks = Vec::new();
        for raw in raw {
            let own = match &raw.rules {
                Some(at) => {
                    let before = self.collector.count();
                    let path = self.path(Some(at), PathBuf::new);
                    // A path that was refused isn't opened.
                    if self.collector.count() == before { Rules::load(&path, trust)? } else { Rules::default() }
                }
                None => Rules::default(),
            };
            if let (Some(rule), Some(at)) =
                (own.iter().find(|rule| builtin.named(&rule.id).next().is_some()), &raw.rules)
            {
                self.wrong(
                    at.span(),
                    format!("its rule `{}` is the name of a built-in one", rule.id),
                    "another id in it",
                );
            }
            masks.extend(self.mask(raw, &builtin, &own, &mut names).map(Arc::new));
        }
        Ok(masks)
    }

    fn mask(&mut self, raw: &RawMask, builtin: &Rules, own: &Rules, names: &mut HashSet<String>) -> Option<Mask> {
        let name = self.name::<MaskName>(&raw.name, "mask", names);
        let strategy = match raw.strategy.as_ref().map(|at| (at.value().as_str(), at.span())) {
            None | Some(("redact", _)) => Strategy::Redact,
            Some(("partial", _)) => Strategy::Partial,
            Some(("pseudonym", _)) => Strategy::Pseudonym,
            Some(("drop", _)) => Strategy::Drop,
            Some((other, span)) => {
                let message = format!("`{other}` isn't a strategy");
                self.wrong(span, message, "`redact`, `partial`, `pseudonym` or `drop`");
                Strategy::Redact
            }
        };
        if raw.json.is_empty() && raw.detect.is_empty() && raw.headers.is_empty() {
            self.wrong(raw.name.span(), "the mask masks nothing", "at least one of `json`, `detect` and `headers`");
        }
        let expected = "a JSONPath such as `$..mail` or `$.value[*].phone`";
        let json: Vec<JsonPath> = raw.json.iter().filter_map(|at| self.parsed(at, expected)).collect();
        let mut detect: Vec<Arc<Rule>> = Vec::new();
        for at in &raw.detect {
            let found: Vec<_> = own.named(at.value()).chain(builtin.named(at.value())).cloned().collect();
            if found.is_empty() {
                let names: Vec<_> =
                    own.names().into_iter().chain(builtin.names()).map(|name| format!("`{name}`")).collect();
                let message = format!("there is no detector `{}`", at.value());
                self.wrong(at.span(), message, format!("one of {}", names.join(", ")));
            }
            let fresh: Vec<_> = found.into_iter().filter(|rule| detect.iter().all(|had| had.id != rule.id)).collect();
            detect.extend(fresh);
        }
        let mut headers: Vec<HeaderName> = Vec::new();
        for at in &raw.headers {
            let Some(field) = self.parsed::<HeaderName>(at, "a header's name") else { continue };
            if [header::CONTENT_TYPE, header::CONTENT_ENCODING, header::CONTENT_LENGTH].contains(&field) {
                let message = format!("`{field}` says how the body is read, so that it can't be masked");
                self.wrong(at.span(), message, "another header");
                continue;
            }
            headers.push(field);
        }
        let mut deny_query: Vec<Box<str>> = Vec::new();
        for at in &raw.deny_query {
            if at.value().is_empty() || !at.value().bytes().all(|c| c.is_ascii_graphic()) {
                let message = format!("`{}` isn't a name in a query", at.value().escape_debug());
                self.wrong(at.span(), message, "a field's name such as `mail`, or a parameter's such as `$search`");
                continue;
            }
            deny_query.push(at.value().as_str().into());
        }
        Some(Mask { name: name?, json, detect, strategy, headers, deny_query })
    }

    /// The masks that the target names, sorted.
    pub(super) fn masks_of(&mut self, raw: &RawTarget, masks: &[Arc<Mask>]) -> Vec<MaskName> {
        let mut names = Vec::new();
        for at in &raw.mask {
            match masks.iter().find(|mask| mask.name.as_str() == at.value()) {
                Some(mask) => names.push(mask.name.clone()),
                None => {
                    let message = format!("no `[[mask]]` is named `{}`", at.value());
                    let known: Vec<_> = masks.iter().map(|mask| format!("`{}`", mask.name)).collect();
                    let expected = match known.as_slice() {
                        [] => "a `[[mask]]` of this name".to_owned(),
                        known => format!("one of {}", known.join(", ")),
                    };
                    self.wrong(at.span(), message, expected);
                }
            }
        }
        names.sort();
        names.dedup();
        names
    }
}
