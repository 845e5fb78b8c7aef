//! The clients of other makers sign in at the embedded Entra, with nothing in between: in a private mount and network
//! namespace in which Entra's own names and addresses lead to it. What they do here they must do under interception.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, anyhow, ensure};
use interceptor_tests::entra::directory::{CONTOSO, GRAPH, USER_ASSIGNED};
use interceptor_tests::entra::flow::{Flow, Stage, Told};
use interceptor_tests::entra::{ARC_TOKENS, Entra, Places, Received, Service};
use interceptor_tests::graph::Graph;
use interceptor_tests::require_root;
use interceptor_tests::third_party::ThirdParty;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;

const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
const HOSTS: &str = "127.0.0.1 localhost\n127.0.0.1 login.microsoftonline.com\n127.0.0.1 graph.microsoft.com\n";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sdk {
    Python,
    Node,
}

impl Sdk {
    /// The name that it gives to the grant; Entra knows both.
    fn device_code(self) -> &'static str {
        match self {
            Self::Python => "urn:ietf:params:oauth:grant-type:device_code",
            Self::Node => "device_code",
        }
    }
}

const SDKS: [Sdk; 2] = [Sdk::Python, Sdk::Node];

/// Entra and Graph, where their clients look for them. Lives on a thread that has namespaces of its own.
struct Private {
    entra: Entra,
    graph: Graph,
    third_party: ThirdParty,
    folder: TempDir,
}

impl Private {
    /// Runs `test` on such a thread.
    fn run(test: impl FnOnce(&Self) -> Result<()> + Send + 'static) -> Result<()> {
        let thread = std::thread::spawn(move || test(&Self::new()?));
        thread.join().map_err(|panic| anyhow!("{:?}", panic.downcast_ref::<String>()))?
    }

    fn new() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("entra-").tempdir()?;
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).context("unshare")?;
        interceptor::transport::namespace::configure().context("configure")?;
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
        let hosts = folder.path().join("hosts");
        fs::write(&hosts, HOSTS)?;
        bind(&hosts, Path::new("/etc/hosts"))?;
        let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let places = Places {
            login: loopback(443),
            imds: SocketAddr::from((METADATA, 80)),
            arc: loopback(40_342),
            app_service: loopback(41_741),
        };
        let entra = Entra::start_at(&[], places)?;
        mount(Some("tmpfs"), "/var/opt", Some("tmpfs"), MsFlags::empty(), None::<&str>).context("/var/opt")?;
        fs::create_dir_all(ARC_TOKENS)?;
        bind(entra.arc_tokens(), Path::new(ARC_TOKENS))?;
        let graph = Graph::start(&[])?;
        graph.guard(entra.guard(&[GRAPH.uris[0], GRAPH.id]));
        fs::write(folder.path().join("ca.pem"), entra.ca_pem() + &graph.ca_pem())?;
        Ok(Self { entra, graph, third_party: ThirdParty::installed()?, folder })
    }

    fn stage(&self) -> Stage {
        let url = format!("https://graph.microsoft.com:{}/v1.0/users", self.graph.address().port());
        Stage::of_graph(&url, self.folder.path().join("token"))
    }

    fn client(&self, sdk: Sdk, flow: Flow, stage: &Stage) -> Result<Output> {
        let order = flow.order(&self.entra, stage)?.to_string();
        let scripts = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
        let mut command = match sdk {
            Sdk::Python => {
                let mut command = Command::new(self.third_party.python());
                command.arg(scripts.join("entra.py"));
                command
            }
            Sdk::Node => {
                let mut command = Command::new("node");
                command.arg(scripts.join("entra.mjs")).arg(self.third_party.node());
                command
            }
        };
        let bundle = self.folder.path().join("ca.pem");
        command
            .arg(order)
            .env_clear()
            .env("HOME", self.folder.path())
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("REQUESTS_CA_BUNDLE", &bundle)
            .env("NODE_EXTRA_CA_CERTS", &bundle)
            .stdin(Stdio::null());
        Ok(command.output()?)
    }

    fn told(&self, sdk: Sdk, flow: Flow) -> Result<Told> {
        let output = self.client(sdk, flow, &self.stage())?;
        Told::read(&output.stdout).with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Signs in, and checks that the client got through and that everyone agrees who it is.
    fn pass(&self, sdk: Sdk, flow: Flow) -> Result<Vec<Received>> {
        let (before, calls) = (self.entra.received().len(), self.graph.received().len());
        let told = self.told(sdk, flow)?;
        let seen = format!("{sdk:?} {flow:?}: {told:?}");
        ensure!(told.error.is_none() && told.plain == Some(200), "{seen}");
        ensure!(flow == Flow::Refresh || told.pipeline == Some(200), "{seen}");
        let claims = told.claims.as_ref().context("no claims")?;
        ensure!(claims["oid"] == flow.principal() && claims["appid"] == flow.client(), "{seen}");
        ensure!(claims["tid"] == CONTOSO.id && claims["aud"] == GRAPH.uris[0], "{seen}");
        let callers: Vec<_> = self.graph.received().split_off(calls).into_iter().map(|one| one.caller).collect();
        let last = callers.last().cloned().flatten().with_context(|| format!("nobody called: {seen}"))?;
        ensure!(last.oid == flow.principal() && last.appid == flow.client(), "{seen}, {last:?}");
        ensure!(claims["uti"] == last.uti, "{seen}, {last:?}");
        Ok(self.entra.received().split_off(before))
    }
}

fn bind(source: &Path, target: &Path) -> Result<()> {
    mount(Some(source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .with_context(|| format!("can't bind over `{}`", target.display()))
}

fn grants(received: &[Received]) -> Vec<&str> {
    received.iter().filter_map(|one| one.field("grant_type")).collect()
}

#[test]
fn every_sign_in_of_every_sdk_passes() -> Result<()> {
    require_root!(Ok(()));
    Private::run(|private| {
        for (sdk, flow) in SDKS.into_iter().flat_map(|sdk| Flow::ALL.map(|flow| (sdk, flow))) {
            let received = private.pass(sdk, flow)?;
            let grants = grants(&received);
            let expected: &[&str] = match flow {
                Flow::ClientSecret | Flow::ClientAssertion | Flow::WorkloadIdentity | Flow::DefaultEnvironment => {
                    &["client_credentials"]
                }
                Flow::OnBehalfOf => &["urn:ietf:params:oauth:grant-type:jwt-bearer"],
                // Told once to wait.
                Flow::DeviceCode => &[sdk.device_code(); 2],
                Flow::Refresh => &[sdk.device_code(), sdk.device_code(), "refresh_token"],
                _ => &[],
            };
            ensure!(grants == expected, "{sdk:?} {flow:?}: {grants:?}");
        }
        Ok(())
    })
}

#[test]
fn the_default_credential_probes_imds_without_its_header_first() -> Result<()> {
    require_root!(Ok(()));
    Private::run(|private| {
        for sdk in SDKS {
            let received = private.pass(sdk, Flow::Default)?;
            let probes: Vec<_> =
                received.iter().map(|one| (one.service, one.header("metadata").is_some(), one.status)).collect();
            ensure!(
                probes.starts_with(&[(Service::Imds, false, 400), (Service::Imds, true, 200)]),
                "{sdk:?}: {probes:?}"
            );
        }
        Ok(())
    })
}

#[test]
fn arc_gives_a_token_only_to_who_can_read_its_file() -> Result<()> {
    require_root!(Ok(()));
    Private::run(|private| {
        for sdk in SDKS {
            let received = private.pass(sdk, Flow::ArcUser)?;
            let seen: Vec<_> = received.iter().map(|one| (one.service, one.status)).collect();
            ensure!(seen.starts_with(&[(Service::Arc, 401), (Service::Arc, 200)]), "{sdk:?}: {seen:?}");
            ensure!(received.iter().all(|one| one.path.contains(USER_ASSIGNED.client)), "{sdk:?}: {received:?}");
        }
        Ok(())
    })
}

#[test]
fn a_claims_challenge_is_answered_with_a_newer_token() -> Result<()> {
    require_root!(Ok(()));
    Private::run(|private| {
        for sdk in SDKS {
            private.entra.challenge(1);
            let calls = private.graph.received().len();
            let issued = private.entra.issued().len();
            let received = private.pass(sdk, Flow::ClientSecret)?;
            let claims: Vec<_> = received.iter().filter_map(|one| one.field("claims")).collect();
            ensure!(claims.iter().any(|claims| claims.contains("nbf")), "{sdk:?}: {claims:?}");
            ensure!(private.entra.issued().len() >= issued + 2, "{sdk:?} had {issued}");
            let callers: Vec<_> =
                private.graph.received().split_off(calls).iter().map(|one| one.caller.is_some()).collect();
            ensure!(callers.starts_with(&[false, true]), "{sdk:?}: {callers:?}");
        }
        Ok(())
    })
}

#[test]
fn a_client_says_what_entra_refused() -> Result<()> {
    require_root!(Ok(()));
    Private::run(|private| {
        for sdk in SDKS {
            let stage = Stage { scope: "api://nothing/.default".to_owned(), ..private.stage() };
            let output = private.client(sdk, Flow::ClientSecret, &stage)?;
            let error = Told::read(&output.stdout)?.error.unwrap_or_default();
            ensure!(!output.status.success() && error.contains("AADSTS500011"), "{sdk:?}: {error}");
        }
        Ok(())
    })
}
