//! A target's `credential`: exactly one kind, exactly one source for its secret, and only where it can't end up with
//! somebody else.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::raw::{At, RawCredential};
use super::super::{CredentialKind, CredentialSettings, Protocol, SecretSource, units};
use super::Resolver;

/// How long a secret from a file is used before the file is read again.
const REREAD: Duration = Duration::from_secs(30);

/// Header fields that belong to the message, not to who sends it.
const FRAMING: [&str; 10] = [
    "host",
    "content-length",
    "content-type",
    "content-encoding",
    "transfer-encoding",
    "connection",
    "upgrade",
    "te",
    "trailer",
    "expect",
];

impl Resolver<'_> {
    /// Resolves a credential of a target that speaks `protocol`; `any_account` is that of the target.
    pub(super) fn credential(
        &mut self,
        at: &At<RawCredential>,
        protocol: Protocol,
        any_account: bool,
    ) -> Option<CredentialSettings> {
        let raw = at.value();
        if !matches!(protocol, Protocol::Http | Protocol::Mcp) {
            self.wrong(at.span(), format!("a `{protocol}` target takes no credential"), "`protocol = \"http\"`");
        }
        if any_account {
            let message = "the credential would be sent to everybody's accounts";
            self.wrong(at.span(), message, "a target of its own with your own hosts, without `any_account`");
        }
        let kinds = [
            raw.header.is_some(),
            raw.basic.is_some(),
            raw.query.is_some(),
            raw.client_cert.is_some(),
            raw.shared_key.is_some(),
        ];
        if kinds.iter().filter(|given| **given).count() != 1 {
            let expected = "exactly one of `header`, `basic`, `query`, `client_cert` and `shared_key`";
            self.wrong(at.span(), "the credential's kind isn't clear", expected);
            return None;
        }
        if let (Some(prefix), None) = (&raw.prefix, &raw.header) {
            self.wrong(prefix.span(), "`prefix` belongs to `header`", "remove it");
        }
        let mut file = raw.value_file.as_ref();
        let kind = if let Some(name) = &raw.header {
            let prefix = raw.prefix.as_ref().map(|prefix| prefix.value().clone()).unwrap_or_default();
            self.header(name, raw.prefix.as_ref());
            let source = self.secret_source(at, file, "value_file")?;
            CredentialKind::Header { name: name.value().to_ascii_lowercase(), prefix, source }
        } else if let Some(basic) = &raw.basic {
            let user = &basic.value().user;
            if user.value().contains([':', '\0', '\n', '\r']) {
                self.wrong(user.span(), "a user's name has no `:` and no control characters", "RFC 7617");
            }
            self.misplaced(&mut file, "basic.password_file");
            let source = self.secret_source(at, basic.value().password_file.as_ref(), "basic.password_file")?;
            CredentialKind::Basic { user: user.value().clone(), source }
        } else if let Some(key) = &raw.query {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_.~$".contains(c);
            if key.value().is_empty() || !key.value().chars().all(plain) {
                let message = format!("`{}` isn't a query key", key.value());
                self.wrong(key.span(), message, "letters, digits and `-_.~$`");
            }
            let source = self.secret_source(at, file, "value_file")?;
            CredentialKind::Query { key: key.value().clone(), source }
        } else if let Some(shared) = &raw.shared_key {
            let account = &shared.value().account;
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
            if !(3..=24).contains(&account.value().len()) || !account.value().chars().all(plain) {
                let message = format!("`{}` isn't a storage account", account.value());
                self.wrong(account.span(), message, "3 to 24 lower-case letters and digits");
            }
            self.misplaced(&mut file, "shared_key.key_file");
            let source = self.secret_source(at, shared.value().key_file.as_ref(), "shared_key.key_file")?;
            CredentialKind::SharedKey { account: account.value().clone(), source }
        } else {
            self.misplaced(&mut file, "client_cert");
            if let Some(command) = &raw.command {
                self.wrong(command.span(), "a client certificate comes from files", "`client_cert` and `client_key`");
            }
            let (Some(certificate), Some(key)) = (&raw.client_cert, &raw.client_key) else {
                self.wrong(at.span(), "the client certificate has no key", "`client_key = \"/…/key.pem\"`");
                return None;
            };
            CredentialKind::ClientCertificate {
                certificate: self.path(Some(certificate), PathBuf::new),
                key: self.path(Some(key), PathBuf::new),
            }
        };
        if let (Some(key), None) = (&raw.client_key, &raw.client_cert) {
            self.wrong(key.span(), "`client_key` belongs to `client_cert`", "remove it");
        }
        let ttl = match (&raw.ttl, &raw.command) {
            (Some(at), None) => {
                self.wrong(at.span(), "`ttl` belongs to `command`", "remove it: files are read again by themselves");
                REREAD
            }
            (ttl, Some(_)) => self.duration(ttl.as_ref(), "5m", Duration::from_secs(1)..=units::DAY),
            (None, None) => REREAD,
        };
        Some(CredentialSettings { kind, ttl })
    }

    fn header(&mut self, name: &At<String>, prefix: Option<&At<String>>) {
        let lower = name.value().to_ascii_lowercase();
        if lower.parse::<http::HeaderName>().is_err() || FRAMING.contains(&lower.as_str()) {
            let message = format!("`{}` isn't a header for a credential", name.value());
            self.wrong(name.span(), message, "a field name such as `Authorization` or `X-Api-Key`");
        }
        if let Some(prefix) = prefix
            && prefix.value().chars().any(|c| !c.is_ascii() || c.is_ascii_control())
        {
            self.wrong(prefix.span(), "the prefix can't stand in a header", "printable ASCII, as in `Bearer `");
        }
    }

    /// `value_file` beside a kind whose file has another name.
    fn misplaced(&mut self, file: &mut Option<&At<String>>, name: &str) {
        if let Some(at) = file.take() {
            self.wrong(at.span(), "`value_file` belongs to `header` and `query`", format!("`{name}`"));
        }
    }

    fn secret_source(&mut self, at: &At<RawCredential>, file: Option<&At<String>>, name: &str) -> Option<SecretSource> {
        match (file, &at.value().command) {
            (Some(file), None) => Some(SecretSource::File(self.path(Some(file), PathBuf::new))),
            (None, Some(command)) => {
                let words: Vec<String> = command.value().iter().map(|word| word.value().clone()).collect();
                if !words.first().is_some_and(|program| Path::new(program).is_absolute()) {
                    let expected = "the absolute path of a program and its arguments; there is no shell";
                    self.wrong(command.span(), "the command has no program", expected);
                }
                Some(SecretSource::Command(words))
            }
            _ => {
                let message = "where the secret comes from isn't clear";
                self.wrong(at.span(), message, format!("either `{name}` or `command`"));
                None
            }
        }
    }
}
