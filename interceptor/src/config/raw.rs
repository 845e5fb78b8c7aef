//! The configuration as it is written: one struct a table, unknown keys refused, every value with its place in the
//! file. Nothing is judged here but the shape; `load` does the rest. The docs here are what `config schema` prints.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::{I64Deserializer, StrDeserializer};
use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use toml::Spanned;

mod credential;
mod login;
mod outward;

pub(super) use credential::RawCredential;
pub(super) use login::RawLogin;
pub(super) use outward::{RawExport, RawNotify};

/// Interceptor's configuration file.
#[derive(Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Interceptor configuration")]
pub(super) struct Raw {
    /// The folder of the durable state: record.db, journal/, ca/. Default `/var/lib/interceptor`.
    pub(super) state_dir: Option<At<String>>,
    /// The folder of the sockets and of one folder for each launched workload. Default `/run/interceptor`.
    pub(super) runtime_dir: Option<At<String>>,
    /// The folder of the policies, `*.cedar`. Default: `policy.d` beside this file.
    pub(super) policy_dir: Option<At<String>>,
    /// The folder of the policies that come into force when the glass is broken. Default: `break-glass.d` beside this file.
    pub(super) break_glass_dir: Option<At<String>>,
    /// The folder on a bpffs for what must outlive the daemon. Default `/sys/fs/bpf/interceptor`.
    pub(super) pin_dir: Option<At<String>>,
    /// Docker's data folder (`data-root`). Default `/var/lib/docker`.
    pub(super) docker_dir: Option<At<String>>,
    /// Podman's data folder (`graphroot`). Default `/var/lib/containers/storage`.
    pub(super) podman_dir: Option<At<String>>,
    /// The control socket. Default: `control.sock` in `runtime_dir`.
    pub(super) control_socket: Option<At<String>>,
    /// The socket that serves the Prometheus metrics. Default: `metrics.sock` in `runtime_dir`.
    pub(super) metrics_socket: Option<At<String>>,
    /// The cgroup, below the root of cgroup2, of the daemon and its workloads. Default `interceptor`.
    pub(super) cgroup: Option<At<String>>,
    /// Who may use the control socket besides root.
    #[serde(default)]
    pub(super) control: RawControl,
    /// How the record is kept.
    #[serde(default)]
    pub(super) record: RawRecord,
    /// Sinks outside the host that the record is sent to.
    #[serde(default)]
    pub(super) export: Vec<RawExport>,
    /// Whom it is told when people are asked, and what came of it.
    #[serde(default)]
    pub(super) notify: Vec<RawNotify>,
    /// How upstreams are reached and verified.
    #[serde(default)]
    pub(super) upstream: RawUpstream,
    /// Bounds in time and memory.
    #[serde(default)]
    pub(super) limits: RawLimits,
    /// The Entra tenants whose tokens are accepted; no other's are.
    #[serde(default)]
    pub(super) tenant: Vec<RawTenant>,
    /// Other OIDC providers whose tokens are accepted.
    #[serde(default)]
    pub(super) issuer: Vec<RawIssuer>,
    /// Readable names for ids: `group:<tenant>/<id>`, `role:<tenant>/<audience>/<value>`, `identity:<tenant>/<object>` or
    /// `client:<id>`.
    #[serde(default)]
    pub(super) names: BTreeMap<At<String>, At<String>>,
    /// Who a local user is: `"name" = "<tenant>/<object>"`.
    #[serde(default)]
    pub(super) people: BTreeMap<At<String>, At<String>>,
    /// Who answers held operations, by the name of a group that `@approval` names: local users (`NAME`, `user:NAME`), each in
    /// `people`, and local groups (`group:NAME`), of whose members those count who are in `people`; with `login` also
    /// `identity:<tenant>/<object>` and `group:<tenant>/<id>`, of those who sign in.
    #[serde(default)]
    pub(super) approvers: BTreeMap<At<String>, Vec<At<String>>>,
    /// How people who answer sign in to Entra.
    pub(super) login: Option<RawLogin>,
    /// The workloads that may be launched.
    #[serde(default)]
    pub(super) workload: Vec<RawWorkload>,
    /// The named destinations.
    #[serde(default)]
    pub(super) target: Vec<RawTarget>,
    /// What answers are masked for.
    #[serde(default)]
    pub(super) mask: Vec<RawMask>,
}

/// Who may use the control socket besides root.
#[derive(Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawControl {
    /// `user:NAME` or `group:NAME`, or `user:UID` or `group:GID`: they may launch every workload, reload, issue grants,
    /// end sessions and read the record.
    #[serde(default)]
    pub(super) operators: Vec<At<String>>,
    /// As in `operators`: they may read the record, put sessions under a hold, and close emergencies.
    #[serde(default)]
    pub(super) auditors: Vec<At<String>>,
}

/// How the record is kept.
#[derive(Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRecord {
    /// What a recorded verdict survives before its operation goes on: `process` (kill -9, default) or `power-loss`.
    pub(super) durability: Option<At<String>>,
    /// The size of one journal segment. Default `16MiB`.
    pub(super) segment: Option<At<String>>,
    /// How much journal may wait for the writer before operations are denied. Default `256MiB`.
    pub(super) backlog: Option<At<String>>,
    /// How old the oldest waiting entry may be before operations are denied. Default `5s`.
    pub(super) backlog_age: Option<At<String>>,
    /// What is kept of requests and answers where no `@record` says it: `full` (default), `headers` or `none`.
    pub(super) payload: Option<At<String>>,
    /// The most bytes of one body that are kept; `1MiB` at most. Default `1MiB`.
    pub(super) payload_bytes: Option<At<String>>,
    /// How long what operations sent and got is kept. Default: until it is pruned by hand.
    pub(super) keep_payloads: Option<At<String>>,
    /// The same for workloads of a class, by the name of the class; of a workload's several the least.
    #[serde(default)]
    pub(super) keep_payloads_of: BTreeMap<At<String>, At<String>>,
    /// `required`: operations are denied while no sink of `[[export]]` has a checkpoint of events that are ten minutes old.
    /// Default `none`.
    pub(super) anchor: Option<At<String>>,
    /// The disk space that is kept for what has to be recorded when the disk is full; `0B` for none. Default `64MiB`.
    pub(super) reserve: Option<At<String>>,
}

/// How upstreams are reached and verified.
#[derive(Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawUpstream {
    /// PEM files of roots that are trusted besides the host's store.
    #[serde(default)]
    pub(super) extra_ca: Vec<At<String>>,
    /// Names with a fixed address, looked up before DNS: `"name" = "address"` or `"name" = "address:port"`.
    #[serde(default)]
    pub(super) resolve: BTreeMap<At<String>, At<String>>,
}

/// Bounds in time and memory.
#[derive(Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLimits {
    /// How long a connection may take to show what it speaks and to finish its TLS handshake. Default `5s`.
    pub(super) detect_timeout: Option<At<String>>,
    /// How long reaching an upstream may take, with DNS, TCP and TLS. Default `10s`.
    pub(super) dial_timeout: Option<At<String>>,
    /// How long an upstream may take to begin its answer. Default `5m`.
    pub(super) response_timeout: Option<At<String>>,
    /// How long a connection may stand idle between two requests. Default `90s`.
    pub(super) idle_timeout: Option<At<String>>,
    /// Connections of one workload that may be open at once. Default 1024.
    pub(super) connections: Option<At<i64>>,
    /// Requests that one HTTP/2 connection may have under way at once. Default 100.
    pub(super) streams: Option<At<i64>>,
    /// The size of one request's or response's header section. Default `64KiB`.
    pub(super) header_bytes: Option<At<String>>,
    /// Header fields of one request or response. Default 100.
    pub(super) header_fields: Option<At<i64>>,
    /// The size of one request's body. Default `1GiB`.
    pub(super) request_body: Option<At<String>>,
    /// The size of one answer's body. Default `16GiB`.
    pub(super) response_body: Option<At<String>>,
    /// The size that a coded answer, which is masked, may decode to whatever its own size. Default `16MiB`.
    pub(super) decoded_body: Option<At<String>>,
    /// How many times its size it may decode to beyond that. Default 200.
    pub(super) decoded_ratio: Option<At<i64>>,
    /// How long a held operation waits for its answer before its client is told to come again. Default `25s`.
    pub(super) hold: Option<At<String>>,
    /// Operations of one workload that may be held at once. Default 16.
    pub(super) holds: Option<At<i64>>,
    /// Operations of all workloads that may be held at once. Default 256.
    pub(super) holds_in_all: Option<At<i64>>,
    /// The size of a request's body that people can be asked about. Default `1MiB`.
    pub(super) approvable_body: Option<At<String>>,
    /// Operations of one workload that may be under way at once. Default 1024.
    pub(super) operations: Option<At<i64>>,
    /// Names that one workload may look up in its life. Default 4096.
    pub(super) names: Option<At<i64>>,
    /// How long a stopping daemon lets operations finish, `10s` at most. Default `10s`.
    pub(super) drain: Option<At<String>>,
}

/// A named set of processes, and who may launch it.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawWorkload {
    /// Its name.
    pub(super) name: At<String>,
    /// The callers that it is for; without it, root and operators only.
    #[serde(rename = "match")]
    pub(super) matches: Option<At<RawMatch>>,
    /// The user that it runs as instead of the caller; never root.
    pub(super) user: Option<At<String>>,
    /// What it sees of its user's home: `guarded` (default), `private` or `full`.
    pub(super) home: Option<At<String>>,
    /// Pathname unix sockets that it may connect to.
    #[serde(default)]
    pub(super) unix: Vec<At<String>>,
    /// Ports at which callers of the host reach what it listens at on its own loopback: `127.0.0.1:8000:8000`.
    #[serde(default)]
    pub(super) publish: Vec<At<String>>,
    /// Labels that policy can name.
    pub(super) class: Option<At<OneOrMany<String>>>,
    /// Where its tokens come from. Default `{ source = "observed" }`.
    pub(super) identity: Option<At<RawIdentity>>,
    /// How well it has to be contained: `contained` (default), or `steered`, which accepts the holes that `workloads list`
    /// and `doctor` name.
    pub(super) containment: Option<At<String>>,
}

/// Where a workload's tokens come from.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawIdentity {
    /// `observed` (answers of token endpoints that pass through Interceptor) or `token-file`.
    pub(super) source: At<String>,
    /// The file that holds the token, for `token-file`; read for each request.
    pub(super) path: Option<At<String>>,
}

/// An Entra tenant whose tokens are accepted.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTenant {
    /// Its id, a GUID.
    pub(super) id: At<String>,
    /// Its domain names, as in `contoso.com`; others are looked up at its login host.
    #[serde(default)]
    pub(super) domains: Vec<At<String>>,
    /// The host that its tokens are issued by. Default `login.microsoftonline.com`.
    pub(super) login: Option<At<String>>,
    /// Audiences whose tokens are verified in full: `api://…` or the GUID of an application.
    #[serde(default)]
    pub(super) audiences: Vec<At<String>>,
    /// A credential of the daemon's own, to look up the groups of people who are in more than a token can list.
    pub(super) directory: Option<At<RawDirectory>>,
}

/// A credential of the daemon's own in a tenant.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDirectory {
    /// The application's id.
    pub(super) client: At<String>,
    /// The file with its secret, readable by root only.
    pub(super) secret_file: At<String>,
}

/// An OIDC provider other than Entra.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawIssuer {
    /// Its name, which stands for it in policies.
    pub(super) name: At<String>,
    /// Its `iss`, an https URL; its discovery document is below it.
    pub(super) url: At<String>,
    /// The audiences whose tokens are accepted.
    pub(super) audiences: At<Vec<At<String>>>,
    /// Where its keys are, if not on the issuer's own host: an https URL.
    pub(super) jwks_uri: Option<At<String>>,
}

/// Which callers and commands a workload is for; all that is given must fit. Or, for one that isn't launched but adopted,
/// which processes it is.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawMatch {
    /// The caller is this user, or one of these, by name.
    pub(super) user: Option<At<OneOrMany<String>>>,
    /// The caller has this uid, or one of these.
    pub(super) uid: Option<At<OneOrMany<i64>>>,
    /// The caller is in this group, or in one of these, by name.
    pub(super) group: Option<At<OneOrMany<String>>>,
    /// The command's file name, its last path component.
    pub(super) command: Option<At<String>>,
    /// Adopts this unit of systemd, or these: `crm-mcp.service`.
    pub(super) unit: Option<At<OneOrMany<String>>>,
    /// Adopts the cgroup of this path from the root of cgroup2, or those of these, with all below; `*` stands for any part of
    /// one name.
    pub(super) cgroup: Option<At<OneOrMany<String>>>,
    /// Adopts containers of Docker or Podman with this label, `key=value`, or one of these.
    pub(super) container_label: Option<At<OneOrMany<String>>>,
}

/// A named destination.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTarget {
    /// Its name.
    pub(super) name: At<String>,
    /// Host names, addresses, or `*.suffix` for one label more than the suffix.
    pub(super) hosts: At<Vec<At<String>>>,
    /// The ports on them. Default: what the protocol uses; for `http` 443, and 80 if `cleartext`.
    pub(super) ports: Option<At<Vec<At<i64>>>>,
    /// `http` (default), `postgres`, `mysql`, `tds`, `mcp` or `opaque`.
    pub(super) protocol: Option<At<String>>,
    /// Whether it may be spoken to without TLS.
    #[serde(default)]
    pub(super) cleartext: bool,
    /// Whether a wildcard may cover everybody's accounts, as in `*.blob.core.windows.net`.
    #[serde(default)]
    pub(super) any_account: bool,
    /// Which tokens it issues: `entra`, `imds`, `arc`, `app-service`, or `oidc:NAME` for an `[[issuer]]`. The login hosts
    /// of the tenants and 169.254.169.254 need no saying.
    pub(super) identity: Option<At<String>>,
    /// The audiences that its tokens are for, besides `https://HOST` of its hosts.
    #[serde(default)]
    pub(super) audiences: Vec<At<String>>,
    /// What may authenticate requests besides tokens that Interceptor saw issued: schemes of `Authorization` in lower case
    /// (`basic`), names of headers (`x-api-key`, `cookie`), keys of the query with a question mark (`?sig`).
    #[serde(default)]
    pub(super) accept_foreign: Vec<At<String>>,
    /// What every request to it must have.
    pub(super) pin: Option<RawPin>,
    /// What Interceptor authenticates with, in place of whatever the process sends.
    pub(super) credential: Option<At<RawCredential>>,
    /// The masks that every answer passes, whatever policy says.
    #[serde(default)]
    pub(super) mask: Vec<At<String>>,
}

/// What every request to a target must have.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPin {
    /// Header fields with these values: added where they are missing; another value is refused.
    #[serde(default)]
    pub(super) headers: BTreeMap<At<String>, At<String>>,
    /// What its path begins with: whole segments, as in `/v1.0/`.
    pub(super) path_prefix: Option<At<String>>,
}

/// What answers are masked for, and how.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawMask {
    /// Its name, for `@mask("…")` and a target's `mask`.
    pub(super) name: At<String>,
    /// JSONPaths (RFC 9535) of the values that are masked.
    #[serde(default)]
    pub(super) json: Vec<At<String>>,
    /// Detectors, by id or group, of what is masked wherever it stands.
    #[serde(default)]
    pub(super) detect: Vec<At<String>>,
    /// What becomes of it: `redact` (default), `partial`, `pseudonym` or `drop`.
    pub(super) strategy: Option<At<String>>,
    /// Response headers and trailers whose values are masked.
    #[serde(default)]
    pub(super) headers: Vec<At<String>>,
    /// Names that a query may not mention, because the answer would tell what is masked.
    #[serde(default)]
    pub(super) deny_query: Vec<At<String>>,
    /// A file of detectors besides the built-in ones.
    pub(super) rules: Option<At<String>>,
}

/// A value with its place in the file.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct At<T>(Spanned<T>);

impl<T> At<T> {
    pub(super) fn value(&self) -> &T {
        self.0.get_ref()
    }

    pub(super) fn span(&self) -> Range<usize> {
        self.0.span()
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for At<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Spanned::deserialize(deserializer).map(At)
    }
}

impl<T: JsonSchema> JsonSchema for At<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// A value, or a list of such values.
#[derive(Debug)]
pub(super) enum OneOrMany<T> {
    One(T),
    Many(Vec<At<T>>),
}

impl<T> At<OneOrMany<T>> {
    /// Each value with its place.
    pub(super) fn each(&self) -> Vec<(&T, Range<usize>)> {
        match self.value() {
            OneOrMany::One(value) => vec![(value, self.span())],
            OneOrMany::Many(values) => values.iter().map(|value| (value.value(), value.span())).collect(),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneOrManyVisitor(PhantomData))
    }
}

struct OneOrManyVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for OneOrManyVisitor<T> {
    type Value = OneOrMany<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value or a list of values")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        T::deserialize(StrDeserializer::new(text)).map(OneOrMany::One)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        T::deserialize(I64Deserializer::new(number)).map(OneOrMany::One)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element()? {
            values.push(value);
        }
        Ok(OneOrMany::Many(values))
    }
}

impl<T: JsonSchema> JsonSchema for OneOrMany<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("OneOrMany_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [one, { "type": "array", "items": one }] })
    }
}
