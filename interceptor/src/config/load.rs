//! From the text of a configuration to [`Settings`]: the shape first (`raw`), then everything that serde can't judge.
//! All mistakes of the second step are gathered, each with its place. The tables that can repeat are in `entries`.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::ops::{Range, RangeInclusive};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use nix::unistd::{Group, User};
use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::mistake::Collector;
use super::raw::{At, Raw, RawControl, RawLimits, RawRecord, RawUpstream};
use super::{
    Anchor, ConfigError, Control, Durability, Expansion, HoldLimits, Host, Limits, Members, NotifyWay, Paths,
    PayloadLevel, PayloadSettings, RecordSettings, Settings, Targets, Trust, Upstream, trust, units,
};

mod adopted;
mod credential;
mod entries;
mod exports;
mod identities;
mod login;
mod masks;
mod notify;
mod retention;

impl Settings {
    /// Reads the configuration file at `path`, whoever owns it: for checks and what-ifs. Relative paths and `~` are
    /// refused in the file; `path` itself may be relative.
    ///
    /// # Errors
    ///
    /// The file can't be read, or what it says can't be used.
    pub fn load(path: &Path) -> Result<Settings, ConfigError> {
        parse(path, &trust::read(path, Trust::Unchecked)?, Trust::Unchecked)
    }

    /// Reads the configuration file at `path` for the daemon: it, the folders above it, every `extra_ca` and every
    /// file of detectors may be written by root (or the daemon's own user) only.
    ///
    /// # Errors
    ///
    /// As [`Settings::load`], and where somebody else could have written one of the files.
    pub fn load_trusted(path: &Path) -> Result<Settings, ConfigError> {
        let settings = parse(path, &trust::read(path, Trust::Daemon)?, Trust::Daemon)?;
        let own = settings.exports.iter().filter_map(|export| export.ca.as_ref());
        let told = settings.notify.iter().filter_map(|channel| match &channel.way {
            NotifyWay::Post { ca, .. } => ca.as_ref(),
            NotifyWay::Command { .. } => None,
        });
        for pem in settings.upstream.extra_ca.iter().chain(own).chain(told) {
            trust::read(pem, Trust::Daemon)?;
        }
        Ok(settings)
    }

    /// Reads a configuration from `text`. `name` is its path, for the errors and for the defaults of `policy_dir` and `break_glass_dir`.
    ///
    /// # Errors
    ///
    /// The text isn't TOML, has unknown keys or wrong types (the first such mistake), or says what can't be used (all
    /// such mistakes).
    pub fn parse(name: impl AsRef<Path>, text: &str) -> Result<Settings, ConfigError> {
        parse(name.as_ref(), text, Trust::Unchecked)
    }
}

/// `trust` judges the files that the configuration names.
fn parse(path: &Path, text: &str, trust: Trust) -> Result<Settings, ConfigError> {
    let mut collector = Collector::new(&path.display().to_string(), text);
    let mut table = match DeTable::parse(text) {
        Ok(table) => table,
        Err(error) => return Err(refused(collector, &error, text)),
    };
    later_keys(table.get_mut(), &mut collector);
    let raw = match Raw::deserialize(toml::de::Deserializer::from(table)) {
        Ok(raw) => raw,
        Err(error) => return Err(refused(collector, &error, text)),
    };
    let settings = resolve(path, raw, trust, &mut collector)?;
    collector.finish(settings)
}

/// The JSON schema of the configuration file, for editors.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(Raw).to_value()
}

pub(super) fn refused(mut collector: Collector, error: &toml::de::Error, text: &str) -> ConfigError {
    let span = error.span().unwrap_or(text.len()..text.len());
    let message = error.message();
    let (message, expected) = message.split_once(", expected ").unwrap_or((message, ""));
    let expected = match expected {
        "" if message.starts_with("missing field") => "every key without a default",
        "" if message.starts_with("duplicate key") => "each key and each table once",
        "i64" => "a whole number",
        "a sequence" => "a list, or a table in double brackets",
        struct_name if struct_name.starts_with("struct ") => "a table",
        other => other,
    };
    collector.note(span, lower(message), expected);
    collector.fail()
}

/// Error texts begin in lower case here; the parser's don't always.
fn lower(message: &str) -> String {
    let mut chars = message.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

/// Keys of the design that no released version acts on yet. Ignoring one would promise what isn't kept.
const LATER: &[(&str, &[&str])] = &[
    ("", &["approval", "grant", "holidays"]),
    ("upstream", &["proxy"]),
    ("record", &["seal", "prune"]),
    ("workload", &["dns", "adopt"]),
    ("target", &["accept"]),
];

fn later_keys(root: &mut DeTable<'_>, collector: &mut Collector) {
    for (table, keys) in LATER {
        if table.is_empty() {
            take_later(root, keys, collector);
            continue;
        }
        match root.get_mut(*table).map(Spanned::get_mut) {
            Some(DeValue::Table(inner)) => take_later(inner, keys, collector),
            Some(DeValue::Array(list)) => {
                for item in list.iter_mut() {
                    if let DeValue::Table(inner) = item.get_mut() {
                        take_later(inner, keys, collector);
                    }
                }
            }
            _ => {}
        }
    }
}

fn take_later(table: &mut DeTable<'_>, keys: &[&str], collector: &mut Collector) {
    for key in keys {
        if let Some((at, _)) = table.remove_entry(*key) {
            collector.note(at.span(), format!("`{key}` is not built yet"), "remove it: it would have no effect");
        }
    }
}

fn resolve(path: &Path, raw: Raw, trust: Trust, collector: &mut Collector) -> Result<Settings, ConfigError> {
    let mut resolver = Resolver { collector };
    let paths = resolver.paths(path, &raw);
    let cgroup = resolver.cgroup(raw.cgroup.as_ref());
    let control = resolver.control(&raw.control);
    let record = resolver.record(&raw.record, !raw.export.is_empty());
    let payload = resolver.payload(&raw.record);
    let exports = resolver.exports(&raw.export);
    let upstream = resolver.upstream(&raw.upstream);
    let limits = resolver.limits(&raw.limits);
    let identities = resolver.identities(&raw);
    let notify = resolver.notify(&raw.notify, &identities);
    let workloads = resolver.workloads(&raw.workload, &cgroup);
    let record =
        RecordSettings { keep_payloads_of: resolver.keep_of(&raw.record.keep_payloads_of, &workloads), ..record };
    let masks = resolver.masks(&raw.mask, trust)?;
    let targets = Targets::new(resolver.targets(&raw.target, &identities, &masks));
    resolver.published_beside(&raw.workload, &targets);
    Ok(Settings {
        paths,
        cgroup,
        control,
        record,
        payload,
        exports,
        notify,
        upstream,
        limits,
        identities,
        workloads,
        targets,
        masks,
    })
}

/// Judges what serde can't, and notes every mistake. What is wrong yields a default, which nobody gets to see.
struct Resolver<'a> {
    collector: &'a mut Collector,
}

impl Resolver<'_> {
    fn wrong(&mut self, span: Range<usize>, message: impl Into<String>, expected: impl Into<String>) {
        self.collector.note(span, message, expected);
    }

    /// The same of a value, with its key: the message may be read where the line isn't.
    fn wrong_value<T: Display>(&mut self, at: &At<T>, what: &str, expected: impl Into<String>) {
        let message = match self.collector.key(at.span().start) {
            "" => format!("`{}` {what}", at.value()),
            key => format!("`{key}`: `{}` {what}", at.value()),
        };
        self.wrong(at.span(), message, expected);
    }

    fn paths(&mut self, config: &Path, raw: &Raw) -> Paths {
        let config = std::path::absolute(config).unwrap_or_else(|_| config.to_path_buf());
        let beside = config.parent().unwrap_or(Path::new("/"));
        let runtime = self.path(raw.runtime_dir.as_ref(), || "/run/interceptor".into());
        let pins = self.path(raw.pin_dir.as_ref(), || "/sys/fs/bpf/interceptor".into());
        if let (Some(at), Some(name)) = (&raw.pin_dir, pins.file_name())
            && name.as_encoded_bytes().contains(&b'.')
        {
            self.wrong(at.span(), format!("`{}` has a dot in its name", at.value()), "a name that bpffs takes");
        }
        Paths {
            policy: self.path(raw.policy_dir.as_ref(), || beside.join("policy.d")),
            break_glass: self.path(raw.break_glass_dir.as_ref(), || beside.join("break-glass.d")),
            state: self.path(raw.state_dir.as_ref(), || "/var/lib/interceptor".into()),
            control_socket: self.socket(raw.control_socket.as_ref(), runtime.join("control.sock")),
            metrics_socket: self.socket(raw.metrics_socket.as_ref(), runtime.join("metrics.sock")),
            docker: self.path(raw.docker_dir.as_ref(), || "/var/lib/docker".into()),
            podman: self.path(raw.podman_dir.as_ref(), || "/var/lib/containers/storage".into()),
            config,
            runtime,
            pins,
        }
    }

    fn path(&mut self, at: Option<&At<String>>, default: impl FnOnce() -> PathBuf) -> PathBuf {
        let Some(at) = at else { return default() };
        let path = PathBuf::from(at.value());
        let plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
        if !path.is_absolute() || !path.components().all(plain) || at.value().contains('\0') {
            let message = format!("`{}` isn't an absolute path without `..`", at.value());
            self.wrong(at.span(), message, "a path such as `/var/lib/interceptor`");
        }
        path
    }

    fn socket(&mut self, at: Option<&At<String>>, default: PathBuf) -> PathBuf {
        let path = self.path(at, || default);
        if let Some(at) = at
            && path.as_os_str().len() > 100
        {
            self.wrong(
                at.span(),
                "the path is too long for a socket",
                "at most 100 bytes (unix(7) has room for 107, and the name grows while it is made)",
            );
        }
        path
    }

    fn cgroup(&mut self, at: Option<&At<String>>) -> String {
        let Some(at) = at else { return "interceptor".into() };
        let part = |part: &str| !part.is_empty() && !matches!(part, "." | "..") && !part.contains(['\0', '\n']);
        if !at.value().split('/').all(part) {
            let message = format!("`{}` isn't the name of a cgroup", at.value());
            self.wrong(at.span(), message, "a path below the root of cgroup2, such as `interceptor`");
        }
        at.value().clone()
    }

    fn control(&mut self, raw: &RawControl) -> Control {
        Control { operators: self.members(&raw.operators), auditors: self.members(&raw.auditors) }
    }

    fn members(&mut self, listed: &[At<String>]) -> Members {
        let mut members = Members::default();
        for at in listed {
            match at.value().split_once(':') {
                Some(("user", name)) => members.uids.extend(self.uid(name, at.span())),
                Some(("group", name)) => members.gids.extend(self.gid(name, at.span())),
                _ => self.wrong(
                    at.span(),
                    format!("`{}` is neither a user nor a group", at.value()),
                    "`user:NAME` or `group:NAME`",
                ),
            }
        }
        members
    }

    fn uid(&mut self, name: &str, span: Range<usize>) -> Option<u32> {
        let known = User::from_name(name).ok().flatten().map(|user| user.uid.as_raw());
        // A directory of users may be out of reach when this is read; numbers always say who is meant.
        let found = known.or_else(|| name.parse().ok());
        if found.is_none() {
            let expected = "a name that `getent passwd` knows, or a uid";
            self.wrong(span, format!("there is no user `{name}` on this host"), expected);
        }
        found
    }

    fn gid(&mut self, name: &str, span: Range<usize>) -> Option<u32> {
        let known = Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw());
        let found = known.or_else(|| name.parse().ok());
        if found.is_none() {
            let expected = "a name that `getent group` knows, or a gid";
            self.wrong(span, format!("there is no group `{name}` on this host"), expected);
        }
        found
    }

    fn record(&mut self, raw: &RawRecord, has_sinks: bool) -> RecordSettings {
        let durability = match raw.durability.as_ref().map(|at| at.value().as_str()) {
            None | Some("process") => Durability::Process,
            Some("power-loss") => Durability::PowerLoss,
            Some(other) => {
                let span = raw.durability.as_ref().map_or(0..0, At::span);
                self.wrong(span, format!("`{other}` isn't a durability"), "`process` or `power-loss`");
                Durability::Process
            }
        };
        let segment_bytes = self.size(raw.segment.as_ref(), "16MiB", MIB..=GIB);
        let backlog_bytes = self.size(raw.backlog.as_ref(), "256MiB", MIB..=64 * GIB);
        if let Some(at) = &raw.backlog
            && backlog_bytes < segment_bytes
        {
            self.wrong(at.span(), "`backlog` is less than one `segment`", "at least the size of a segment");
        }
        let backlog_age = self.duration(raw.backlog_age.as_ref(), "5s", ms(200)..=ms(3_600_000));
        let century = 36_500 * units::DAY;
        let keep = raw.keep_payloads.as_ref();
        let keep_payloads = keep.map(|at| self.duration(Some(at), "", ms(3_600_000)..=century));
        let reserve = self.size(raw.reserve.as_ref(), "64MiB", 0..=64 * GIB);
        let anchor = match raw.anchor.as_ref().map(|at| (at.value().as_str(), at.span())) {
            None | Some(("none", _)) => Anchor::None,
            Some(("required", span)) => {
                if !has_sinks {
                    self.wrong(span, "no sink outside the host is configured", "an `[[export]]`, or `none`");
                }
                Anchor::Required
            }
            Some((other, span)) => {
                self.wrong(span, format!("`{other}` isn't an anchor"), "`required` or `none`");
                Anchor::None
            }
        };
        // Which workloads there are is known later.
        let keep_payloads_of = Default::default();
        RecordSettings {
            durability,
            segment_bytes,
            backlog_bytes,
            backlog_age,
            keep_payloads,
            keep_payloads_of,
            anchor,
            reserve,
            ..RecordSettings::default()
        }
    }

    fn payload(&mut self, raw: &RawRecord) -> PayloadSettings {
        let level = match raw.payload.as_ref().map(|at| (at.value().parse(), at)) {
            None => PayloadLevel::Full,
            Some((Ok(level), _)) => level,
            Some((Err(()), at)) => {
                self.wrong(at.span(), format!("`{}` isn't a level", at.value()), "`full`, `headers` or `none`");
                PayloadLevel::None
            }
        };
        let bytes = self.size(raw.payload_bytes.as_ref(), "1MiB", 0..=MIB);
        PayloadSettings { level, bytes: usize::try_from(bytes).unwrap_or(0) }
    }

    fn upstream(&mut self, raw: &RawUpstream) -> Upstream {
        let mut upstream = Upstream::default();
        for at in &raw.extra_ca {
            upstream.extra_ca.push(self.path(Some(at), PathBuf::new));
        }
        let mut entries: Vec<_> = raw.resolve.iter().collect();
        entries.sort_by_key(|(name, _)| name.span().start);
        for (name, at) in entries {
            let host = name.value().parse::<Host>();
            if let Err(error) = &host {
                self.wrong(name.span(), error.to_string(), "a host name or an address as the key");
            }
            let address = at.value();
            let address = address.parse::<SocketAddr>().ok().or_else(|| {
                let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
                bare.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, 0))
            });
            let Some(address) = address else {
                let message = format!("`{}` isn't an address", at.value());
                self.wrong(at.span(), message, "`ADDRESS` or `ADDRESS:PORT`, as in `127.0.0.1:8443` or `[::1]:8443`");
                continue;
            };
            if let Ok(host) = host
                && upstream.resolve.insert(host, address).is_some()
            {
                self.wrong(name.span(), format!("`{}` is resolved twice", name.value()), "one entry for each name");
            }
        }
        upstream
    }

    fn limits(&mut self, raw: &RawLimits) -> Limits {
        let (day, minute) = (ms(86_400_000), ms(60_000));
        let header_bytes = self.size(raw.header_bytes.as_ref(), "64KiB", 8 * KIB..=MIB);
        Limits {
            detect_timeout: self.duration(raw.detect_timeout.as_ref(), "5s", ms(100)..=minute),
            dial_timeout: self.duration(raw.dial_timeout.as_ref(), "10s", ms(100)..=10 * minute),
            response_timeout: self.duration(raw.response_timeout.as_ref(), "5m", ms(100)..=day),
            idle_timeout: self.duration(raw.idle_timeout.as_ref(), "90s", ms(100)..=day),
            connections: self.count(raw.connections.as_ref(), 1024, 1..=65536),
            streams: self.count(raw.streams.as_ref(), 100, 1..=1000),
            header_bytes: usize::try_from(header_bytes).unwrap_or(usize::MAX),
            header_fields: self.count(raw.header_fields.as_ref(), 100, 16..=1000),
            request_body: self.size(raw.request_body.as_ref(), "1GiB", 0..=1024 * GIB),
            response_body: self.size(raw.response_body.as_ref(), "16GiB", 0..=1024 * GIB),
            expansion: Expansion {
                free: self.size(raw.decoded_body.as_ref(), "16MiB", 0..=GIB),
                ratio: self.count(raw.decoded_ratio.as_ref(), 200, 1..=1000) as u64,
            },
            hold: HoldLimits {
                patience: self.duration(raw.hold.as_ref(), "25s", ms(0)..=ms(10 * 60_000)),
                each: self.count(raw.holds.as_ref(), 16, 1..=1024),
                all: self.count(raw.holds_in_all.as_ref(), 256, 1..=16_384),
                body: self.size(raw.approvable_body.as_ref(), "1MiB", 0..=16 << 20) as usize,
            },
            operations: self.count(raw.operations.as_ref(), 1024, 1..=65536),
            names: self.count(raw.names.as_ref(), 4096, 1..=65536),
            drain: self.duration(raw.drain.as_ref(), "10s", ms(0)..=ms(10_000)),
        }
    }

    fn duration(&mut self, at: Option<&At<String>>, default: &str, within: RangeInclusive<Duration>) -> Duration {
        let Some(at) = at else { return units::duration(default).unwrap_or_default() };
        let Some(found) = units::duration(at.value()) else {
            self.wrong_value(at, "isn't a duration", "a whole number and ms, s, m, h or d, as in \"25s\"");
            return Duration::ZERO;
        };
        if !within.contains(&found) {
            let expected = format!("{:?} to {:?}", within.start(), within.end());
            self.wrong_value(at, "is out of range", expected);
        }
        found
    }

    fn size(&mut self, at: Option<&At<String>>, default: &str, within: RangeInclusive<u64>) -> u64 {
        let Some(at) = at else { return units::size(default).unwrap_or_default() };
        let Some(found) = units::size(at.value()) else {
            self.wrong_value(at, "isn't a size", "a whole number and B, KiB, MiB or GiB, as in \"64MiB\"");
            return *within.start();
        };
        if !within.contains(&found) {
            let expected = format!("{} to {} bytes", within.start(), within.end());
            self.wrong_value(at, "is out of range", expected);
        }
        found
    }

    fn count(&mut self, at: Option<&At<i64>>, default: usize, within: RangeInclusive<usize>) -> usize {
        let Some(at) = at else { return default };
        match usize::try_from(*at.value()).ok().filter(|found| within.contains(found)) {
            Some(found) => found,
            None => {
                let expected = format!("{} to {}", within.start(), within.end());
                self.wrong_value(at, "is out of range", expected);
                default
            }
        }
    }
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

#[cfg(test)]
mod tests;
