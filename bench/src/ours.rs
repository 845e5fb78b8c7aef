//! Interceptor as its users run it: 200 policies over 20 targets, masks, a tenant, the record as it comes. The load is a
//! workload that signs in through it; what was recorded is counted in the database itself.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use interceptor_tests::daemon::{Daemon, Order};
use interceptor_tests::entra::Entra;
use interceptor_tests::entra::directory::{CONTOSO, CRM, GRAPH};
use rusqlite::{Connection, OpenFlags};

use crate::peers::Site;
use crate::pki::HOST;

const LOGIN: &str = "login.microsoftonline.com";
/// How many policies there are.
const POLICIES: usize = 200;
/// Other targets than those that are asked for.
const OTHERS: usize = 18;
/// How long the record may take to have everything.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a GET of the API is decided on: these ten.
const SLICE: &str = r#"
@id("users") @mask("people")
permit (principal, action in Action::"http:read", resource == Target::"graph")
  when { context.http.s1 == "users" && context.base.credential == "entra" && context.base.bound == "issued-here" };
@id("reports") @mask("people")
permit (principal, action in Action::"http:read", resource == Target::"graph")
  when { context.http.s1 == "reports" && context.base.credential == "entra" && context.base.bound == "issued-here" };
@id("scans") @mask("everything")
permit (principal, action in Action::"http:read", resource == Target::"graph")
  when { context.http.s1 == "scans" && context.base.credential == "entra" && context.base.bound == "issued-here" };
@id("drive")
permit (principal, action in Action::"http:read", resource == Target::"graph")
  when { context.http.s1 == "drive" && context.base.credential == "entra" && context.base.bound == "issued-here" };
@id("no-messages") forbid (principal, action in Action::"http", resource == Target::"graph")
  when { context.http.segments > 3 && context.http.s3 == "messages" };
@id("no-search") forbid (principal, action in Action::"http", resource == Target::"graph")
  when { context.http.query.hasTag("$search") };
@id("no-beta") forbid (principal, action in Action::"http", resource == Target::"graph")
  when { context.http.path like "/beta/*" };
@id("quarantine") forbid (principal, action in Action::"http", resource == Target::"graph")
  when { context.base.classes.contains("quarantined") };
@id("no-agents") forbid (principal, action in Action::"http", resource == Target::"graph")
  when { context.base.kind == "agent-user" };
@id("while-it-lasts") forbid (principal, action in Action::"http", resource == Target::"graph")
  when { context.base.now > datetime("2099-01-01") };
"#;

/// The ways there.
const WAYS: &str = r#"
@id("graph-reach") permit (principal, action in Action::"reach", resource == Target::"graph");
@id("entra-reach") permit (principal, action in Action::"reach", resource == Target::"entra");
@id("sign-in") permit (principal, action in Action::"http:read", resource == Target::"entra");
@id("tokens") permit (principal, action == Action::"token:request", resource == Target::"graph");
"#;

const MASKS: &str = r#"
[[mask]]
name = "people"
json = ["$..mail", "$..mobilePhone", "$..userPrincipalName"]

[[mask]]
name = "everything"
detect = ["email", "payment-card", "us-ssn", "iban", "phone", "jwt", "pem", "api-key", "secret"]
"#;

/// A daemon with its configuration.
pub(crate) struct Ours {
    pub(crate) daemon: Daemon,
}

impl Ours {
    /// Starts one; `record` are keys of its `[record]`.
    pub(crate) fn start(site: &Site, entra: &Entra, record: &str) -> Result<Self> {
        let mut targets = format!(
            "[[target]]\nname = \"graph\"\nhosts = [\"{HOST}\"]\n[[target]]\nname = \"entra\"\nhosts = [\"{LOGIN}\"]\n"
        );
        for number in 0..OTHERS {
            // Writing to a string can't fail.
            let _ = write!(targets, "[[target]]\nname = \"t{number}\"\nhosts = [\"t{number}.contoso.example\"]\n");
        }
        let tenant = CONTOSO.id;
        let order = Order {
            purpose: "bench",
            policy: policies(),
            resolve: vec![(HOST.to_owned(), site.origin), (LOGIN.to_owned(), entra.places().login)],
            extra_ca: std::fs::read_to_string(site.pki.ca())? + &entra.ca_pem(),
            targets,
            more: format!("{MASKS}\n[[tenant]]\nid = \"{tenant}\"\n[record]\n{record}\n[limits]\nconnections = 4096\n"),
            workload: String::new(),
            bring: vec!["bench"],
        };
        Ok(Self { daemon: Daemon::start(&order)? })
    }

    /// The load as a workload of it.
    pub(crate) fn load(&self, arguments: &[String]) -> Result<Command> {
        let program = self.daemon.binary("bench");
        let form = format!(
            "grant_type=client_credentials&client_id={}&client_secret={}&scope={}/.default",
            CRM.id,
            CRM.secret.unwrap_or_default(),
            GRAPH.uris[0]
        );
        let url = format!("https://{LOGIN}/{}/oauth2/v2.0/token", CONTOSO.id);
        let mut command = vec![program.to_str().context("a path in UTF-8")?, "load"];
        command.extend(arguments.iter().map(String::as_str));
        command.extend(["--login", &url, "--form", &form]);
        Ok(self.daemon.run(&command))
    }

    /// The number of the last event so far.
    pub(crate) fn mark(&self) -> Result<u64> {
        count(&self.daemon.database(), "SELECT coalesce(max(seq), 0) FROM events", 0)
    }

    /// Waits until so many requests are recorded after the mark, with verdict and outcome. Gives how many there are, and how
    /// long that took.
    pub(crate) fn rows(&self, mark: u64, expected: u64) -> Result<(u64, Duration)> {
        let sql = "SELECT count(*) FROM operations WHERE seq > ?1 AND action = 'http:GET' AND finished_at IS NOT NULL";
        let start = Instant::now();
        loop {
            let found = count(&self.daemon.database(), sql, mark)?;
            if found >= expected || start.elapsed() > PATIENCE {
                return Ok((found, start.elapsed()));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// A token as it is issued to the load, for those who don't look at it.
pub(crate) fn token(entra: &Entra) -> Result<String> {
    entra.app_token(CONTOSO, CRM, GRAPH)?.build()
}

fn count(database: &Path, sql: &str, after: u64) -> Result<u64> {
    let db = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    db.busy_timeout(Duration::from_secs(2))?;
    let mut statement = db.prepare(sql)?;
    let found: i64 = if statement.parameter_count() == 0 {
        statement.query_row([], |row| row.get(0))?
    } else {
        statement.query_row([after.cast_signed()], |row| row.get(0))?
    };
    ensure!(found >= 0, "a negative count");
    Ok(found.cast_unsigned())
}

/// The slice, the ways, and policies for other targets up to [`POLICIES`].
fn policies() -> String {
    let mut text = SLICE.to_owned() + WAYS;
    let so_far = text.matches("@id(").count();
    for number in so_far..POLICIES {
        let (target, kind) = (number % OTHERS, number / OTHERS % 2);
        let (effect, condition) = match kind {
            0 => {
                ("permit", format!("context.http.s1 == \"collection{number}\" && context.base.credential == \"entra\""))
            }
            _ => ("forbid", format!("context.http.path like \"/v1.0/*/private{number}/*\"")),
        };
        let _ = writeln!(
            text,
            "@id(\"p{number}\") {effect} (principal, action in Action::\"http:read\", resource == Target::\"t{target}\") \
             when {{ {condition} }};"
        );
    }
    text
}

#[cfg(test)]
mod tests;
