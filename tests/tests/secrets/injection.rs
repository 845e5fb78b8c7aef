//! Injected credentials: put in after the permit, echoed to nobody, and nothing sent without them.

use std::fs;

use anyhow::{Result, ensure};
use interceptor_tests::require_root;
use interceptor_tests::wire::Wire;

use super::fixture::{ALL, begin, exported, payload, secret_file};

const SECRET: &str = "inj3cted/Key+0001";

#[test]
fn a_credential_takes_the_place_of_the_processs_own_and_its_echo_is_masked() -> Result<()> {
    require_root!(Ok(()));
    let (_folder, path) = secret_file(SECRET)?;
    let keys = format!("credential = {{ header = \"Authorization\", prefix = \"Bearer \", value_file = {path:?} }}");
    let policy = r#"
@id("injected-only")
permit (principal, action in [Action::"reach", Action::"http"], resource == Target::"graph")
unless { context has http && context.base.credential != "injected" };
"#;
    let (graph, daemon) = begin(&keys, policy, "")?;
    let mut wire = Wire::tls(&daemon)?;
    wire.send("GET /echo?a=1 HTTP/1.1\r\nHost: graph.microsoft.com\r\nAuthorization: Bearer mine-own\r\n\r\n")?;
    let answer = wire.answer()?;
    let body = String::from_utf8_lossy(&answer.body).into_owned();
    ensure!(answer.status == 200 && graph.received().len() == 1, "{answer:?}");
    // The upstream repeats what it got: the credential, of which the process sees the length only.
    let stars = format!("Bearer {}", "*".repeat(SECRET.len()));
    ensure!(body.contains(&stars) && !body.contains("mine-own"), "{body}");
    for form in [SECRET, "inj3cted%2FKey%2B0001", "inj3cted\\/Key+0001"] {
        ensure!(!body.contains(form), "{body}");
    }
    let lines = exported(&daemon, "GET /echo")?;
    let text = serde_json::to_string(&lines)?;
    ensure!(!text.contains(SECRET) && !text.contains("mine-own"), "{text}");
    let echo = lines.iter().find(|line| line["operation"]["summary"] == "GET /echo").cloned().unwrap_or_default();
    ensure!(echo["operation"]["credential"] == "injected", "{echo}");
    daemon.finish()
}

#[test]
fn what_has_no_credential_is_not_sent() -> Result<()> {
    require_root!(Ok(()));
    let (_folder, path) = secret_file(SECRET)?;
    let keys = format!("credential = {{ query = \"key\", value_file = {path:?} }}");
    fs::remove_file(&path)?;
    let (graph, daemon) = begin(&keys, ALL, "")?;
    let mut wire = Wire::tls(&daemon)?;
    let answer = wire.ask("GET", "/v1.0/users?key=mine")?;
    ensure!(answer.status == 403 && answer.code() == "credential-unavailable", "{answer:?}");
    ensure!(!String::from_utf8_lossy(&answer.body).contains("secret"), "it names a file: {answer:?}");
    ensure!(graph.received().is_empty(), "it was sent");
    ensure!(daemon.log().contains("a credential can't be had"), "the operator isn't told: {}", daemon.log());
    daemon.finish()
}

#[test]
fn a_query_credential_is_in_what_is_sent_and_not_in_what_is_recorded() -> Result<()> {
    require_root!(Ok(()));
    let (_folder, path) = secret_file(SECRET)?;
    let keys = format!("credential = {{ query = \"key\", value_file = {path:?} }}");
    let (graph, daemon) = begin(&keys, ALL, "")?;
    let mut wire = Wire::tls(&daemon)?;
    ensure!(wire.ask("GET", "/v1.0/users?key=mine&top=1")?.status == 200, "refused");
    let paths: Vec<String> = graph.received().into_iter().map(|one| one.path).collect();
    ensure!(paths == ["/v1.0/users?top=1&key=inj3cted%2FKey%2B0001"], "{paths:?}");
    let kept = payload(&exported(&daemon, "GET /v1.0/users")?, "GET /v1.0/users");
    ensure!(kept["request"]["start"] == "GET /v1.0/users?top=1 HTTP/1.1", "{kept}");
    daemon.finish()
}
