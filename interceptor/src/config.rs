//! Settings: what the configuration file says, resolved into values that can't be invalid. `raw` holds the serde
//! structs as they are written, `load` turns them into these, `trust` judges who may have written the files.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use crate::ids::{MaskName, TargetName, WorkloadName};

mod account;
mod adopt;
mod credential;
mod detector;
mod export;
mod host;
mod identity;
mod json_path;
mod load;
mod mask;
mod mistake;
mod notify;
mod publish;
mod raw;
mod targets;
mod trust;
mod units;

pub use adopt::{Adopt, BadPattern, Level, Pattern, slice_path};
pub use credential::{CredentialKind, CredentialSettings, SecretSource};
pub use detector::{Needs, Rule, Rules, Validator};
pub use export::{BatchFormat, ExportSettings, SinkSettings, is_post_url};
pub use host::{Host, HostError, HostPattern, Hostname};
pub use identity::{Approvers, Directory, Identities, IdentitySource, Issuer, Issues, Login, Named, Required, Tenant};
pub use json_path::{Filter, JsonPath, JsonPathError, Literal, Segment, Selector};
pub use load::schema;
pub use mask::{Mask, Strategy};
pub use mistake::{ConfigError, Mistake, Mistakes};
pub use notify::{Form, NotifySettings, NotifyWay, Occasion, Place};
pub use publish::{BadPublish, Publish};
pub use targets::Targets;
pub use trust::{Trust, break_glass_sources, policy_sources, program, secret, text};
pub use units::{duration, size};

/// Everything that the configuration file says.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where files live. Read at start only.
    pub paths: Paths,
    /// The cgroup, below the root of cgroup2, that holds the daemon's own cgroup and those of its workloads.
    /// Read at start only.
    pub cgroup: String,
    /// Who may use the control socket, besides root.
    pub control: Control,
    /// How the record is kept. Read at start only.
    pub record: RecordSettings,
    /// What is kept of bodies.
    pub payload: PayloadSettings,
    /// Where the record is sent to, in the order of the file. Read at start only.
    pub exports: Vec<ExportSettings>,
    /// Whom it is told when people are asked, in the order of the file.
    pub notify: Vec<NotifySettings>,
    /// How upstreams are reached and verified.
    pub upstream: Upstream,
    /// Bounds in time and memory.
    pub limits: Limits,
    /// Whose tokens are accepted, and what their ids are called.
    pub identities: Identities,
    /// The workloads that may be launched, in the order of the file.
    pub workloads: Vec<Arc<WorkloadSettings>>,
    /// The named destinations.
    pub targets: Targets,
    /// What may be masked, in the order of the file.
    pub masks: Vec<Arc<Mask>>,
}

/// Where files live; each is absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// The configuration file itself.
    pub config: PathBuf,
    /// `policy.d`.
    pub policy: PathBuf,
    /// `break-glass.d`; it needn't exist.
    pub break_glass: PathBuf,
    /// The durable state: `record.db`, `journal/`, `ca/`.
    pub state: PathBuf,
    /// What lives as long as the host is up: the sockets, one folder for each launched workload.
    pub runtime: PathBuf,
    /// The control socket.
    pub control_socket: PathBuf,
    /// The socket that serves the Prometheus metrics.
    pub metrics_socket: PathBuf,
    /// The folder on a bpffs for the pins.
    pub pins: PathBuf,
    /// Where Docker keeps its data.
    pub docker: PathBuf,
    /// Where Podman keeps its data.
    pub podman: PathBuf,
}

/// Who has which role on the control socket. Root is an operator always, and an auditor where it is listed.
#[derive(Debug, Clone, Default)]
pub struct Control {
    /// They run the daemon: launch every workload, reload, issue grants, end sessions, read the record.
    pub operators: Members,
    /// They read the record, put sessions under a hold, and close what was done in an emergency.
    pub auditors: Members,
}

/// Local users.
#[derive(Debug, Clone, Default)]
pub struct Members {
    /// By uid.
    pub uids: Vec<u32>,
    /// All members of groups, by gid.
    pub gids: Vec<u32>,
}

/// How the record is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordSettings {
    /// What a recorded verdict survives before its operation goes on.
    pub durability: Durability,
    /// The size of one journal segment, in bytes.
    pub segment_bytes: u64,
    /// How many bytes of journal may wait for the writer before operations are denied.
    pub backlog_bytes: u64,
    /// How old the oldest unwritten entry may be before operations are denied.
    pub backlog_age: Duration,
    /// How long payloads are kept; none: until somebody prunes them.
    pub keep_payloads: Option<Duration>,
    /// How long those of workloads are kept whose classes say it, instead.
    pub keep_payloads_of: BTreeMap<WorkloadName, Duration>,
    /// Whether operations are denied while no sink outside the host has a fresh checkpoint.
    pub anchor: Anchor,
    /// How many bytes of disk are kept for what has to be recorded when it is full.
    pub reserve: u64,
    /// How long at most an event waits for its signed checkpoint. No key sets it.
    pub checkpoint_age: Duration,
}

impl Default for RecordSettings {
    /// What holds where the configuration says nothing.
    fn default() -> Self {
        Self {
            durability: Durability::Process,
            segment_bytes: 16 << 20,
            backlog_bytes: 256 << 20,
            backlog_age: Duration::from_secs(5),
            keep_payloads: None,
            keep_payloads_of: BTreeMap::new(),
            anchor: Anchor::None,
            reserve: 64 << 20,
            checkpoint_age: Duration::from_secs(60),
        }
    }
}

/// What has to be known outside the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anchor {
    /// Nothing.
    None,
    /// A checkpoint of every event within ten minutes; else operations are denied.
    Required,
}

/// What is kept of requests and answers, where no policy says another thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PayloadSettings {
    /// How much of them.
    pub level: PayloadLevel,
    /// The most bytes of one body that are kept; 1 MiB at most.
    pub bytes: usize,
}

/// How much of a request and its answer is kept. The order is that of more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PayloadLevel {
    /// Nothing but sizes and digests.
    None,
    /// First lines and header fields.
    Headers,
    /// Bodies as well.
    Full,
}

impl std::str::FromStr for PayloadLevel {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "none" => Ok(PayloadLevel::None),
            "headers" => Ok(PayloadLevel::Headers),
            "full" => Ok(PayloadLevel::Full),
            _ => Err(()),
        }
    }
}

/// What a recorded verdict survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// A kill -9 of the daemon (the entry is in the page cache).
    Process,
    /// A loss of power (the entry is on the disk).
    PowerLoss,
}

/// How upstreams are reached and verified.
#[derive(Debug, Clone, Default)]
pub struct Upstream {
    /// PEM files of roots that are trusted besides the host's store.
    pub extra_ca: Vec<PathBuf>,
    /// Names, and addresses of host endpoints, with another address, looked up before DNS. A port of 0 keeps the port that
    /// was asked for.
    pub resolve: BTreeMap<Host, SocketAddr>,
}

/// Bounds in time and memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// How long a connection may take to show what it speaks, and to finish its TLS handshake.
    pub detect_timeout: Duration,
    /// How long reaching an upstream may take, with DNS, TCP and TLS.
    pub dial_timeout: Duration,
    /// How long an upstream may take to begin its answer.
    pub response_timeout: Duration,
    /// How long a connection may stand idle between two requests.
    pub idle_timeout: Duration,
    /// Connections of one workload that may be open at once.
    pub connections: usize,
    /// Requests that one HTTP/2 connection may have under way at once.
    pub streams: usize,
    /// Bytes of one request's or response's header section.
    pub header_bytes: usize,
    /// Header fields of one request or response.
    pub header_fields: usize,
    /// Bytes of one request's body.
    pub request_body: u64,
    /// Bytes of one answer's body.
    pub response_body: u64,
    /// What a coded answer that is masked may decode to.
    pub expansion: Expansion,
    /// Held operations.
    pub hold: HoldLimits,
    /// Operations of one workload that may be under way at once.
    pub operations: usize,
    /// Names that one workload may have looked up in its life.
    pub names: usize,
    /// How long a stopping daemon lets operations finish.
    pub drain: Duration,
}

/// The bounds of held operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HoldLimits {
    /// How long one waits for its answer before its client is told to come again.
    pub patience: Duration,
    /// How many of one workload may wait at once.
    pub each: usize,
    /// How many of all workloads.
    pub all: usize,
    /// Bytes of a body that people can be asked about.
    pub body: usize,
}

/// What a coded body may decode to: `free` bytes whatever its size, and `ratio` times its size beyond that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expansion {
    /// Bytes.
    pub free: u64,
    /// Bytes for each byte of it.
    pub ratio: u64,
}

impl Default for Expansion {
    /// More than anything honest becomes.
    fn default() -> Self {
        Self { free: 16 << 20, ratio: 200 }
    }
}

/// A `[[workload]]`: a named set of processes, and who may launch it.
#[derive(Debug, Clone)]
pub struct WorkloadSettings {
    /// Its name.
    pub name: WorkloadName,
    /// The callers it is chosen for when `run` names no workload, and the only ones that may name it.
    pub matches: Match,
    /// The user it runs as instead of the caller; never root.
    pub user: Option<String>,
    /// What it sees of its user's home.
    pub home: Home,
    /// Pathname unix sockets that it may connect to.
    pub unix: Vec<PathBuf>,
    /// Ports of its own at which the host's callers reach it.
    pub publish: Vec<Publish>,
    /// Labels that policy can name.
    pub classes: Vec<String>,
    /// Where its tokens come from.
    pub identity: IdentitySource,
    /// The cgroups that it is adopted from; empty: it is launched.
    pub adopt: Vec<Adopt>,
    /// How well it has to be contained; a launch that isn't is refused, and so are the connections of an adopted one.
    pub containment: Level,
}

/// Which callers and commands a workload is for. What is empty isn't tested; a `[[workload]]` without `match` is for
/// root and operators only.
#[derive(Debug, Clone, Default)]
pub struct Match {
    /// The caller's uid is one of these.
    pub uids: Vec<u32>,
    /// The caller is in one of these groups.
    pub gids: Vec<u32>,
    /// The file name of the command (its last path component).
    pub command: Option<String>,
}

/// What a launched workload sees of its user's home.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Home {
    /// All but start-up files, keys, and the directories of agents and editors (default).
    Guarded,
    /// An empty one of its own.
    Private,
    /// All of it; the containment level is then *steered*.
    Full,
}

/// A `[[target]]`: a named destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its name.
    pub name: TargetName,
    /// The hosts it consists of.
    pub hosts: Vec<HostPattern>,
    /// The ports on them; never empty.
    pub ports: Vec<u16>,
    /// What it speaks.
    pub protocol: Protocol,
    /// Whether it may be spoken to without TLS.
    pub cleartext: bool,
    /// What Interceptor authenticates with in place of the process; none: what the process sends goes on.
    pub credential: Option<CredentialSettings>,
    /// The tokens that it issues, if it does.
    pub issues: Option<Issues>,
    /// The audiences of the tokens that are for it besides `https://HOST` of its hosts; in lower case, without a final slash.
    pub audiences: Vec<String>,
    /// What may authenticate requests besides tokens that were seen issued: `basic`, `x-api-key`, `?sig`; in lower case.
    pub accept_foreign: Vec<String>,
    /// What every request to it must have.
    pub pin: Pin,
    /// The masks that every answer of it passes, whatever policy says; sorted.
    pub masks: Vec<MaskName>,
}

/// What every request to a target must have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pin {
    /// Header fields with these values.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// What its path begins with; ends in a slash.
    pub path_prefix: Option<String>,
}

/// What a target speaks. Only `Http` is served; connections to the others are denied with that reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1, in TLS or (where the target says so) in clear.
    Http,
    /// PostgreSQL.
    Postgres,
    /// MySQL and MariaDB.
    Mysql,
    /// SQL Server.
    Tds,
    /// MCP over HTTP.
    Mcp,
    /// Anything, passed as bytes.
    Opaque,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Http => "http",
            Protocol::Postgres => "postgres",
            Protocol::Mysql => "mysql",
            Protocol::Tds => "tds",
            Protocol::Mcp => "mcp",
            Protocol::Opaque => "opaque",
        })
    }
}

impl Target {
    /// Whether tokens of this audience are for it.
    pub fn takes(&self, audience: &str) -> bool {
        let audience = identity::audience(audience);
        self.audiences.contains(&audience) || identity::host_of(&audience).is_some_and(|host| self.lists(&host))
    }

    fn lists(&self, host: &Host) -> bool {
        self.hosts.iter().any(|pattern| pattern.matches(host))
    }
}

impl WorkloadSettings {
    /// Whether the filesystem view or the kernel leaves a hole that lowers the containment level to *steered*; each is
    /// named in one line.
    pub fn holes(&self) -> Vec<&'static str> {
        let mut holes = Vec::new();
        if self.home == Home::Full {
            holes.push("`home = \"full\"` shows keys and start-up files; use \"guarded\" or \"private\"");
        }
        holes
    }
}

/// Whether `address` is one that a workload keeps for itself unless a target names the port.
pub fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}
