//! `[login]` and `[approvers]`.

use super::super::identity::{Approvers, Identities, Login, Required};
use super::super::raw::{At, Raw, RawLogin};
use super::identities::{in_order, tenant_of};
use super::{Resolver, ms};
use crate::ids::{ClientId, ObjectId, PrincipalId, TenantId, WorkloadName};

impl Resolver<'_> {
    pub(super) fn login(&mut self, raw: &RawLogin, identities: &Identities) -> Option<Login> {
        let tenant = self.parsed::<TenantId>(&raw.tenant, "the tenant's id, a GUID");
        let tenant = tenant.filter(|tenant| self.listed(*tenant, &raw.tenant, identities));
        let client = self.parsed::<ClientId>(&raw.client, "the application's id, a GUID");
        let required = match raw.required.as_ref().map(|at| (at.value().as_str(), at.span())) {
            None | Some(("none", _)) => Required::None,
            Some(("login", _)) => Required::Login,
            Some(("bound", _)) => Required::Bound,
            Some((other, span)) => {
                self.wrong(span, format!("`{other}` isn't what an answer can need"), "`none`, `login` or `bound`");
                Required::Bound
            }
        };
        let lasts = self.duration(raw.lasts.as_ref(), "8h", ms(60_000)..=ms(24 * 3_600_000));
        Some(Login { tenant: tenant?, client: client?, required, lasts })
    }

    pub(super) fn approvers(&mut self, raw: &Raw, identities: &mut Identities) {
        let has_login = raw.login.is_some();
        for (name, members) in in_order(&raw.approvers) {
            self.parsed::<WorkloadName>(name, "a name such as `crm-approvers`");
            let mut approvers = Approvers::default();
            for at in members {
                self.member(at, identities, &mut approvers, has_login);
            }
            identities.approvers.insert(name.value().clone(), approvers);
        }
    }

    fn member(&mut self, at: &At<String>, identities: &Identities, approvers: &mut Approvers, has_login: bool) {
        let Some((kind, id)) = at.value().split_once(':') else {
            approvers.uids.extend(self.local(at.value(), at, identities));
            return;
        };
        match kind {
            "user" => return approvers.uids.extend(self.local(id, at, identities)),
            // Those of Entra have their tenant before their id.
            "group" if !id.contains('/') => return approvers.gids.extend(self.gid(id, at.span())),
            _ => {}
        }
        let found = match kind {
            "identity" => {
                id.parse::<PrincipalId>().ok().and_then(|id| Some((id.realm().parse().ok()?, id.to_string())))
            }
            "group" => tenant_of(id)
                .filter(|(_, rest)| rest.parse::<ObjectId>().is_ok())
                .map(|(tenant, _)| (tenant, id.to_ascii_lowercase())),
            _ => None,
        };
        let Some((tenant, id)): Option<(TenantId, String)> = found else {
            let expected = "a local user or `group:NAME`, `identity:<tenant>/<object>` or `group:<tenant>/<id>`";
            self.wrong(at.span(), format!("`{}` is no approver", at.value()), expected);
            return;
        };
        if !has_login {
            let message = format!("`{}` would have to sign in", at.value());
            self.wrong(at.span(), message, "a table `[login]`, or local users only");
        } else if identities.login.as_ref().is_some_and(|login| login.tenant != tenant) {
            let message = format!("`{}` is of another tenant than people sign in to", at.value());
            self.wrong(at.span(), message, "one of the tenant of `[login]`");
        }
        if kind == "group" {
            approvers.groups.insert(id);
        } else if let Ok(person) = id.parse() {
            approvers.people.insert(person);
        }
    }

    /// A local user who answers has to be known by more than a uid.
    fn local(&mut self, name: &str, at: &At<String>, identities: &Identities) -> Option<u32> {
        let uid = self.uid(name, at.span())?;
        if !identities.people.contains_key(&uid) {
            let message = format!("`{}` isn't in `[people]`", at.value());
            self.wrong(at.span(), message, "a local user of whom `[people]` says who that is");
            return None;
        }
        Some(uid)
    }
}
