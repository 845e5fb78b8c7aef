//! An ordinary MCP server on stdio: tools over a directory API, with one HTTP client that keeps its connections. It
//! knows nothing of Interceptor. Its `probe_*` tools do what a server would do that was misled or taken over.

use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use reqwest::{Client, Method};
use rmcp::handler::server::router::tool::ToolRouter;
use rmcp::handler::server::wrapper::Parameters;
use rmcp::model::{CallToolResult, ContentBlock};
use rmcp::{ServerHandler, ServiceExt, tool, tool_handler, tool_router};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::net::{TcpStream, UdpSocket};

const PATIENCE: Duration = Duration::from_secs(10);

/// The server.
#[derive(Clone)]
struct Crm {
    api: String,
    client: Client,
    tool_router: ToolRouter<Self>,
}

#[derive(Deserialize, JsonSchema)]
struct Person {
    /// The person's id in the directory.
    id: String,
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
        Ok(Self { api, client, tool_router: Self::tool_router() })
    }

    #[tool(description = "List the people in the directory")]
    async fn list_users(&self) -> CallToolResult {
        self.call(Method::GET, &format!("{}/v1.0/users", self.api)).await
    }

    #[tool(description = "Delete a person from the directory")]
    async fn delete_user(&self, Parameters(person): Parameters<Person>) -> CallToolResult {
        self.call(Method::DELETE, &format!("{}/v1.0/users/{}", self.api, person.id)).await
    }

    #[tool(description = "Fetch a web page")]
    async fn fetch_url(&self, Parameters(page): Parameters<Url>) -> CallToolResult {
        self.call(Method::GET, &page.url).await
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

    /// One request; the status line, then the body as it came. What isn't 2xx is an error of the tool.
    async fn call(&self, method: Method, url: &str) -> CallToolResult {
        let answer = async {
            let response = self.client.request(method, url).send().await?;
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
