//! The scene: what the server may do, what is masked for it, and the daemon's order.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Result;
use interceptor_tests::daemon::{GRAPH_TARGET, Order};
use interceptor_tests::entra::Entra;
use interceptor_tests::entra::directory::{CONTOSO, CRM};
use interceptor_tests::graph::{Graph, TICKETS_KEY};
use tempfile::TempDir;

/// What the server may do. It is the whole policy: what it doesn't permit is denied.
pub(crate) const POLICY: &str = r#"@id("crm-reads")
permit (
    principal,
    action in [Action::"reach", Action::"http:read"],
    resource == Target::"graph"
);

@id("crm-tickets")
permit (
    principal,
    action in [Action::"reach", Action::"http:read"],
    resource == Target::"tickets"
);

@id("crm-signs-in")
permit (principal, action in Action::"reach", resource == Target::"entra");

@id("crm-tokens")
permit (
    principal,
    action == Action::"token:request",
    resource == Target::"graph"
)
when { context.token.grant == "client_credentials" };

@id("crm-adds")
@reason("who is new is looked at first")
@approval("hr")
permit (
    principal,
    action == Action::"http:POST",
    resource == Target::"graph"
)
when { context.http.path == "/v1.0/users" };

@id("people-stay")
@reason("people are removed by HR, never by a model")
forbid (
    principal,
    action == Action::"http:DELETE",
    resource == Target::"graph"
);
"#;

/// The login host, which is a target like any other.
const ENTRA_TARGET: &str = r#"
[[target]]
name = "entra"
hosts = ["login.microsoftonline.com"]
"#;

/// The host of the tickets.
pub(crate) const TICKETS: &str = "tickets.contoso.example";

/// What nobody behind a server needs to see.
const MASK: &str = r#"
[[mask]]
name = "pii"
json = ["$..mobilePhone"]
detect = ["email"]
strategy = "partial"
"#;

/// A folder with the key of the tickets, which is root's.
pub(crate) fn vault() -> Result<TempDir> {
    let folder = TempDir::with_prefix("interceptor-demo-vault-")?;
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(folder.path().join("tickets.key"))?;
    std::io::Write::write_all(&mut file, TICKETS_KEY.as_bytes())?;
    Ok(folder)
}

/// Who says yes for HR. She launches and runs nothing here.
pub(crate) const ADA: u32 = 61_301;

/// How long a request waits for her. Short, so that nobody who follows the story waits for long either.
const HOLD: &str = "3s";

/// The server's own service principal.
pub(crate) fn principal() -> String {
    format!("{}/{}", CONTOSO.id, CRM.principal(CONTOSO).unwrap_or_default())
}

/// What the demo's daemon is started with.
pub(crate) fn order(graph: &Graph, entra: &Entra, vault: &Path) -> Order {
    let tenant = format!(
        "[[tenant]]\nid = \"{tenant}\"\n[limits]\nhold = \"{HOLD}\"\n[names]\ncrm-bot = \"identity:{}\"\n[approvers]\nhr = [\"{ADA}\"]\n\
         [people]\n{ADA} = \"{tenant}/00000000-0000-4000-8000-000000061301\"\n",
        principal(),
        tenant = CONTOSO.id
    );
    let graph_only = Order::for_graph(graph, POLICY);
    let login = ("login.microsoftonline.com".to_owned(), entra.places().login);
    let key = vault.join("tickets.key");
    let tickets = format!(
        "[[target]]\nname = \"tickets\"\nhosts = [\"{TICKETS}\"]\nmask = [\"pii\"]\n\
         credential = {{ header = \"X-Api-Key\", value_file = {key:?} }}\n"
    );
    Order {
        purpose: "demo",
        targets: format!("{GRAPH_TARGET}mask = [\"pii\"]\n{ENTRA_TARGET}{tickets}"),
        more: format!("{MASK}{tenant}"),
        resolve: [graph_only.resolve.clone(), vec![login, (TICKETS.to_owned(), graph.address())]].concat(),
        extra_ca: graph.ca_pem() + &entra.ca_pem(),
        ..graph_only
    }
}
