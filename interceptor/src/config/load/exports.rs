//! The sinks outside the host, `[[export]]`.

use std::collections::HashSet;
use std::path::PathBuf;

use super::super::raw::{At, RawExport};
use super::super::{BatchFormat, ExportSettings, Host, SinkSettings, is_post_url};
use super::Resolver;

/// Syslog over TLS (RFC 5425 section 4.1).
const SYSLOG_PORT: u16 = 6514;

/// Where an OTLP receiver takes logs (OTLP specification, OTLP/HTTP request).
const OTLP_LOGS: &str = "/v1/logs";

impl Resolver<'_> {
    pub(super) fn exports(&mut self, raw: &[RawExport]) -> Vec<ExportSettings> {
        let mut names = HashSet::new();
        raw.iter().filter_map(|raw| self.export(raw, &mut names)).collect()
    }

    fn export(&mut self, raw: &RawExport, names: &mut HashSet<String>) -> Option<ExportSettings> {
        let name = self.name(&raw.name, "export", names);
        let ca = raw.ca.as_ref().map(|at| self.path(Some(at), PathBuf::new));
        let bearer = raw.bearer_file.as_ref().map(|at| self.path(Some(at), PathBuf::new));
        let sink = match raw.kind.value().as_str() {
            "syslog" => {
                self.unfit(raw, &[("url", raw.url.as_ref()), ("format", raw.format.as_ref())]);
                self.unfit(raw, &[("bearer_file", raw.bearer_file.as_ref())]);
                let (host, port) = self.receiver(raw)?;
                Some(SinkSettings::Syslog { host, port })
            }
            "http" => {
                self.unfit(raw, &[("address", raw.address.as_ref())]);
                let format = self.format(raw.format.as_ref());
                self.post_url(raw).map(|url| SinkSettings::Http { url, format, bearer })
            }
            "otlp" => {
                self.unfit(raw, &[("address", raw.address.as_ref()), ("format", raw.format.as_ref())]);
                self.post_url(raw).map(|url| {
                    let base = url.trim_end_matches('/');
                    let url = if base.ends_with(OTLP_LOGS) { base.to_owned() } else { format!("{base}{OTLP_LOGS}") };
                    SinkSettings::Otlp { url, bearer }
                })
            }
            other => {
                let message = format!("`{other}` isn't a kind of sink");
                self.wrong(raw.kind.span(), message, "`syslog`, `http` or `otlp`");
                None
            }
        };
        Some(ExportSettings { name: name?, sink: sink?, ca })
    }

    /// Notes keys that another kind of sink has.
    fn unfit(&mut self, raw: &RawExport, keys: &[(&str, Option<&At<String>>)]) {
        for (key, at) in keys {
            if let Some(at) = at {
                let message = format!("`{key}` says nothing to a sink of the kind `{}`", raw.kind.value());
                self.wrong(at.span(), message, "remove it: it would have no effect");
            }
        }
    }

    fn receiver(&mut self, raw: &RawExport) -> Option<(Host, u16)> {
        let Some(at) = &raw.address else {
            self.wrong(raw.kind.span(), "the sink has no `address`", "as in `address = \"siem.example.com:6514\"`");
            return None;
        };
        let text = at.value();
        let whole = text.parse::<Host>().ok().map(|host| (host, SYSLOG_PORT));
        let found = whole.or_else(|| {
            let (host, port) = text.rsplit_once(':')?;
            Some((host.parse().ok()?, port.parse().ok().filter(|port| *port != 0)?))
        });
        if found.is_none() {
            self.wrong(at.span(), format!("`{text}` isn't a receiver"), "a host, or `HOST:PORT`");
        }
        found
    }

    fn post_url(&mut self, raw: &RawExport) -> Option<String> {
        let Some(at) = &raw.url else {
            self.wrong(raw.kind.span(), "the sink has no `url`", "as in `url = \"https://siem.example.com/ingest\"`");
            return None;
        };
        let usable = is_post_url(at.value());
        if !usable {
            // Not shown: who puts a user into a URL puts a password there too.
            let expected = "as in `https://siem.example.com/ingest`, without a user in it";
            self.wrong(at.span(), "the sink's URL can't be used", expected);
        }
        usable.then(|| at.value().clone())
    }

    fn format(&mut self, at: Option<&At<String>>) -> BatchFormat {
        match at.map(|at| (at.value().as_str(), at.span())) {
            None | Some(("ndjson", _)) => BatchFormat::Lines,
            Some(("json", _)) => BatchFormat::Array,
            Some((other, span)) => {
                self.wrong(span, format!("`{other}` isn't a format"), "`ndjson` or `json`");
                BatchFormat::Lines
            }
        }
    }
}
