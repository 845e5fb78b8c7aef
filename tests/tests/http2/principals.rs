//! One connection that carries the tokens of several principals: each stream is its own principal's.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use interceptor::record::event::{Verdict, What};
use interceptor_tests::daemon::{Daemon, GRAPH_TARGET, Order};
use interceptor_tests::entra::Entra;
use interceptor_tests::entra::directory::{CONTOSO, CRM, ORDERS};
use interceptor_tests::graph::Graph;
use interceptor_tests::{recorded, require_root};

use super::fixture::{ALL, Client, request, run, whole};

const PRINCIPALS: usize = 10;
const STREAMS: usize = 100;

fn object(number: usize) -> String {
    format!("{number:08}-2222-4333-8444-555566667777")
}

/// Where the host's identities are, besides Graph.
const IMDS_TARGET: &str = r#"
[[target]]
name = "imds"
hosts = ["169.254.169.254"]
ports = [80]
cleartext = true
"#;

/// Tokens that the host's endpoint gave out one after the other: verified in full, and known from then on.
#[test]
fn a_hundred_streams_of_ten_principals_are_told_apart() -> Result<()> {
    require_root!(Ok(()));
    let (entra, graph) = (Entra::start(&[])?, Graph::start(&[])?);
    graph.guard(entra.guard(&[ORDERS.id]));
    let policy = format!(
        r#"{ALL}
@id("host") permit (principal, action in Action::"reach", resource == Target::"imds");
@id("tokens") permit (principal, action == Action::"token:request", resource == Target::"graph");
@id("tokens-only") forbid (principal == Identity::"none", action in Action::"http", resource);"#
    );
    let order = Order {
        purpose: "http2",
        bring: vec!["wire"],
        targets: format!("{GRAPH_TARGET}audiences = [\"{}\"]\n{IMDS_TARGET}", ORDERS.id),
        more: format!("[[tenant]]\nid = \"{}\"\naudiences = [\"{}\"]\n", CONTOSO.id, ORDERS.id),
        resolve: vec![
            ("graph.microsoft.com".to_owned(), graph.address()),
            ("login.microsoftonline.com".to_owned(), entra.places().login),
            ("169.254.169.254".to_owned(), entra.places().imds),
        ],
        extra_ca: entra.ca_pem() + &graph.ca_pem(),
        ..Order::for_graph(&graph, &policy)
    };
    let daemon = Daemon::start(&order)?;
    let tokens = (0..PRINCIPALS)
        .map(|number| entra.app_token(CONTOSO, CRM, ORDERS)?.claim("oid", object(number)).build())
        .collect::<Result<Vec<_>>>()?;
    let imds = "http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01&resource=";
    for token in &tokens {
        entra.set_managed(ORDERS, token);
        let url = format!("{imds}{}", ORDERS.id);
        let output = daemon.run(&["curl", "-sS", "--max-time", "20", "-H", "Metadata: true", &url]).output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(said.contains(token.as_str()), "{said}\n{}", daemon.log());
    }
    let ask = |number: usize| {
        let mut request = request("GET", &format!("/v1.0/users/{}", object(number)));
        let bearer = format!("Bearer {}", tokens[number]).parse();
        request.headers_mut().insert("authorization", bearer.expect("a token can stand in a header"));
        request
    };
    run(async {
        let client = Client::open(&daemon).await?;
        for number in 0..PRINCIPALS {
            let answer = client.ask_this(ask(number)).await?;
            ensure!(answer.status == 404, "{}: {}", answer.status, String::from_utf8_lossy(&answer.body));
        }
        let mut under_way = Vec::new();
        for stream in 0..STREAMS {
            // A few of one in a row: what was seen last is known again, and the next is another.
            under_way.push(client.send(ask(stream / 5 % PRINCIPALS), true).await?.0);
        }
        for response in under_way {
            ensure!(whole(response).await?.status == 404, "one was refused");
        }
        // What was never given out isn't the workload's.
        let stranger = entra.app_token(CONTOSO, CRM, ORDERS)?.build()?;
        let mut request = request("GET", "/v1.0/users");
        request.headers_mut().insert("authorization", format!("Bearer {stranger}").parse()?);
        let answer = client.ask_this(request).await?;
        ensure!(answer.status == 401 && answer.code() == "token-not-seen", "{}", answer.status);
        Ok(())
    })?;
    for request in graph.received() {
        let caller = request.caller.with_context(|| format!("`{}` had no token", request.path))?;
        ensure!(request.path.ends_with(&caller.oid), "`{}` came as {}", request.path, caller.oid);
    }
    recorded::wait_for(&daemon.database(), 0, |one| one.verdict == Verdict::Deny)?;
    let mut counts: HashMap<String, usize> = HashMap::new();
    for (_, event) in recorded::events(&daemon.database(), 0)? {
        if let What::OperationDecided { action, summary, identity, verdict: Verdict::Allow, .. } = event.what
            && action == "http:GET"
        {
            let identity = identity.with_context(|| format!("`{summary}` names nobody"))?;
            let principal = identity.principal.as_str();
            let own = principal.strip_prefix(&format!("{}/", CONTOSO.id)).context("of another tenant")?;
            ensure!(summary.ends_with(own), "`{summary}` is recorded as {principal}");
            *counts.entry(own.to_owned()).or_default() += 1;
        }
    }
    ensure!(
        counts.len() == PRINCIPALS && counts.values().all(|count| *count == 1 + STREAMS / PRINCIPALS),
        "{counts:?}"
    );
    daemon.finish()
}
