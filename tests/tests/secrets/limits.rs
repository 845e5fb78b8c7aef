//! Bounds of bodies and of what is under way at once; the refusal names the key.

use anyhow::{Result, ensure};
use interceptor_tests::require_root;
use interceptor_tests::wire::Wire;

use super::fixture::{ALL, begin};

#[test]
fn a_body_that_is_too_large_is_refused_with_the_key_of_the_limit() -> Result<()> {
    require_root!(Ok(()));
    let (graph, daemon) = begin("", ALL, "[limits]\nrequest_body = \"1KiB\"\nresponse_body = \"2KiB\"\n")?;
    let mut wire = Wire::tls(&daemon)?;
    wire.send("POST /echo HTTP/1.1\r\nHost: graph.microsoft.com\r\nContent-Length: 4096\r\n\r\n")?;
    let answer = wire.answer()?;
    ensure!(answer.status == 413 && answer.code() == "request-too-large", "{answer:?}");
    ensure!(String::from_utf8_lossy(&answer.body).contains("limits.request_body"), "{answer:?}");
    ensure!(graph.received().is_empty(), "it was sent");

    let mut wire = Wire::tls(&daemon)?;
    wire.send("POST /echo HTTP/1.1\r\nHost: graph.microsoft.com\r\nTransfer-Encoding: chunked\r\n\r\n")?;
    wire.send(format!("800\r\n{}\r\n", "x".repeat(0x800)))?;
    let answer = wire.answer()?;
    ensure!(answer.status == 413 && answer.code() == "request-too-large", "chunked: {answer:?}");

    let mut wire = Wire::tls(&daemon)?;
    let answer = wire.ask("GET", "/bytes/4096")?;
    ensure!(answer.status == 502 && answer.code() == "response-too-large", "{answer:?}");
    ensure!(String::from_utf8_lossy(&answer.body).contains("limits.response_body"), "{answer:?}");
    ensure!(Wire::tls(&daemon)?.ask("GET", "/bytes/1024")?.status == 200, "what fits is refused");
    daemon.finish()
}

#[test]
fn a_workload_has_so_many_operations_under_way_at_once() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, daemon) = begin("", ALL, "[limits]\noperations = 1\n")?;
    // Two connections of one launch: the first has an answer under way that doesn't end.
    const SCRIPT: &str = "curl -sN https://graph.microsoft.com/stream > /tmp/stream & first=$!
        until [ -s /tmp/stream ]; do sleep 0.05; done
        curl -s -w '\n%{http_code}' https://graph.microsoft.com/v1.0/users; kill $first; wait $first
        until [ \"$(curl -s -o /dev/null -w '%{http_code}' https://graph.microsoft.com/v1.0/users)\" = 200 ]; do sleep 0.05; done";
    let output = daemon.run(&["/bin/sh", "-c", SCRIPT]).output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(said.ends_with("503") && said.contains("too-many-operations"), "{said}");
    ensure!(said.contains("limits.operations"), "the key isn't named: {said}");
    daemon.finish()
}
