//! `[[tenant]]`, `[[issuer]]`, `[names]`, `[people]`, and what a target says of tokens. `[approvers]` and `[login]` are
//! in `login`.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

use http::{HeaderName, HeaderValue};

use super::super::identity::{self, Directory, Identities, IdentitySource, Issuer, Issues, Named, Tenant};
use super::super::raw::{At, Raw, RawDirectory, RawIdentity, RawIssuer, RawPin, RawTarget, RawTenant};
use super::super::{HostPattern, Hostname, Pin};
use super::Resolver;
use crate::ids::{ClientId, ObjectId, PrincipalId, TenantId};

/// Where tokens of the worldwide cloud come from.
const LOGIN: &str = "login.microsoftonline.com";

impl Resolver<'_> {
    pub(super) fn identities(&mut self, raw: &Raw) -> Identities {
        let (mut ids, mut domains, mut names) = (HashSet::new(), HashSet::new(), HashSet::new());
        let tenants = raw.tenant.iter().filter_map(|raw| self.tenant(raw, &mut ids, &mut domains)).collect();
        let issuers = raw.issuer.iter().filter_map(|raw| self.issuer(raw, &mut names)).collect();
        let mut identities = Identities { tenants, issuers, ..Identities::default() };
        for (name, at) in in_order(&raw.names) {
            if let Some(named) = self.named(at, &identities) {
                self.parsed::<crate::ids::WorkloadName>(name, "a name such as `crm-readers`");
                identities.names.insert(name.value().clone(), named);
            }
        }
        for (name, at) in in_order(&raw.people) {
            let uid = self.uid(name.value(), name.span());
            let principal = self.parsed::<PrincipalId>(at, "`<tenant>/<object>`");
            if let (Some(uid), Some(principal)) = (uid, principal)
                && self.known(&principal, at, &identities)
            {
                identities.people.insert(uid, principal);
            }
        }
        identities.login = raw.login.as_ref().and_then(|raw| self.login(raw, &identities));
        self.approvers(raw, &mut identities);
        identities
    }

    fn tenant(
        &mut self,
        raw: &RawTenant,
        ids: &mut HashSet<TenantId>,
        domains: &mut HashSet<Hostname>,
    ) -> Option<Tenant> {
        let id = self.parsed::<TenantId>(&raw.id, "the tenant's id, a GUID");
        if let Some(id) = &id
            && !ids.insert(*id)
        {
            self.wrong(raw.id.span(), format!("there are two tenants `{id}`"), "each tenant once");
        }
        let mut own = Vec::new();
        for at in &raw.domains {
            let Some(domain) = self.parsed::<Hostname>(at, "a domain name such as `contoso.com`") else { continue };
            if domains.insert(domain.clone()) {
                own.push(domain);
            } else {
                self.wrong(at.span(), format!("`{domain}` is listed twice"), "each domain once");
            }
        }
        let login = match &raw.login {
            Some(at) => self.parsed(at, "a host name such as `login.microsoftonline.us`"),
            None => LOGIN.parse().ok(),
        };
        let audiences = raw.audiences.iter().filter_map(|at| self.audience(at)).collect();
        let directory = raw.directory.as_ref().and_then(|at| self.directory(at.value()));
        Some(Tenant { id: id?, domains: own, login: login?, audiences, directory })
    }

    fn directory(&mut self, raw: &RawDirectory) -> Option<Directory> {
        let client = self.parsed::<ClientId>(&raw.client, "the application's id, a GUID");
        let secret_file = self.path(Some(&raw.secret_file), PathBuf::new);
        Some(Directory { client: client?, secret_file })
    }

    fn issuer(&mut self, raw: &RawIssuer, names: &mut HashSet<String>) -> Option<Issuer> {
        let name = self.name(&raw.name, "issuer", names);
        let url = self.https(&raw.url);
        if raw.audiences.value().is_empty() {
            self.wrong(raw.audiences.span(), "the issuer has no audiences", "at least one");
        }
        let audiences = raw.audiences.value().iter().filter_map(|at| self.audience(at)).collect();
        let jwks_uri = raw.jwks_uri.as_ref().and_then(|at| self.https(at)).map(|(url, _)| url);
        let (url, host) = url?;
        Some(Issuer { name: name?, url, host, audiences, jwks_uri })
    }

    /// An https URL with a host name and a path at most; without a final slash.
    fn https(&mut self, at: &At<String>) -> Option<(String, Hostname)> {
        let url = at.value().strip_suffix('/').unwrap_or(at.value());
        let parsed = url.parse::<http::Uri>().ok().filter(|uri| {
            let plain = uri.query().is_none() && uri.authority().is_some_and(|part| !part.as_str().contains('@'));
            uri.scheme_str() == Some("https") && plain && !url.contains('#')
        });
        let host = parsed.and_then(|uri| uri.host().and_then(|host| host.parse().ok()));
        if host.is_none() {
            self.wrong(at.span(), format!("`{}` isn't an issuer's URL", at.value()), "as in `https://id.example.com`");
        }
        Some((url.to_owned(), host?))
    }

    fn audience(&mut self, at: &At<String>) -> Option<String> {
        let audience = at.value();
        if audience.is_empty()
            || audience.len() > 512
            || audience.contains(|c: char| c.is_whitespace() || c.is_control())
        {
            self.wrong(at.span(), format!("`{audience}` isn't an audience"), "as in `api://crm` or a GUID");
            return None;
        }
        Some(audience.clone())
    }

    fn named(&mut self, at: &At<String>, identities: &Identities) -> Option<Named> {
        let text = at.value();
        let named = match text.split_once(':') {
            Some(("group", id)) => tenant_of(id)
                .filter(|(_, rest)| rest.parse::<ObjectId>().is_ok())
                .map(|(tenant, _)| (tenant, Named::Group(id.to_ascii_lowercase()))),
            Some(("role", id)) => tenant_of(id)
                .filter(|(_, rest)| {
                    rest.rsplit_once('/').is_some_and(|(aud, value)| !aud.is_empty() && !value.is_empty())
                })
                .map(|(tenant, _)| (tenant, Named::Role(id.to_owned()))),
            Some(("identity", id)) => {
                if let Ok(principal) = id.parse::<PrincipalId>() {
                    return self.known(&principal, at, identities).then_some(Named::Identity(principal));
                }
                None
            }
            Some(("client", id)) => {
                if let Ok(client) = id.parse() {
                    return Some(Named::Client(client));
                }
                None
            }
            _ => None,
        };
        let Some((tenant, named)) = named else {
            let expected = "`group:<tenant>/<id>`, `role:<tenant>/<audience>/<value>`, `identity:<tenant>/<object>` or \
                            `client:<id>`";
            self.wrong(at.span(), format!("`{text}` names nothing"), expected);
            return None;
        };
        self.listed(tenant, at, identities).then_some(named)
    }

    pub(super) fn listed(&mut self, tenant: TenantId, at: &At<String>, identities: &Identities) -> bool {
        let listed = identities.tenant(tenant).is_some();
        if !listed {
            self.wrong(at.span(), format!("no `[[tenant]]` has the id `{tenant}`"), "an id of a tenant that is listed");
        }
        listed
    }

    /// Whether a principal belongs to a tenant or an issuer that is listed.
    fn known(&mut self, principal: &PrincipalId, at: &At<String>, identities: &Identities) -> bool {
        let realm = principal.realm();
        match realm.parse::<TenantId>() {
            Ok(tenant) => self.listed(tenant, at, identities),
            Err(_) => {
                let known = identities.issuers.iter().any(|issuer| issuer.name.as_str() == realm);
                if !known {
                    self.wrong(
                        at.span(),
                        format!("no `[[issuer]]` is named `{realm}`"),
                        "a name of one that is listed",
                    );
                }
                known
            }
        }
    }

    pub(super) fn source(&mut self, at: &At<RawIdentity>) -> IdentitySource {
        let raw = at.value();
        match (raw.source.value().as_str(), &raw.path) {
            ("observed", None) => IdentitySource::Observed,
            ("token-file", Some(path)) => IdentitySource::TokenFile(self.path(Some(path), PathBuf::new)),
            ("token-file", None) => {
                self.wrong(at.span(), "the source `token-file` has no `path`", "the path of the file with the token");
                IdentitySource::Observed
            }
            ("observed", Some(path)) => {
                self.wrong(path.span(), "the source `observed` reads no file", "no `path`, or the source `token-file`");
                IdentitySource::Observed
            }
            (other, _) => {
                let message = format!("`{other}` isn't a source of tokens");
                self.wrong(raw.source.span(), message, "`observed` or `token-file`");
                IdentitySource::Observed
            }
        }
    }

    /// What a target issues: as it says, or as its hosts do anyway.
    pub(super) fn issues(&mut self, raw: &RawTarget, hosts: &[HostPattern], identities: &Identities) -> Option<Issues> {
        let implied = hosts.iter().find_map(|host| identity::issued_by(host, identities));
        let Some(at) = &raw.identity else {
            if let Some(implied) = &implied {
                self.issues_alone(raw, implied, identities);
            }
            return implied;
        };
        let said = match at.value().as_str() {
            "entra" => Issues::Entra,
            "imds" => Issues::Imds,
            "arc" => Issues::Arc,
            "app-service" => Issues::AppService,
            other => match other.strip_prefix("oidc:") {
                Some(name) if identities.issuers.iter().any(|issuer| issuer.name.as_str() == name) => {
                    Issues::Oidc(name.parse().ok()?)
                }
                Some(name) => {
                    self.wrong(at.span(), format!("no `[[issuer]]` is named `{name}`"), "a name of one that is listed");
                    return implied;
                }
                None => {
                    let expected = "`entra`, `imds`, `arc`, `app-service` or `oidc:NAME`";
                    self.wrong(at.span(), format!("`{other}` isn't a kind of tokens"), expected);
                    return implied;
                }
            },
        };
        if implied.as_ref().is_some_and(|implied| *implied != said) {
            self.wrong(at.span(), format!("its hosts issue other tokens than `{}`", at.value()), "no `identity`");
        }
        Some(said)
    }

    /// What issues tokens takes whatever a client authenticates with, so that no other host is to be in its target unless the
    /// operator says what all of them issue.
    fn issues_alone(&mut self, raw: &RawTarget, implied: &Issues, identities: &Identities) {
        for at in raw.hosts.value() {
            let Ok(pattern) = at.value().parse::<HostPattern>() else { continue };
            let issued = identity::issued_by(&pattern, identities);
            if issued.is_some() && matches!(pattern, HostPattern::Wildcard(_)) {
                let message = format!("`{pattern}` covers a host that issues tokens");
                self.wrong(at.span(), message, "each host by its name; one that issues tokens in a target of its own");
            } else if issued.as_ref() != Some(implied) {
                let message = format!("`{pattern}` doesn't issue the tokens that another host of this target does");
                self.wrong(at.span(), message, "a target of its own");
            }
        }
    }

    pub(super) fn target_audiences(&mut self, raw: &RawTarget, hosts: &[HostPattern]) -> Vec<String> {
        let mut audiences = identity::audiences_of(hosts);
        let named = raw.audiences.iter().filter_map(|at| self.audience(at));
        audiences.extend(named.map(|audience| identity::audience(&audience)));
        audiences
    }

    pub(super) fn accept_foreign(&mut self, raw: &RawTarget) -> Vec<String> {
        let mut accepted = Vec::new();
        for at in &raw.accept_foreign {
            let name = at.value().strip_prefix('?').unwrap_or(at.value());
            let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'-' | b'_' | b'$' | b'.');
            if name.is_empty() || !name.bytes().all(plain) {
                let expected = "a scheme (`basic`), a header (`x-api-key`) or a query key (`?sig`), in lower case";
                self.wrong(at.span(), format!("`{}` names no credential", at.value()), expected);
            } else {
                accepted.push(at.value().clone());
            }
        }
        accepted
    }

    pub(super) fn pin(&mut self, raw: Option<&RawPin>) -> Pin {
        let Some(raw) = raw else { return Pin::default() };
        let mut pin = Pin::default();
        for (name, value) in in_order(&raw.headers) {
            let field = self.parsed::<HeaderName>(name, "the name of a header field");
            match (field, HeaderValue::from_str(value.value())) {
                (Some(field), Ok(value)) => pin.headers.push((field, value)),
                (_, Err(_)) => self.wrong(value.span(), "that can't be a header's value", "visible ASCII characters"),
                (None, _) => {}
            }
        }
        if let Some(at) = &raw.path_prefix {
            let prefix = at.value();
            if !prefix.starts_with('/') || !prefix.ends_with('/') || prefix.contains(['?', '#', '%', ';', '\\']) {
                self.wrong(at.span(), format!("`{prefix}` isn't the beginning of a path"), "as in `/v1.0/`");
            }
            pin.path_prefix = Some(prefix.clone());
        }
        pin
    }
}

pub(super) fn tenant_of(id: &str) -> Option<(TenantId, &str)> {
    let (tenant, rest) = id.split_once('/')?;
    Some((tenant.parse().ok()?, rest))
}

/// A table in the order of the file, so that the first mistake is told first.
pub(super) fn in_order<T>(table: &BTreeMap<At<String>, T>) -> Vec<(&At<String>, &T)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    entries
}
