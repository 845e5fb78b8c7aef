//! The story: what is tried, in which order, and what must come of it. What was recorded is read from the record's
//! database, not asked of the daemon.

use std::os::unix::process::CommandExt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use interceptor::record::event::Verdict;
use interceptor_tests::daemon::{Daemon, UID};
use interceptor_tests::entra::Entra;
use interceptor_tests::entra::directory::{BILLING, CONTOSO, CRM, FABRIKAM, GRAPH};
use interceptor_tests::graph::{Graph, TICKETS_KEY};
use interceptor_tests::recorded::{self, Operation};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::block_in_place;

use crate::client::{Answer, Client};
use crate::page::{Page, Step};
use crate::scene::{ADA, POLICY, TICKETS, principal};

/// What is added while the audit runs.
const FROZEN: &str = r#"
@id("audit")
@reason("the directory is closed while the audit runs")
forbid (
    principal,
    action in [Action::"http:read"],
    resource == Target::"graph"
);
"#;

/// An address that no target lists (RFC 5737: it belongs to nobody).
const LITERAL: &str = "203.0.113.7";

/// The scene, with everything that runs.
pub(crate) struct Story {
    page: Page,
    graph: Graph,
    entra: Entra,
    daemon: Daemon,
    client: Client,
    _vault: TempDir,
    steps: usize,
    wrong: usize,
}

impl Story {
    /// Starts the client with its server.
    pub(crate) async fn begin(
        page: Page,
        (graph, entra, vault): (Graph, Entra, TempDir),
        daemon: Daemon,
    ) -> Result<Self> {
        page.scene("api", &format!("an API like Microsoft Graph, on {} as graph.microsoft.com", graph.address()));
        let login = entra.places().login;
        page.scene("entra", &format!("a login host like Entra's, on {login} as login.microsoftonline.com"));
        page.scene("daemon", &format!("interceptor daemon, pid {}: serving", daemon.pid()?));
        page.scene(
            "policy",
            "`crm` may sign in, read the directory and tickets, without mail addresses and phone numbers, and add people whom HR approves; deleting is forbidden",
        );
        let mut command = daemon.run(&[&daemon.binary("crm-mcp").to_string_lossy()]);
        command
            .env("AZURE_TENANT_ID", CONTOSO.id)
            .env("AZURE_CLIENT_ID", CRM.id)
            .env("AZURE_CLIENT_SECRET", CRM.secret.unwrap_or_default());
        let client = match Client::start(command, &daemon.room().join("server.log")).await {
            Ok(client) => client,
            Err(error) => return Err(error.context(format!("the daemon said:\n{}", daemon.log()))),
        };
        let tools = client.tools().await?.len();
        page.scene(
            "server",
            &format!("interceptor run --workload crm -- crm-mcp, as uid {UID}, over stdio: {tools} tools"),
        );
        Ok(Self { page, graph, entra, daemon, client, _vault: vault, steps: 0, wrong: 0 })
    }

    /// Tells all of it; gives how many steps weren't as expected.
    pub(crate) async fn tell(&mut self) -> Result<usize> {
        let first = self.read("the server signs in, and reads the directory").await?;
        let tickets = self.tickets().await?;
        self.others_tokens().await?;
        self.delete().await?;
        self.unknown_name().await?;
        self.literal().await?;
        self.nowhere().await?;
        self.freeze(first.as_ref()).await?;
        self.thaw().await?;
        self.kill().await?;
        self.ask().await?;
        self.compare()?;
        self.show(first.as_ref(), tickets.as_ref())?;
        Ok(self.wrong)
    }

    /// Waits for Ctrl-C, with everything running.
    pub(crate) async fn stay(&self) {
        let (room, home) = (self.daemon.room().display(), self.daemon.home().display().to_string());
        let (bin, etc) = (format!("{room}/bin"), format!("{room}/etc"));
        self.page.list(
            "Everything still runs. In another terminal, as root:",
            &[
                format!("export INTERCEPTOR_SOCKET={} PATH={bin}:$PATH", self.daemon.socket().display()),
                "interceptor status".into(),
                "interceptor workloads list".into(),
                "interceptor sessions list".into(),
                "interceptor approvals list --all".into(),
                "interceptor policy show".into(),
                format!("$EDITOR {etc}/policy.d/crm.cedar && interceptor policy reload"),
                format!(
                    "cd {home} && setpriv --reuid {UID} --regid {UID} --clear-groups env HOME={home} \\\n      \
                     interceptor run --workload crm -- curl -sS https://graph.microsoft.com/v1.0/users"
                ),
            ],
        );
        self.page.note("Ctrl-C here ends it and removes everything.");
        std::future::pending::<()>().await;
    }

    /// Ends everything; fails if something is left.
    pub(crate) async fn end(self) -> Result<()> {
        self.client.stop().await?;
        block_in_place(|| self.daemon.finish())
    }

    async fn read(&mut self, title: &'static str) -> Result<Option<Operation>> {
        let mut step = Step::new(title);
        let mark = self.mark()?;
        let answer = self.call("list_users", json!({})).await?;
        saw(&mut step, &answer);
        step.expect(!answer.is_error && people(&answer) == Some(3), "200 with three people");
        let person = answer.body["value"][0].clone();
        step.say("", format!("{}: {}, {}", person["displayName"], person["mail"], person["mobilePhone"]));
        let seen = (person["mail"].as_str(), person["mobilePhone"].as_str());
        step.expect(seen == (Some("***@contoso.example"), Some("+* *** *** 0101")), "mail and phone are masked");
        self.recorded(&mut step, mark, |one| one.action == "token:request" && one.verdict == Verdict::Allow);
        let operation = self.recorded(&mut step, mark, |one| one.action == "http:GET" && one.verdict == Verdict::Allow);
        let who = operation.as_ref().and_then(|operation| operation.principal.clone());
        step.say("as", format!("crm-bot, {}", who.as_deref().unwrap_or("nobody")));
        step.expect(who == Some(principal()), "the read is recorded as the server's own principal");
        self.close(&step);
        Ok(operation)
    }

    async fn tickets(&mut self) -> Result<Option<Operation>> {
        let mut step = Step::new("it reads tickets, with a key that it never had");
        let mark = self.mark()?;
        let answer = self.call("fetch_url", json!({ "url": format!("https://{TICKETS}/v1/tickets") })).await?;
        saw(&mut step, &answer);
        step.say("", shorten(&answer.body.to_string(), 110));
        step.expect(!answer.is_error && answer.body["tickets"].is_array(), "200: the API got its key");
        let text = answer.body.to_string();
        step.expect(text.contains("***@contoso.example") && !text.contains("adele"), "mail addresses are masked");
        let operation = self.recorded(&mut step, mark, |one| one.action == "http:GET" && one.verdict == Verdict::Allow);
        step.say("daemon", "put the key in behind the verdict, from a file that only root reads");
        self.close(&step);
        Ok(operation)
    }

    async fn others_tokens(&mut self) -> Result<()> {
        let stolen = self.entra.app_token(CONTOSO, BILLING, GRAPH)?.build()?;
        let foreign = self.entra.app_token(FABRIKAM, CRM, GRAPH)?.build()?;
        for (title, token, status, code) in [
            ("it was handed another server's token", stolen, "401", "token-not-seen"),
            ("it was handed a token of another company's tenant", foreign, "403", "tenant-not-listed"),
        ] {
            let mut step = Step::new(title);
            let (mark, before) = (self.mark()?, self.graph.received().len());
            let answer = self.call("list_users_as", json!({ "token": token })).await?;
            saw(&mut step, &answer);
            step.expect(answer.is_error && answer.head.starts_with(status), "a refusal that says why");
            self.recorded(&mut step, mark, |one| one.action == "http:GET" && one.code.as_deref() == Some(code));
            step.expect(self.graph.received().len() == before, "nothing reaches the API");
            self.close(&step);
        }
        Ok(())
    }

    async fn delete(&mut self) -> Result<()> {
        let mut step = Step::new("it is talked into deleting somebody");
        let (mark, before) = (self.mark()?, self.graph.received().len());
        let id = self.graph.people().first().map(|person| person.id.clone()).unwrap_or_default();
        let answer = self.call("delete_user", json!({ "id": id })).await?;
        saw(&mut step, &answer);
        step.expect(answer.is_error && answer.head.starts_with("403"), "403 that says why");
        step.expect(answer.body.is_object(), "a problem document that a model can act on");
        self.recorded(&mut step, mark, |one| {
            one.action == "http:DELETE" && one.verdict == Verdict::Deny && one.policies.contains(&"people-stay".into())
        });
        step.say("api", format!("got nothing; {} people are in the directory", self.graph.people().len()));
        step.expect(self.graph.received().len() == before, "nothing reaches the API");
        self.close(&step);
        Ok(())
    }

    async fn unknown_name(&mut self) -> Result<()> {
        let mut step = Step::new("it calls a host that is no target");
        let mark = self.mark()?;
        let answer = self.call("fetch_url", json!({ "url": "https://paste.example.org/" })).await?;
        saw(&mut step, &answer);
        step.expect(answer.head.contains("Name or service not known"), "NXDOMAIN: the name doesn't exist for it");
        self.recorded(&mut step, mark, |one| {
            one.action == "dns:resolve" && one.verdict == Verdict::Deny && one.summary.contains("paste.example.org")
        });
        self.close(&step);
        Ok(())
    }

    async fn literal(&mut self) -> Result<()> {
        let mut step = Step::new("it calls an address instead of a name");
        let mark = self.mark()?;
        let answer = self.call("fetch_url", json!({ "url": format!("https://{LITERAL}/") })).await?;
        saw(&mut step, &answer);
        step.expect(answer.is_error, "a refusal");
        self.recorded(&mut step, mark, |one| one.action == "connect" && one.verdict == Verdict::Deny);
        self.close(&step);
        Ok(())
    }

    async fn nowhere(&mut self) -> Result<()> {
        let mut step = Step::new("it tries ways that no proxy sees: UDP/443, a raw socket");
        let udp = self.call("probe_udp", json!({ "address": LITERAL, "port": 443 })).await?;
        saw(&mut step, &udp);
        step.expect(udp.is_error && udp.head.contains("refused"), "the kernel refuses UDP/443 at once");
        let raw = self.call("probe_raw", json!({})).await?;
        saw(&mut step, &raw);
        step.expect(raw.is_error, "no raw socket");
        step.say("kernel", "no way out of its network namespace but the proxy");
        self.close(&step);
        Ok(())
    }

    async fn freeze(&mut self, first: Option<&Operation>) -> Result<()> {
        let mut step = Step::new("an audit begins: reading is forbidden, on open connections too");
        let (mark, before) = (self.mark()?, (self.graph.received().len(), self.graph.connections()));
        self.reload(&mut step, &format!("{POLICY}{FROZEN}"))?;
        let answer = self.call("list_users", json!({})).await?;
        saw(&mut step, &answer);
        step.expect(answer.is_error && answer.head.starts_with("403"), "403 that says why");
        let denied = self.recorded(&mut step, mark, |one| {
            one.action == "http:GET" && one.verdict == Verdict::Deny && one.policies.contains(&"audit".into())
        });
        let same = denied
            .zip(first)
            .is_some_and(|(denied, first)| denied.session.is_some() && denied.session == first.session);
        step.expect(same, "the refusal comes on the connection that was open already");
        step.expect(before == (self.graph.received().len(), self.graph.connections()), "nothing reaches the API");
        self.close(&step);
        Ok(())
    }

    async fn thaw(&mut self) -> Result<()> {
        let mut step = Step::new("the audit ends: reading is permitted again");
        let mark = self.mark()?;
        self.reload(&mut step, POLICY)?;
        let answer = self.call("list_users", json!({})).await?;
        saw(&mut step, &answer);
        step.expect(!answer.is_error && people(&answer) == Some(3), "200 with three people");
        self.recorded(&mut step, mark, |one| one.action == "http:GET" && one.verdict == Verdict::Allow);
        self.close(&step);
        Ok(())
    }

    async fn kill(&mut self) -> Result<()> {
        let mut step = Step::new("the daemon is killed by -9: the way is shut, not open");
        let known = self.call("look_up", json!({ "host": "graph.microsoft.com" })).await?;
        let before = self.graph.received().len();
        block_in_place(|| self.daemon.kill9())?;
        let connect = self.call("probe_literal", json!({ "address": known.head, "port": 443 })).await?;
        saw(&mut step, &connect);
        step.expect(connect.is_error && connect.head.contains("refused"), "connects are refused");
        let answer = self.call("list_users", json!({})).await?;
        saw(&mut step, &answer);
        step.expect(answer.is_error, "no answer");
        step.expect(self.graph.received().len() == before, "nothing reaches the API");
        self.close(&step);

        let mut step = Step::new("the daemon is back: the same server goes on");
        let mark = self.mark()?;
        let took = block_in_place(|| self.daemon.restart())?;
        step.say("daemon", format!("pid {}: serving after {} ms", self.daemon.pid()?, took.as_millis()));
        step.expect(took < Duration::from_secs(2), "it serves within 2 s");
        let answer = self.call("list_users", json!({})).await?;
        saw(&mut step, &answer);
        step.expect(!answer.is_error && people(&answer) == Some(3), "200 with three people");
        self.recorded(&mut step, mark, |one| one.action == "http:GET" && one.verdict == Verdict::Allow);
        self.close(&step);
        Ok(())
    }

    async fn ask(&mut self) -> Result<()> {
        let mut step = Step::new("it adds somebody: that waits until a person has said yes");
        let (mark, before) = (self.mark()?, self.graph.received().len());
        let newcomer = json!({ "name": "Pradeep Gupta", "mail": "pradeep@contoso.example" });
        let people = async { self.answer(&mut step, before, ("approve", "starts on Monday")) };
        let (answer, asked) = tokio::join!(self.call("add_user", newcomer), people);
        asked?;
        let answer = answer?;
        saw(&mut step, &answer);
        step.expect(!answer.is_error && answer.head.starts_with("201"), "201, as if nobody had been asked");
        step.expect(self.graph.received().len() == before + 1, "it reaches the API once");
        self.recorded(&mut step, mark, |one| one.action == "http:POST" && one.verdict == Verdict::Allow);
        self.close(&step);

        let mut step = Step::new("it adds somebody else: a person says no");
        let (mark, before) = (self.mark()?, self.graph.received().len());
        let newcomer = json!({ "name": "Grady Archie", "mail": "grady@contoso.example" });
        let people = async { self.answer(&mut step, before, ("deny", "nobody knows him")) };
        let (answer, asked) = tokio::join!(self.call("add_user", newcomer), people);
        asked?;
        self.refused(&mut step, (mark, before), &answer?, (Verdict::Deny, "approval-denied"));

        let mut step = Step::new("it adds a third: nobody answers, and it is told to come again");
        let (mark, before) = (self.mark()?, self.graph.received().len());
        let newcomer = json!({ "name": "Miriam Graham", "mail": "miriam@contoso.example" });
        let answer = self.call("add_user", newcomer).await?;
        let next = answer.body["next"].as_str().unwrap_or_default();
        step.expect(next.contains("send exactly the same request again later"), "what a model can do about it");
        self.refused(&mut step, (mark, before), &answer, (Verdict::Hold, "approval-pending"));
        Ok(())
    }

    /// Ada answers what is asked of her.
    fn answer(&self, step: &mut Step, before: usize, (verb, note): (&str, &str)) -> Result<()> {
        let asked = block_in_place(|| self.question())?;
        let (id, what) = (asked["approval"].as_str().unwrap_or_default(), asked["summary"].as_str());
        step.say("held", format!("{} is asked of hr: {}", what.unwrap_or_default(), asked["reasons"][0]));
        step.expect(self.graph.received().len() == before, "nothing reaches the API before");
        let mut show = self.daemon.interceptor(&["approvals", "show", id]);
        let shown = block_in_place(|| show.uid(ADA).gid(ADA).current_dir("/").output())?;
        let shown = String::from_utf8_lossy(&shown.stdout);
        step.expect(shown.contains(&format!("{} (crm-bot)", principal())), "she sees in whose name it is asked");
        let mut answer = self.daemon.interceptor(&["approvals", verb, id, "--note", note]);
        // Somebody whom the kernel vouches for, and who runs none of this.
        let said = block_in_place(|| answer.uid(ADA).gid(ADA).current_dir("/").output())?;
        let line = String::from_utf8_lossy(if said.status.success() { &said.stdout } else { &said.stderr });
        step.say("ada", format!("interceptor approvals {verb} …: {}", line.trim_end()));
        step.expect(said.status.success(), "her answer counts");
        Ok(())
    }

    /// What people didn't say yes to.
    fn refused(
        &mut self,
        step: &mut Step,
        (mark, before): (u64, usize),
        answer: &Answer,
        (verdict, code): (Verdict, &str),
    ) {
        saw(step, answer);
        step.expect(answer.is_error && answer.head.starts_with("403"), "403 that says why");
        step.expect(answer.body["code"] == code, "a code that a program can act on");
        step.expect(self.graph.received().len() == before, "nothing reaches the API");
        self.recorded(step, mark, |one| {
            one.action == "http:POST" && one.verdict == verdict && one.code.as_deref() == Some(code)
        });
        self.close(step);
    }

    /// What people are asked.
    fn question(&self) -> Result<Value> {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let open = self.daemon.json(&["approvals", "list"])?;
            if let Some(first) = open.as_array().and_then(|open| open.first()) {
                return Ok(first.clone());
            }
            ensure!(Instant::now() < deadline, "nobody is asked");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What reached the API less what is recorded as allowed is nothing.
    fn compare(&mut self) -> Result<()> {
        let mut step = Step::new("the API's own log, compared with the record");
        let mut allowed: Vec<String> = block_in_place(|| recorded::operations(&self.daemon.database(), 0))?
            .into_iter()
            .filter(|one| one.verdict == Verdict::Allow && one.action.starts_with("http:"))
            .map(|one| one.summary)
            .collect();
        let received = self.graph.received();
        let (total, mut missing) = (allowed.len(), 0);
        for request in &received {
            let line = format!("{} {}", request.method, request.path);
            match allowed.iter().position(|summary| *summary == line) {
                Some(found) => drop(allowed.swap_remove(found)),
                None => missing += 1,
            }
        }
        step.say("api", format!("{} requests arrived", received.len()));
        step.say("record", format!("{total} requests were allowed; {missing} arrived unrecorded"));
        step.expect(!received.is_empty() && missing == 0, "every request that arrived is recorded");
        let verified = step.take(block_in_place(|| self.daemon.ask(&["sessions", "verify"])));
        if let Some(line) = verified.as_deref().and_then(|said| said.lines().next()) {
            step.say("verify", line);
        }
        self.close(&step);
        Ok(())
    }

    /// The commands that an auditor would use.
    fn show(&self, first: Option<&Operation>, tickets: Option<&Operation>) -> Result<()> {
        block_in_place(|| {
            self.page.command("interceptor sessions list", &self.daemon.ask(&["sessions", "list"])?);
            let session = first.and_then(|operation| operation.session).context("the first read has no session")?;
            let first_session = session.to_string();
            self.page.command(
                &format!("interceptor sessions show {first_session}"),
                &self.daemon.ask(&["sessions", "show", &first_session])?,
            );
            let session = tickets.and_then(|operation| operation.session).context("the tickets have no session")?;
            let replayed = self.daemon.ask(&["sessions", "replay", &session.to_string(), "--speed", "0"])?;
            self.page.command(&format!("interceptor sessions replay {session} --speed 0"), &replayed);
            ensure!(replayed.contains("masked: 2 email"), "the replay doesn't say what was masked");
            ensure!(!replayed.contains(TICKETS_KEY), "the replay shows the key");
            let shown = self.daemon.json(&["sessions", "show", &first_session])?.to_string();
            ensure!(shown.contains("people-stay"), "the session's JSON doesn't name the policy that denied");
            Ok(())
        })
    }

    async fn call(&self, tool: &'static str, arguments: Value) -> Result<Answer> {
        self.client.call(tool, arguments).await.with_context(|| format!("the daemon said:\n{}", self.daemon.log()))
    }

    fn mark(&self) -> Result<u64> {
        block_in_place(|| recorded::last(&self.daemon.database()))
    }

    fn reload(&self, step: &mut Step, policy: &str) -> Result<()> {
        let output = block_in_place(|| self.daemon.reload(policy))?;
        let said = String::from_utf8_lossy(if output.status.success() { &output.stdout } else { &output.stderr });
        step.say("operator", format!("interceptor policy reload: {}", said.lines().next().unwrap_or("done")));
        step.expect(output.status.success(), "the policy is taken");
        Ok(())
    }

    fn recorded(&self, step: &mut Step, mark: u64, fits: impl Fn(&Operation) -> bool) -> Option<Operation> {
        let found = block_in_place(|| recorded::wait_for(&self.daemon.database(), mark, fits));
        let operation = step.take(found)?;
        let verdict = operation.verdict.as_str();
        let why = match (&operation.code, operation.policies.as_slice()) {
            (Some(code), []) => code.clone(),
            (Some(code), policies) => format!("{code} ({})", policies.join(", ")),
            (None, policies) => policies.join(", "),
        };
        let summary = shorten(&operation.summary, 56);
        step.say("recorded", format!("{verdict:<5} {}  {summary}  by {why}", operation.action));
        Some(operation)
    }

    fn close(&mut self, step: &Step) {
        self.steps += 1;
        self.wrong += usize::from(!step.is_good());
        self.page.step(self.steps, step);
    }
}

/// What the server saw, in one or two lines.
fn saw(step: &mut Step, answer: &Answer) {
    let head = ending(&answer.head, 96);
    match (people(answer), answer.body.get("detail").or_else(|| answer.body.get("title")).and_then(Value::as_str)) {
        (Some(count), _) => step.say("saw", format!("{head}: {count} people")),
        (None, Some(detail)) => {
            step.say("saw", head);
            step.say("", shorten(detail, 110));
        }
        (None, None) => step.say("saw", head),
    }
}

fn people(answer: &Answer) -> Option<usize> {
    answer.body.get("value").and_then(Value::as_array).map(Vec::len)
}

/// The end of a long text: an error's causes come last, the innermost at the very end.
fn ending(text: &str, most: usize) -> String {
    let count = text.chars().count();
    if count <= most {
        return text.to_owned();
    }
    std::iter::once('…').chain(text.chars().skip(count - most + 1)).collect()
}

fn shorten(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(most - 1).collect();
    short.push('…');
    short
}
