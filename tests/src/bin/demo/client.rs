//! The MCP client: the official SDK, which starts the server as its child. That the command it starts is
//! `interceptor run …` is a line of its configuration; it knows no more of Interceptor than that.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use rmcp::model::{CallToolRequestParams, JsonObject};
use rmcp::service::RunningService;
use rmcp::transport::TokioChildProcess;
use rmcp::{RoleClient, ServiceExt};
use serde_json::Value;
use tokio::time::{Duration, timeout};

/// Longer than any answer may take, shorter than a reader's patience.
const PATIENCE: Duration = Duration::from_secs(60);

/// A client with its running server.
pub(crate) struct Client {
    service: RunningService<RoleClient, ()>,
}

/// What a tool answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) is_error: bool,
    /// The first line: a status line, or what went wrong.
    pub(crate) head: String,
    /// The rest: the body of an HTTP answer.
    pub(crate) body: Value,
}

impl Client {
    /// Starts the server by `command`; what it says on stderr goes to `log`.
    pub(crate) async fn start(mut command: Command, log: &Path) -> Result<Self> {
        // Ctrl-C is for the demo, which ends its children in order.
        command.process_group(0);
        let (process, _) = TokioChildProcess::builder(tokio::process::Command::from(command))
            .stderr(File::create(log)?)
            .spawn()
            .context("can't start the server")?;
        let service = timeout(PATIENCE, ().serve(process)).await.map_err(anyhow::Error::from);
        let service = service.and_then(|served| served.map_err(anyhow::Error::from));
        let service = service.with_context(|| format!("the server doesn't answer; it said: {}", said(log)))?;
        Ok(Self { service })
    }

    pub(crate) async fn tools(&self) -> Result<Vec<String>> {
        let tools = timeout(PATIENCE, self.service.list_all_tools()).await??;
        Ok(tools.into_iter().map(|tool| tool.name.into_owned()).collect())
    }

    pub(crate) async fn call(&self, tool: &'static str, arguments: Value) -> Result<Answer> {
        let arguments: JsonObject = serde_json::from_value(arguments)?;
        let call = self.service.call_tool(CallToolRequestParams::new(tool).with_arguments(arguments));
        let result = timeout(PATIENCE, call).await.with_context(|| format!("{tool} doesn't answer"))??;
        let text = result.content.iter().find_map(|block| block.as_text()).map_or("", |text| text.text.as_str());
        let (head, body) = text.split_once('\n').unwrap_or((text, ""));
        let body = serde_json::from_str(body).unwrap_or_else(|_| Value::String(body.to_owned()));
        Ok(Answer { is_error: result.is_error == Some(true), head: head.to_owned(), body })
    }

    /// Closes the server's stdin, as the protocol says, and waits for its end.
    pub(crate) async fn stop(self) -> Result<()> {
        self.service.cancel().await.context("the client didn't end in order")?;
        Ok(())
    }
}

fn said(log: &Path) -> String {
    std::fs::read_to_string(log).unwrap_or_default().trim().to_owned()
}
