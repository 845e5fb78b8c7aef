//! Settings and questions for the tests of this module.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::config::{
    Approvers, Control, Durability, Expansion, HoldLimits, Home, HostPattern, Identities, IdentitySource, Issuer,
    Level, Limits, Mask, Match, Named, Paths, PayloadLevel, PayloadSettings, Pin, Protocol, RecordSettings, Strategy,
    Targets, Tenant, Upstream, WorkloadSettings,
};

/// Targets `graph` (graph.microsoft.com:443), `api` (*.api.example, 443 and 8443), `box` (192.0.2.7:80, with the
/// masks `names` and `pii`); workloads `crm` and `batch`.
pub(super) fn settings() -> Arc<Settings> {
    let workload = |name: &str, classes: &[&str]| {
        Arc::new(WorkloadSettings {
            name: name.parse().unwrap(),
            matches: Match::default(),
            user: None,
            home: Home::Guarded,
            unix: Vec::new(),
            classes: classes.iter().map(|class| class.to_string()).collect(),
            identity: IdentitySource::Observed,
            publish: Vec::new(),
            adopt: Vec::new(),
            containment: Level::Steered,
        })
    };
    Arc::new(Settings {
        paths: Paths {
            config: "/etc/interceptor/config.toml".into(),
            policy: "/etc/interceptor/policy.d".into(),
            break_glass: "/etc/interceptor/break-glass.d".into(),
            state: "/var/lib/interceptor".into(),
            runtime: "/run/interceptor".into(),
            control_socket: "/run/interceptor/control.sock".into(),
            metrics_socket: "/run/interceptor/metrics.sock".into(),
            pins: "/sys/fs/bpf/interceptor".into(),
            docker: "/var/lib/docker".into(),
            podman: "/var/lib/containers/storage".into(),
        },
        cgroup: "interceptor".into(),
        control: Control::default(),
        record: RecordSettings {
            durability: Durability::Process,
            segment_bytes: 1 << 20,
            backlog_bytes: 1 << 20,
            backlog_age: Duration::from_secs(1),
            ..RecordSettings::default()
        },
        payload: PayloadSettings { level: PayloadLevel::Full, bytes: 1 << 20 },
        exports: Vec::new(),
        notify: Vec::new(),
        upstream: Upstream::default(),
        limits: Limits {
            detect_timeout: Duration::from_secs(5),
            dial_timeout: Duration::from_secs(5),
            response_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(5),
            connections: 16,
            streams: 100,
            header_bytes: 1 << 16,
            header_fields: 100,
            request_body: 1 << 30,
            response_body: 1 << 30,
            expansion: Expansion::default(),
            hold: HoldLimits { patience: Duration::from_secs(1), each: 2, all: 4, body: 1 << 20 },
            operations: 16,
            names: 100,
            drain: Duration::from_secs(1),
        },
        identities: identities(),
        workloads: vec![workload("crm", &["pii", "prod"]), workload("batch", &[])],
        targets: Targets::new(vec![
            target("graph", &["graph.microsoft.com"], &[443]),
            target("api", &["*.api.example"], &[443, 8443]),
            masked("box", &["192.0.2.7"], &[80], &["names", "pii"]),
        ]),
        masks: ["keys", "mail", "names", "pii"].map(mask).into(),
    })
}

pub(super) const TENANT: &str = "11111111-0000-4000-8000-000000000001";
/// One that isn't listed.
pub(super) const OTHER_TENANT: &str = "11111111-0000-4000-8000-000000000099";
pub(super) const CLIENT: &str = "44444444-0000-4000-8000-000000000004";

/// One tenant, the issuer `pass`, the group `crm-readers`, the role `crm-writers`, the identity `crm-bot`; uid 1000 is
/// [`principal`].
fn identities() -> Identities {
    let me = principal().id;
    Identities {
        tenants: vec![Tenant {
            id: TENANT.parse().unwrap(),
            domains: Vec::new(),
            login: "login.microsoftonline.com".parse().unwrap(),
            audiences: Vec::new(),
            directory: None,
        }],
        issuers: vec![Issuer {
            name: "pass".parse().unwrap(),
            url: "https://pass.example".into(),
            host: "pass.example".parse().unwrap(),
            audiences: vec!["api://crm".into()],
            jwks_uri: None,
        }],
        names: BTreeMap::from([
            ("crm-readers".into(), Named::Group(format!("{TENANT}/22222222-0000-4000-8000-000000000002"))),
            ("crm-writers".into(), Named::Role(format!("{TENANT}/api://crm/Crm.Write"))),
            ("crm-bot".into(), Named::Identity(me.clone())),
        ]),
        people: BTreeMap::from([(1000, me)]),
        approvers: BTreeMap::from([("ada".into(), approvers([1001, 1002])), ("bob".into(), approvers([1003, 1004]))]),
        login: None,
    }
}

fn approvers(uids: [u32; 2]) -> Approvers {
    Approvers { uids: uids.into(), ..Approvers::default() }
}

/// A service principal of [`TENANT`] without groups and roles.
pub(super) fn principal() -> Principal {
    Principal {
        id: format!("{TENANT}/33333333-0000-4000-8000-000000000003").parse().unwrap(),
        kind: PrincipalKind::ServicePrincipal,
        client: None,
        groups: Some(Vec::new()),
        roles: Vec::new(),
        authentic: Authentic::Issuer,
        bound: Bound::IssuedHere,
    }
}

pub(super) fn target(name: &str, hosts: &[&str], ports: &[u16]) -> Arc<Target> {
    masked(name, hosts, ports, &[])
}

fn mask(name: &str) -> Arc<Mask> {
    Arc::new(Mask {
        name: name.parse().unwrap(),
        json: Vec::new(),
        detect: Vec::new(),
        strategy: Strategy::Redact,
        headers: Vec::new(),
        deny_query: Vec::new(),
    })
}

fn masked(name: &str, hosts: &[&str], ports: &[u16], masks: &[&str]) -> Arc<Target> {
    Arc::new(Target {
        name: name.parse().unwrap(),
        hosts: hosts.iter().map(|host| host.parse::<HostPattern>().unwrap()).collect(),
        ports: ports.to_vec(),
        protocol: Protocol::Http,
        cleartext: false,
        issues: None,
        audiences: Vec::new(),
        accept_foreign: Vec::new(),
        pin: Pin::default(),
        credential: None,
        masks: masks.iter().map(|mask| mask.parse().unwrap()).collect(),
    })
}

pub(super) fn source(text: &str) -> Vec<Source> {
    vec![Source { name: "policy.d/test.cedar".into(), text: text.into() }]
}

pub(super) fn snapshot(text: &str) -> Snapshot {
    Snapshot::load(settings(), source(text), 7).unwrap_or_else(|errors| panic!("{}", errors.render(false, 120)))
}

/// Monday, 23 November 2026, 09:15 UTC.
pub(super) const MONDAY: &str = "2026-11-23T09:15:40Z";

/// A question in owned parts, written as `crm graph GET graph.microsoft.com:443/v1.0/users?$top=5`,
/// `crm graph connect graph.microsoft.com:443` or `crm graph resolve graph.microsoft.com`.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) asker: Asker,
    target: Arc<Target>,
    verb: String,
    host: Host,
    port: u16,
    path: CanonicalPath,
    query: Option<String>,
    pub(super) credential: Credential,
    pub(super) principal: Option<Principal>,
}

impl Line {
    pub(super) fn new(text: &str) -> Self {
        let words: Vec<_> = text.split(' ').collect();
        let [workload, target, verb, rest] = words[..] else { panic!("`{text}` has four words") };
        let settings = settings();
        let classes =
            settings.workloads.iter().find(|known| known.name.as_str() == workload).map(|w| w.classes.clone());
        let target = settings.targets.iter().find(|known| known.name.as_str() == target).cloned();
        let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        let (host, port) = authority.split_once(':').unwrap_or((authority, "443"));
        Self {
            asker: Asker {
                workload: workload.parse().unwrap(),
                classes: classes.unwrap_or_default(),
                initiator: 1000,
                loginuid: None,
            },
            target: target.unwrap_or_else(|| super::fixture::target("gone", &["gone.example"], &[443])),
            verb: verb.into(),
            host: host.parse().unwrap(),
            port: port.parse().unwrap(),
            path: CanonicalPath::parse(path).unwrap(),
            query: query.map(str::to_owned),
            credential: Credential::None,
            principal: None,
        }
    }

    pub(super) fn question(&self) -> Question<'_> {
        let operation = match (self.verb.as_str(), &self.host) {
            ("resolve", Host::Name(name)) => Operation::Resolve { name },
            ("connect", host) => Operation::Connect { host, port: self.port },
            (method, host) => Operation::Http(HttpRequest {
                method,
                host,
                port: self.port,
                tls: self.port != 80,
                path: &self.path,
                query: self.query.as_deref(),
                credential: self.credential,
                websocket: method == "WEBSOCKET",
            }),
        };
        Question {
            asker: &self.asker,
            principal: self.principal.as_ref(),
            target: &self.target,
            operation,
            digest: None,
            using: None,
        }
    }
}

/// `allow` or the code of the denial, then the ids of the determining policies.
pub(super) fn verdict(decision: &Decision) -> String {
    let (verdict, basis) = match decision {
        Decision::Allow(permit) => ("allow", permit.basis()),
        Decision::Deny(denial) => (denial.code, &denial.basis),
        Decision::Hold(hold) => ("hold", &hold.basis),
    };
    std::iter::once(verdict).chain(basis.policies.iter().map(String::as_str)).collect::<Vec<_>>().join(" ")
}
