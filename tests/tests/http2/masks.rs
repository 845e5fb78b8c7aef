//! Answers under masks, over HTTP/2: stream by stream, with trailers.

use anyhow::{Result, ensure};
use bytes::Bytes;
use h2::server::SendResponse;
use http::{HeaderMap, Response};
use interceptor_tests::daemon::{Daemon, GRAPH_TARGET, Order};
use interceptor_tests::{recorded, require_root};

use super::fixture::{ALL, Client, Upstream, run};

/// Answers one stream.
async fn answer(path: &str, mut respond: SendResponse<Bytes>) -> Result<()> {
    let response = Response::builder().header("content-type", "application/json");
    match path {
        "/trailers" => {
            let mut body = respond.send_response(response.body(())?, false)?;
            body.send_data(Bytes::from_static(b"{\"mail\":\"ada\"}"), false)?;
            let mut trailers = HeaderMap::new();
            trailers.insert("x-user", "ada".parse()?);
            trailers.insert("grpc-status", "0".parse()?);
            body.send_trailers(trailers)?;
        }
        "/deep" => respond.send_response(response.body(())?, false)?.send_data(Bytes::from("[".repeat(300)), true)?,
        "/none" => drop(respond.send_response(Response::new(()), true)?),
        "/image" => {
            let image = Response::builder().header("content-type", "image/png").header("content-length", "3");
            respond.send_response(image.body(())?, false)?.send_data(Bytes::from_static(b"ada"), true)?;
        }
        _ => {
            let mut body = respond.send_response(response.body(())?, false)?;
            // In pieces of one byte.
            for byte in b"{\"mail\":\"ada\",\"n\":1}" {
                body.send_data(Bytes::copy_from_slice(&[*byte]), false)?;
            }
            body.send_data(Bytes::new(), true)?;
        }
    }
    Ok(())
}

#[test]
fn each_stream_is_masked_or_withheld_by_itself() -> Result<()> {
    require_root!(Ok(()));
    let upstream = Upstream::start(|stream, _| async move {
        let mut connection = h2::server::handshake(stream).await?;
        while let Some(request) = connection.accept().await {
            let (request, respond) = request?;
            tokio::spawn(async move { answer(request.uri().path(), respond).await });
        }
        Ok(())
    })?;
    let order = Order {
        targets: format!("{GRAPH_TARGET}mask = [\"m\"]\n"),
        more: "[[mask]]\nname = \"m\"\njson = [\"$..mail\"]\nheaders = [\"x-user\"]\n".to_owned(),
        ..upstream.order(ALL)
    };
    let daemon = Daemon::start(&order)?;
    run(async {
        let client = Client::open(&daemon).await?;
        let (plain, image, none, trailers, deep) = tokio::join!(
            client.ask("GET", "/plain"),
            client.ask("GET", "/image"),
            client.ask("GET", "/none"),
            client.ask("GET", "/trailers"),
            client.ask("GET", "/deep"),
        );
        let plain = plain?;
        ensure!(plain.status == 200 && plain.body == b"{\"mail\":\"[redacted]\",\"n\":1}", "{plain:?}");
        let image = image?;
        ensure!(image.status == 502 && image.code() == "response-withheld", "{image:?}");
        let none = none?;
        ensure!(none.status == 200 && none.body.is_empty(), "{none:?}");
        let answer = trailers?;
        let trailers = answer.trailers.clone().unwrap_or_default();
        ensure!(answer.body == b"{\"mail\":\"[redacted]\"}" && trailers["x-user"] == "[redacted]", "{answer:?}");
        ensure!(trailers["grpc-status"] == "0", "{answer:?}");
        // That shows before the head is passed on.
        let deep = deep?;
        ensure!(deep.status == 502 && deep.code() == "response-withheld", "{deep:?}");
        ensure!(client.ask("GET", "/plain").await?.status == 200, "a withheld answer ended the connection");
        Ok(())
    })?;
    ensure!(upstream.connections() == 1, "a withheld answer ended the connection upstream");
    let fits = |one: &recorded::Operation| one.summary == "GET /image" && one.outcome.is_some();
    let image = recorded::wait_for(&daemon.database(), 0, fits)?;
    ensure!(image.outcome == Some(("response-withheld".into(), Some(502))), "{image:?}");
    daemon.finish()
}
