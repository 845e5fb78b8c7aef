//! What these tests begin with: an Entra, a Graph that checks its tokens, and a daemon in front of both.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use interceptor::record::event::{Event, TokenIssued, What};
use interceptor_tests::daemon::{Daemon, Order, UID};
use interceptor_tests::entra::directory::{Application, CONTOSO, CRM, CRM_READERS, GRAPH};
use interceptor_tests::entra::flow::{Flow, Stage, Told};
use interceptor_tests::entra::{ARC_TOKENS, Entra};
use interceptor_tests::graph::Graph;
use interceptor_tests::recorded;
use interceptor_tests::third_party::ThirdParty;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

pub(crate) const URL: &str = "https://graph.microsoft.com/v1.0/users";

/// Tokens for Graph may be asked for, and what one of them authenticates may read.
pub(crate) const POLICY: &str = r#"
@id("reach") permit (principal, action in Action::"reach", resource);
@id("tokens") permit (principal, action == Action::"token:request", resource == Target::"graph");
@id("sign-in") permit (principal, action in [Action::"http:read"], resource)
  when { [Target::"entra", Target::"imds", Target::"arc", Target::"app-service"].contains(resource) };
@id("read") permit (principal, action in Action::"http:read", resource == Target::"graph")
  when { context.base.credential == "entra" && context.base.bound == "issued-here" };
"#;

const TARGETS: &str = r#"
[[target]]
name = "graph"
hosts = ["graph.microsoft.com"]

[[target]]
name = "entra"
hosts = ["login.microsoftonline.com"]

[[target]]
name = "imds"
hosts = ["169.254.169.254"]
ports = [80]
cleartext = true

[[target]]
name = "arc"
hosts = ["localhost"]
ports = [40342]
cleartext = true
identity = "arc"

[[target]]
name = "app-service"
hosts = ["127.0.0.2"]
ports = [41741]
cleartext = true
identity = "app-service"
"#;

/// An Entra, a Graph, and a daemon in front of both.
pub(crate) struct Scene {
    pub(crate) entra: Entra,
    pub(crate) graph: Graph,
    pub(crate) daemon: Daemon,
    third_party: ThirdParty,
    arc: Option<ArcFolder>,
}

/// Whose SDK.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sdk {
    Python,
    Node,
}

/// The folder in which Arc's agent leaves its secrets; the SDKs know no other. What was made for it is removed again.
struct ArcFolder {
    made: PathBuf,
}

impl ArcFolder {
    fn lead_to(tokens: &Path) -> Result<Self> {
        let folder = Path::new(ARC_TOKENS);
        ensure!(!folder.exists(), "`{ARC_TOKENS}` is there: this host runs Azure Arc");
        let mut made = folder;
        while let Some(parent) = made.parent().filter(|parent| !parent.exists()) {
            made = parent;
        }
        fs::create_dir_all(folder)?;
        let arc = Self { made: made.to_owned() };
        fs::set_permissions(tokens, fs::Permissions::from_mode(0o755))?;
        mount(Some(tokens), folder, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .context("can't bind Arc's secrets")?;
        Ok(arc)
    }
}

impl Drop for ArcFolder {
    fn drop(&mut self) {
        // Where nothing is mounted there is nothing to unmount; the folders below are empty then.
        let _ = umount2(ARC_TOKENS, MntFlags::MNT_DETACH);
        let mut folder = Path::new(ARC_TOKENS);
        while let (Ok(()), true, Some(parent)) = (fs::remove_dir(folder), folder != self.made, folder.parent()) {
            folder = parent;
        }
    }
}

/// The configuration that knows one tenant, with these keys besides, and what its ids are called.
fn tenants(keys: &str) -> String {
    let (tenant, principal) = (CONTOSO.id, CRM.principal(CONTOSO).unwrap_or_default());
    format!(
        r#"
[[tenant]]
id = "{tenant}"
{keys}

[names]
crm-readers = "group:{tenant}/{CRM_READERS}"
crm-bot = "identity:{tenant}/{principal}"
crm-app = "client:{}"
"#,
        CRM.id
    )
}

impl Scene {
    /// With the policy `policy` and these tables besides.
    pub(crate) fn new(policy: &str, more: &str) -> Result<Self> {
        Self::with_tenant(policy, "", more)
    }

    /// As [`Scene::new`], with these keys of the tenant.
    pub(crate) fn with_tenant(policy: &str, tenant: &str, more: &str) -> Result<Self> {
        Self::ordered(policy, (tenant, more), |_| {})
    }

    /// As [`Scene::new`], with what is changed in the order besides.
    pub(crate) fn changed(policy: &str, more: &str, change: impl FnOnce(&mut Order)) -> Result<Self> {
        Self::ordered(policy, ("", more), change)
    }

    /// As [`Scene::with_tenant`], with what is changed in the order besides.
    pub(crate) fn ordered(policy: &str, (tenant, more): (&str, &str), change: impl FnOnce(&mut Order)) -> Result<Self> {
        let (entra, graph) = (Entra::start(&[])?, Graph::start(&[])?);
        graph.guard(entra.guard(&[GRAPH.uris[0], GRAPH.id]));
        let places = entra.places();
        let resolve = [
            ("graph.microsoft.com", graph.address()),
            ("login.microsoftonline.com", places.login),
            ("169.254.169.254", places.imds),
            ("localhost", places.arc),
            ("127.0.0.2", places.app_service),
        ];
        let mut order = Order {
            purpose: "identity",
            targets: TARGETS.into(),
            resolve: resolve.map(|(name, address)| (name.to_owned(), address)).to_vec(),
            extra_ca: entra.ca_pem() + &graph.ca_pem(),
            more: tenants(tenant) + more,
            bring: Vec::new(),
            ..Order::for_graph(&graph, policy)
        };
        change(&mut order);
        let daemon = Daemon::start(&order)?;
        let third_party = ThirdParty::show(&daemon)?;
        let clients = daemon.room().join("clients");
        fs::create_dir(&clients)?;
        fs::set_permissions(&clients, fs::Permissions::from_mode(0o755))?;
        for script in ["entra.py", "entra.mjs"] {
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(script);
            fs::copy(source, clients.join(script))?;
        }
        Ok(Self { entra, graph, daemon, third_party, arc: None })
    }

    /// Shows Arc's secrets where its SDKs look for them.
    pub(crate) fn with_arc(mut self) -> Result<Self> {
        self.arc = Some(ArcFolder::lead_to(self.entra.arc_tokens())?);
        Ok(self)
    }

    /// Runs a sign-in inside a workload.
    pub(crate) fn sign_in(&self, sdk: Sdk, flow: Flow) -> Result<Told> {
        let file = self.daemon.home().join("token");
        let stage = Stage { app_service: "http://127.0.0.2:41741".into(), ..Stage::of_graph(URL, file.clone()) };
        let order = flow.order(&self.entra, &stage)?.to_string();
        if file.exists() {
            chown(&file, Some(UID), Some(UID))?;
        }
        let clients = self.daemon.room().join("clients");
        let (python, node) = (self.third_party.python(), self.third_party.node());
        let (script, module) = (clients.join("entra.py"), clients.join("entra.mjs"));
        let words = match sdk {
            Sdk::Python => vec![python.to_string_lossy(), script.to_string_lossy(), order.into()],
            Sdk::Node => vec!["node".into(), module.to_string_lossy(), node.to_string_lossy(), order.into()],
        };
        let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
        let output = self.daemon.run(&words).stdin(Stdio::null()).output()?;
        let said = || String::from_utf8_lossy(&output.stderr).into_owned();
        Told::read(&output.stdout).with_context(said)
    }

    /// A Python that stays, inside a workload: it asks Graph by the SDK's pipeline at each line it gets, and prints the
    /// status.
    pub(crate) fn stay(&self) -> Result<Child> {
        const CODE: &str = "import json, sys, azure.identity
from azure.core import PipelineClient
from azure.core.pipeline.policies import BearerTokenCredentialPolicy
from azure.core.rest import HttpRequest
order = json.loads(sys.argv[1])
source = azure.identity.ClientSecretCredential(order['tenant'], order['client'], order['secret'])
policy = BearerTokenCredentialPolicy(source, order['scope'], enable_cae=True)
client = PipelineClient(order['url'], policies=[policy])
for line in sys.stdin: print(client.send_request(HttpRequest('GET', order['url'])).status_code, flush=True)";
        let stage = Stage::of_graph(URL, self.daemon.home().join("token"));
        let order = Flow::ClientSecret.order(&self.entra, &stage)?.to_string();
        let python = self.third_party.python();
        let mut command = self.daemon.run(&[&python.to_string_lossy(), "-c", CODE, &order]);
        Ok(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?)
    }

    /// curl inside a workload of this name: the status, and all that it printed.
    pub(crate) fn curl(&self, workload: &str, arguments: &[&str]) -> Result<(u16, String)> {
        let mut command = self.as_workload(workload);
        command.args(["curl", "-sS", "-i", "--max-time", "20"]).args(arguments);
        let output = command.stdin(Stdio::null()).output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = || String::from_utf8_lossy(&output.stderr).into_owned();
        let status = said.split_whitespace().nth(1).and_then(|status| status.parse().ok()).with_context(errors)?;
        Ok((status, said))
    }

    /// Reads a stream of Graph's with this token, until it ends.
    pub(crate) fn stream(&self, workload: &str, token: &str) -> Result<Child> {
        let mut command = self.as_workload(workload);
        let header = format!("Authorization: Bearer {token}");
        command.args(["curl", "-sSN", "--max-time", "30", "-o", "/dev/null", "-H", &header]);
        command.arg("https://graph.microsoft.com/stream");
        Ok(command.stdin(Stdio::null()).stderr(Stdio::null()).spawn()?)
    }

    /// Posts to Graph with this token. The head of the answer and its body are the output.
    pub(crate) fn posting(&self, workload: &str, token: &str) -> Result<Child> {
        let mut command = self.as_workload(workload);
        let header = format!("Authorization: Bearer {token}");
        command.args(["curl", "-sS", "-i", "--max-time", "30", "-H", &header, "-H", "Content-Type: application/json"]);
        command.args(["-d", "{}", "https://graph.microsoft.com/echo"]);
        Ok(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?)
    }

    /// Asks Graph twice on one connection with this token, the second time once its standard input ends.
    pub(crate) fn asking_twice(&self, workload: &str, token: &str) -> Result<Child> {
        const CODE: &str = r#"
import http.client, sys
graph = http.client.HTTPSConnection("graph.microsoft.com")
for time in ["first", "second"]:
    graph.request("GET", "/v1.0/users", headers={"Authorization": "Bearer " + sys.argv[1]})
    answer = graph.getresponse()
    denied = b"denied-by-default" in answer.read()
    print(answer.status, time, denied, flush=True)
    graph.auto_open = 0
    sys.stdin.read()
"#;
        let mut command = self.as_workload(workload);
        command.arg(self.third_party.python()).args(["-c", CODE, token]);
        Ok(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?)
    }

    /// Asks Graph with this token.
    pub(crate) fn ask(&self, workload: &str, token: &str) -> Result<(u16, String)> {
        self.curl(workload, &["-H", &format!("Authorization: Bearer {token}"), URL])
    }

    fn as_workload(&self, workload: &str) -> Command {
        let mut command = self.daemon.as_user(&self.daemon.binary("interceptor"));
        command.arg("run").arg("--socket").arg(self.daemon.socket()).args(["--workload", workload, "--"]);
        command
    }

    /// Gets a token for Graph as the server's own application, by its secret, inside a workload.
    pub(crate) fn token(&self, workload: &str) -> Result<String> {
        self.token_of(CRM, workload)
    }

    /// As [`Scene::token`], as this application.
    pub(crate) fn token_of(&self, application: &Application, workload: &str) -> Result<String> {
        let form = format!(
            "grant_type=client_credentials&client_id={}&client_secret={}&scope=https://graph.microsoft.com/.default",
            application.id,
            application.secret.unwrap_or_default()
        );
        let url = format!("https://login.microsoftonline.com/{}/oauth2/v2.0/token", CONTOSO.id);
        let (status, said) = self.curl(workload, &["-d", &form, &url])?;
        ensure!(status == 200, "{said}");
        let body = said.split("\r\n\r\n").last().unwrap_or_default();
        let answer: serde_json::Value = serde_json::from_str(body).with_context(|| said.clone())?;
        Ok(answer["access_token"].as_str().context("no token")?.to_owned())
    }

    /// The tokens whose issue is recorded.
    pub(crate) fn issued(&self) -> Result<Vec<TokenIssued>> {
        let events = recorded::events(&self.daemon.database(), 0)?;
        let issued = events.into_iter().filter_map(|(_, Event { what, .. })| match what {
            What::TokenIssued(issued) => Some(*issued),
            _ => None,
        });
        Ok(issued.collect())
    }

    pub(crate) fn finish(self) -> Result<()> {
        drop(self.arc);
        self.daemon.finish()
    }
}
