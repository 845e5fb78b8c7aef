//! Interceptor as its users run it: 200 policies over 20 targets, masks, a tenant, the record as it comes; or with less or
//! more of that ([`Shape`]). The load is a workload that signs in through it; what was recorded is counted in the database
//! itself.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use interceptor_tests::daemon::{Daemon, Order, UID};
use interceptor_tests::entra::Entra;
use interceptor_tests::entra::directory::{CONTOSO, CRM, GRAPH};
use rusqlite::{Connection, OpenFlags};

use crate::peers::Site;
use crate::pki::HOST;
pub(crate) use policies::Policies;

pub(crate) mod policies;

const LOGIN: &str = "login.microsoftonline.com";
/// How long the record may take to have everything.
const PATIENCE: Duration = Duration::from_secs(30);

const MASKS: &str = r#"
[[mask]]
name = "people"
json = ["$..mail", "$..mobilePhone", "$..userPrincipalName"]

[[mask]]
name = "everything"
detect = ["email", "payment-card", "us-ssn", "iban", "phone", "jwt", "pem", "api-key", "secret"]
"#;

/// What a daemon has to do.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    pub(crate) policies: Policies,
    /// Whether the policies' masks are there.
    pub(crate) is_masked: bool,
    /// Keys of its `[record]`.
    pub(crate) record: String,
    /// How many connections a workload may have.
    pub(crate) connections: usize,
    /// Workloads besides that of the load.
    pub(crate) others: usize,
}

impl Shape {
    /// As users run it; `record` are keys of its `[record]`.
    pub(crate) fn usual(record: &str) -> Self {
        Self {
            policies: Policies::Many(policies::USUAL),
            is_masked: true,
            record: record.to_owned(),
            connections: 4096,
            others: 0,
        }
    }
}

/// A daemon with its configuration.
pub(crate) struct Ours {
    pub(crate) daemon: Daemon,
    pub(crate) shape: Shape,
}

impl Ours {
    /// Starts one.
    pub(crate) fn start(site: &Site, entra: &Entra, shape: &Shape) -> Result<Self> {
        Self::start_with(shape.policies, site, entra, shape)
    }

    /// Starts one with these policies, which [`load_policies`](Self::load_policies) replaces by its own.
    pub(crate) fn start_with(first: Policies, site: &Site, entra: &Entra, shape: &Shape) -> Result<Self> {
        let mut targets = format!("[[target]]\nname = \"graph\"\nhosts = [\"{HOST}\"]\n");
        let mut more = format!("[record]\n{}\n", shape.record);
        // Writing to a string can't fail.
        let _ = write!(more, "[limits]\nconnections = {}\nidle_timeout = \"1h\"\n", shape.connections);
        for number in 0..shape.others {
            let _ = write!(more, "[[workload]]\nname = \"{}\"\nmatch = {{ uid = {UID} }}\n", other(number));
        }
        if shape.policies.ask_for_tokens() {
            let _ = write!(more, "{MASKS}\n[[tenant]]\nid = \"{}\"\n", CONTOSO.id);
            let _ = write!(targets, "[[target]]\nname = \"entra\"\nhosts = [\"{LOGIN}\"]\n");
        }
        for number in 0..shape.policies.others() {
            let _ = write!(targets, "[[target]]\nname = \"t{number}\"\nhosts = [\"t{number}.contoso.example\"]\n");
        }
        let order = Order {
            purpose: "bench",
            policy: first.text(shape.is_masked),
            resolve: vec![(HOST.to_owned(), site.origin), (LOGIN.to_owned(), entra.places().login)],
            extra_ca: std::fs::read_to_string(site.pki.ca())? + &entra.ca_pem(),
            targets,
            more,
            workload: String::new(),
            bring: vec!["bench"],
        };
        Ok(Self { daemon: Daemon::start(&order)?, shape: shape.clone() })
    }

    /// Loads its policies; gives how long that took.
    pub(crate) fn load_policies(&self) -> Result<Duration> {
        let (text, start) = (self.shape.policies.text(self.shape.is_masked), Instant::now());
        let output = self.daemon.reload(&text)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "the policies aren't loaded: {}", said.trim());
        Ok(start.elapsed())
    }

    /// The load as a workload of it.
    pub(crate) fn load(&self, arguments: &[String]) -> Result<Command> {
        self.load_as("crm", arguments)
    }

    /// The load as another workload of it.
    pub(crate) fn load_beside(&self, number: usize, arguments: &[String]) -> Result<Command> {
        self.load_as(&other(number), arguments)
    }

    fn load_as(&self, workload: &str, arguments: &[String]) -> Result<Command> {
        let mut command = self.daemon.as_user(&self.daemon.binary("interceptor"));
        command.arg("run").arg("--socket").arg(self.daemon.socket()).args(["--workload", workload, "--"]);
        command.arg(self.daemon.binary("bench")).arg("load").args(arguments);
        if self.shape.policies.ask_for_tokens() {
            let secret = CRM.secret.context("a client with a secret")?;
            let form = format!(
                "grant_type=client_credentials&client_id={}&client_secret={secret}&scope={}/.default",
                CRM.id, GRAPH.uris[0]
            );
            let url = format!("https://{LOGIN}/{}/oauth2/v2.0/token", CONTOSO.id);
            command.args(["--login", &url, "--form", &form]);
        }
        Ok(command)
    }

    /// The number of the last event so far.
    pub(crate) fn mark(&self) -> Result<u64> {
        count(&self.daemon.database(), "SELECT coalesce(max(seq), 0) FROM events", 0)
    }

    /// Waits until so many requests are recorded after the mark, with verdict and outcome. Gives how many there are, and how
    /// long that took.
    pub(crate) fn rows(&self, mark: u64, expected: u64) -> Result<(u64, Duration)> {
        self.rows_within(mark, expected, PATIENCE)
    }

    /// The same, with other patience.
    pub(crate) fn rows_within(&self, mark: u64, expected: u64, patience: Duration) -> Result<(u64, Duration)> {
        let sql = "SELECT count(*) FROM operations WHERE seq > ?1 AND action = 'http:GET' AND finished_at IS NOT NULL";
        let start = Instant::now();
        loop {
            let found = count(&self.daemon.database(), sql, mark)?;
            if found >= expected || start.elapsed() > patience {
                return Ok((found, start.elapsed()));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// The name of another workload.
fn other(number: usize) -> String {
    format!("w{number}")
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
