//! Whose tokens are accepted: tenants and issuers, a closed list; what ids are called; who answers and how people sign
//! in; what audiences belong to which hosts. Not here: reading or judging a token (`identity`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use super::{Host, HostPattern, Hostname};
use crate::ids::{ClientId, IssuerName, PrincipalId, TenantId};

/// Whose tokens are accepted, and what their ids are called.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identities {
    /// The Entra tenants; no other's tokens are accepted.
    pub tenants: Vec<Tenant>,
    /// Other OIDC providers.
    pub issuers: Vec<Issuer>,
    /// What ids are called, by name.
    pub names: BTreeMap<String, Named>,
    /// Who local users are, by uid.
    pub people: BTreeMap<u32, PrincipalId>,
    /// Who answers held operations, by the name that `@approval` has.
    pub approvers: BTreeMap<String, Approvers>,
    /// How people sign in; none: they can't, and are known by their uid alone.
    pub login: Option<Login>,
}

/// Who answers for one group of approvers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Approvers {
    /// Local users; each is in [`Identities::people`].
    pub uids: BTreeSet<u32>,
    /// Local groups, by gid: those of their members who are in [`Identities::people`].
    pub gids: Vec<u32>,
    /// Who signs in as one of these.
    pub people: BTreeSet<PrincipalId>,
    /// Who signs in and is in one of these groups, `<tenant>/<id>`.
    pub groups: BTreeSet<String>,
}

/// How people sign in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// The tenant; one of [`Identities::tenants`].
    pub tenant: TenantId,
    /// The application: a public client.
    pub client: ClientId,
    /// What an approver's answer needs.
    pub required: Required,
    /// How long a sign-in is good for.
    pub lasts: Duration,
}

/// What the answer of an approver needs, from less to more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Required {
    /// The uid is enough.
    #[default]
    None,
    /// He is signed in.
    Login,
    /// He signs in for this very answer, so that the ID token is its signature.
    Bound,
}

/// An Entra tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Its id.
    pub id: TenantId,
    /// Its domain names, as far as they are configured.
    pub domains: Vec<Hostname>,
    /// The host that issues its tokens.
    pub login: Hostname,
    /// The audiences whose tokens are verified in full.
    pub audiences: Vec<String>,
    /// The daemon's own credential in it, if it has one.
    pub directory: Option<Directory>,
}

/// A credential of the daemon's own in a tenant, which may read the memberships of its people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory {
    /// The application.
    pub client: ClientId,
    /// The file with its secret.
    pub secret_file: PathBuf,
}

/// An OIDC provider other than Entra.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuer {
    /// Its name.
    pub name: IssuerName,
    /// Its `iss`, an https URL without a final slash.
    pub url: String,
    /// The host of that URL.
    pub host: Hostname,
    /// The audiences whose tokens are accepted; never empty.
    pub audiences: Vec<String>,
    /// Where its keys are, if the configuration says so.
    pub jwks_uri: Option<String>,
}

/// What a readable name stands for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Named {
    /// `Group::"<tenant>/<id>"`
    Group(String),
    /// `Role::"<tenant>/<audience>/<value>"`
    Role(String),
    /// `Identity::"<tenant>/<object>"`
    Identity(PrincipalId),
    /// An application.
    Client(ClientId),
}

/// Which tokens a target issues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Issues {
    /// Entra's, at a login host.
    Entra,
    /// A managed identity's, at the metadata endpoint of an Azure VM.
    Imds,
    /// A managed identity's, at the endpoint of Azure Arc's agent.
    Arc,
    /// A managed identity's, at the endpoint of Azure App Service and what follows its protocol.
    AppService,
    /// Those of an `[[issuer]]`.
    Oidc(IssuerName),
}

/// Where a workload's tokens come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum IdentitySource {
    /// The answers of token endpoints, which pass through us.
    #[default]
    Observed,
    /// This file as well.
    TokenFile(PathBuf),
}

/// Login hosts of Entra's clouds: a target that lists one issues tokens, said or unsaid.
const LOGIN_HOSTS: [&str; 6] = [
    "login.microsoftonline.com",
    "login.windows.net",
    "sts.windows.net",
    "login.microsoft.com",
    "login.microsoftonline.us",
    "login.partner.microsoftonline.cn",
];

/// The metadata endpoint of Azure's virtual machines.
const IMDS: &str = "169.254.169.254";

/// Audiences of Microsoft's own services: what a host's name, or its end after a dot, takes besides `https://HOST`.
const SERVICES: [(&str, &[&str]); 9] = [
    ("graph.microsoft.com", &["00000003-0000-0000-c000-000000000000"]),
    ("management.azure.com", &["797f4846-ba00-4fd7-ba43-dac1f8f63013", "https://management.core.windows.net"]),
    ("vault.azure.net", &["https://vault.azure.net", "cfa8b339-82a2-471a-a3c9-0fc0be7a4093"]),
    ("blob.core.windows.net", STORAGE),
    ("queue.core.windows.net", STORAGE),
    ("table.core.windows.net", STORAGE),
    ("file.core.windows.net", STORAGE),
    ("dfs.core.windows.net", STORAGE),
    ("servicebus.windows.net", &["https://servicebus.azure.net", "https://eventhubs.azure.net"]),
];

const STORAGE: &[&str] = &["https://storage.azure.com", "e406a681-f3d4-42a8-90b6-c2b029497af1"];

impl Approvers {
    /// How many people these are at most; none where a group is among them, since nobody here knows how many are in it.
    pub fn count(&self) -> Option<usize> {
        (self.groups.is_empty() && self.gids.is_empty()).then(|| self.uids.len() + self.people.len())
    }

    /// Whether somebody is one of these who signed in as `person` and is in `groups`.
    pub fn take(&self, person: &PrincipalId, groups: &BTreeSet<String>) -> bool {
        self.people.contains(person) || !self.groups.is_disjoint(groups)
    }
}

impl Identities {
    /// The tenant of this id, if it is listed.
    pub fn tenant(&self, id: TenantId) -> Option<&Tenant> {
        self.tenants.iter().find(|tenant| tenant.id == id)
    }

    /// The uids that are this person, as `[people]` says.
    pub fn uids_of<'a>(&'a self, person: &'a PrincipalId) -> impl Iterator<Item = u32> {
        self.people.iter().filter(move |(_, one)| *one == person).map(|(uid, _)| *uid)
    }

    /// Whether this is the id of a listed tenant, or the name of a listed issuer.
    pub fn has_realm(&self, realm: &str) -> bool {
        match realm.parse() {
            Ok(tenant) => self.tenant(tenant).is_some(),
            Err(_) => self.issuers.iter().any(|issuer| issuer.name.as_str() == realm),
        }
    }

    /// What these ids are called, by id.
    pub fn names_for<'a>(&self, ids: impl IntoIterator<Item = &'a str>) -> BTreeMap<String, String> {
        let name = |id: &str| {
            self.names.iter().find_map(|(name, named)| match named {
                Named::Identity(named) if named.as_str() == id => Some(name.clone()),
                Named::Client(named) if named.to_string() == id => Some(name.clone()),
                Named::Group(named) | Named::Role(named) if named == id => Some(name.clone()),
                _ => None,
            })
        };
        ids.into_iter().filter_map(|id| Some((id.to_owned(), name(id)?))).collect()
    }

    /// The names of an id, as policies and people may use them.
    pub fn names_of<'a>(&'a self, id: &'a Named) -> impl Iterator<Item = &'a str> {
        self.names.iter().filter(move |(_, named)| *named == id).map(|(name, _)| name.as_str())
    }
}

/// An audience as it is compared: in lower case, without a final slash.
pub(super) fn audience(text: &str) -> String {
    text.strip_suffix('/').unwrap_or(text).to_ascii_lowercase()
}

/// The host of an audience that is a URL, as resources of Entra often are; it says nothing but this host.
pub(super) fn host_of(audience: &str) -> Option<Host> {
    let host = audience.strip_prefix("https://")?;
    host.parse().ok()
}

/// The audiences of Microsoft's services that follow from a target's hosts.
pub(super) fn audiences_of(hosts: &[HostPattern]) -> Vec<String> {
    let mut audiences = Vec::new();
    for host in hosts {
        let name = match host {
            HostPattern::Exact(Host::Name(name)) | HostPattern::Wildcard(name) => name,
            HostPattern::Exact(Host::Address(_)) => continue,
        };
        for (service, known) in SERVICES {
            let below = name.as_str().strip_suffix(service).is_some_and(|rest| rest.ends_with('.'));
            if below || name.as_str() == service {
                audiences.extend(known.iter().map(|audience| (*audience).to_owned()));
            }
        }
    }
    audiences
}

/// What a target with this host issues, whatever the configuration says.
pub(super) fn issued_by(host: &HostPattern, identities: &Identities) -> Option<Issues> {
    match host {
        HostPattern::Exact(Host::Address(address)) => (address.to_string() == IMDS).then_some(Issues::Imds),
        HostPattern::Exact(Host::Name(name)) => {
            let login = LOGIN_HOSTS.contains(&name.as_str());
            (login || identities.tenants.iter().any(|tenant| tenant.login == *name)).then_some(Issues::Entra)
        }
        HostPattern::Wildcard(suffix) => {
            let tenants = identities.tenants.iter().map(|tenant| tenant.login.as_str());
            let covers = |host: &str| host.split_once('.').is_some_and(|(_, rest)| rest == suffix.as_str());
            LOGIN_HOSTS.into_iter().chain(tenants).any(covers).then_some(Issues::Entra)
        }
    }
}
