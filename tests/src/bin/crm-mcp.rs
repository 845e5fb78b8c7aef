//! An ordinary MCP server on stdio: tools over a directory API, with one HTTP client that keeps its connections. It signs
//! in as an application if its environment says how (`AZURE_TENANT_ID`, `AZURE_CLIENT_ID`, `AZURE_CLIENT_SECRET`). It
//! knows nothing of Interceptor. Its `probe_*` tools do what a server would do that was misled or taken over.

use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use reqwest::{Client, Method};
use rmcp::handler::server::router::tool::ToolRouter;
use rmcp::handler::server::wrapper::Parameters;
use rmcp::model::{CallToolResult, ContentBlock};
use rmcp::{ServerHandler, ServiceExt, tool, tool_handler, tool_router};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Mutex;

const PATIENCE: Duration = Duration::from_secs(40);

/// The server.
#[derive(Clone)]
struct Crm {
    api: String,
    account: Option<Arc<Account>>,
    client: Client,
    tool_router: ToolRouter<Self>,
}

#[derive(Deserialize, JsonSchema)]
struct Person {
    /// The person's id in the directory.
    id: String,
}

/// How it signs in, and the token that it has.
struct Account {
    tenant: String,
    client: String,
    secret: String,
    token: Mutex<Option<String>>,
}

impl Account {
    fn from_environment() -> Option<Self> {
        let value = |name: &str| std::env::var(name).ok();
        Some(Self {
            tenant: value("AZURE_TENANT_ID")?,
            client: value("AZURE_CLIENT_ID")?,
            secret: value("AZURE_CLIENT_SECRET")?,
            token: Mutex::default(),
        })
    }
}

#[derive(Deserialize, JsonSchema)]
struct Newcomer {
    /// The person's name.
    name: String,
    /// Their mail address.
    mail: String,
}

#[derive(Deserialize, JsonSchema)]
struct Token {
    /// An access token.
    token: String,
}

#[derive(Deserialize, JsonSchema)]
struct Url {
    /// An http or https URL.
    url: String,
}

#[derive(Deserialize, JsonSchema)]
struct Name {
    /// A host name.
    host: String,
}

#[derive(Deserialize, JsonSchema)]
struct Destination {
    /// An IP address.
    address: IpAddr,
    /// A port.
    port: u16,
}

#[tool_handler(router = self.tool_router)]
impl ServerHandler for Crm {}

#[tool_router(router = tool_router)]
impl Crm {
    fn new(api: String) -> Result<Self, reqwest::Error> {
        let client = Client::builder().timeout(PATIENCE).build()?;
        let account = Account::from_environment().map(Arc::new);
        Ok(Self { api, account, client, tool_router: Self::tool_router() })
    }

    #[tool(description = "List the people in the directory")]
    async fn list_users(&self) -> CallToolResult {
        self.call_as_itself(Method::GET, &format!("{}/v1.0/users", self.api), None).await
    }

    #[tool(description = "Add a person to the directory")]
    async fn add_user(&self, Parameters(person): Parameters<Newcomer>) -> CallToolResult {
        let body = serde_json::json!({ "displayName": person.name, "mail": person.mail });
        self.call_as_itself(Method::POST, &format!("{}/v1.0/users", self.api), Some(body)).await
    }

    #[tool(description = "List the people in the directory, with somebody's token")]
    async fn list_users_as(&self, Parameters(other): Parameters<Token>) -> CallToolResult {
        self.call(Method::GET, &format!("{}/v1.0/users", self.api), Some(&other.token), None).await
    }

    #[tool(description = "Delete a person from the directory")]
    async fn delete_user(&self, Parameters(person): Parameters<Person>) -> CallToolResult {
        self.call_as_itself(Method::DELETE, &format!("{}/v1.0/users/{}", self.api, person.id), None).await
    }

    #[tool(description = "Fetch a web page")]
    async fn fetch_url(&self, Parameters(page): Parameters<Url>) -> CallToolResult {
        self.call(Method::GET, &page.url, None, None).await
    }

    #[tool(description = "Look a host name up")]
    async fn look_up(&self, Parameters(name): Parameters<Name>) -> CallToolResult {
        match tokio::net::lookup_host((name.host.as_str(), 0)).await {
            Ok(addresses) => success(addresses.map(|address| address.ip().to_string()).collect::<Vec<_>>().join("\n")),
            Err(error) => failure(error.to_string()),
        }
    }

    #[tool(description = "Open a TCP connection to an address")]
    async fn probe_literal(&self, Parameters(to): Parameters<Destination>) -> CallToolResult {
        let connect = TcpStream::connect(SocketAddr::new(to.address, to.port));
        match tokio::time::timeout(PATIENCE, connect).await {
            Ok(Ok(_)) => success("connected".into()),
            Ok(Err(error)) => failure(error.to_string()),
            Err(_) => failure("no answer".into()),
        }
    }

    #[tool(description = "Send a UDP datagram to an address and wait for an answer")]
    async fn probe_udp(&self, Parameters(to): Parameters<Destination>) -> CallToolResult {
        let exchange = async {
            let any: IpAddr = if to.address.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() };
            let socket = UdpSocket::bind((any, 0)).await?;
            socket.connect((to.address, to.port)).await?;
            socket.send(b"hello").await?;
            socket.recv(&mut [0; 64]).await
        };
        match tokio::time::timeout(PATIENCE, exchange).await {
            Ok(Ok(bytes)) => success(format!("answered with {bytes} bytes")),
            Ok(Err(error)) => failure(error.to_string()),
            Err(_) => failure("no answer".into()),
        }
    }

    #[tool(description = "Open a raw socket")]
    async fn probe_raw(&self) -> CallToolResult {
        match socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None) {
            Ok(_) => success("a raw socket is open".into()),
            Err(errno) => failure(errno.desc().into()),
        }
    }

    /// One request with the server's own token, if it has an account.
    async fn call_as_itself(&self, method: Method, url: &str, body: Option<Value>) -> CallToolResult {
        match self.token().await {
            Ok(token) => self.call(method, url, token.as_deref(), body).await,
            Err(error) => failure(format!("can't sign in: {error}")),
        }
    }

    /// The token that it has, or a new one.
    async fn token(&self) -> Result<Option<String>, String> {
        let Some(account) = &self.account else { return Ok(None) };
        let mut known = account.token.lock().await;
        if known.is_none() {
            let url = format!("https://login.microsoftonline.com/{}/oauth2/v2.0/token", account.tenant);
            let form = format!(
                "grant_type=client_credentials&client_id={}&client_secret={}&scope=https%3A%2F%2Fgraph.microsoft.com%2F.default",
                account.client, account.secret
            );
            let request = self.client.post(url).header("content-type", "application/x-www-form-urlencoded").body(form);
            let response = request.send().await.map_err(|error| chain(&error))?;
            let answer: Value = response.json().await.map_err(|error| chain(&error))?;
            let token = answer["access_token"].as_str().ok_or_else(|| answer.to_string())?;
            *known = Some(token.to_owned());
        }
        Ok(known.clone())
    }

    /// One request; the status line, then the body as it came. What isn't 2xx is an error of the tool.
    async fn call(&self, method: Method, url: &str, token: Option<&str>, body: Option<Value>) -> CallToolResult {
        let answer = async {
            let mut request = self.client.request(method, url);
            if let Some(token) = token {
                request = request.bearer_auth(token);
            }
            if let Some(body) = body {
                let json = "application/json";
                request = request.header("content-type", json).body(body.to_string());
            }
            let response = request.send().await?;
            let status = response.status();
            Ok::<_, reqwest::Error>((status, response.text().await?))
        };
        match answer.await {
            Ok((status, body)) if status.is_success() => success(format!("{status}\n{body}")),
            Ok((status, body)) => failure(format!("{status}\n{body}")),
            Err(error) => failure(chain(&error)),
        }
    }
}

fn success(text: String) -> CallToolResult {
    CallToolResult::success(vec![ContentBlock::text(text)])
}

fn failure(text: String) -> CallToolResult {
    CallToolResult::error(vec![ContentBlock::text(text)])
}

/// An error with its causes: reqwest's own words leave out why.
fn chain(error: &dyn Error) -> String {
    let (mut text, mut cause) = (error.to_string(), error.source());
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let api = std::env::var("CRM_API").unwrap_or_else(|_| "https://graph.microsoft.com".into());
    Crm::new(api)?.serve(rmcp::transport::stdio()).await?.waiting().await?;
    Ok(())
}
