//! An injected credential that an upstream sends back: in every part of an answer, in HTTP/1.1 and HTTP/2.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, ensure};
use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Request, Response};
use interceptor_tests::authority::Authority;
use interceptor_tests::daemon::{Daemon, Order};
use interceptor_tests::require_root;
use interceptor_tests::scripted::Scripted;
use interceptor_tests::wire::Wire;

use super::fixture::{ALL, exported, secret_file};

const SECRET: &str = "inj3cted/Key+0001";
/// As servers spell it, besides.
const FORMS: [&str; 5] = [
    SECRET,
    "inj3cted%2fKey%2B0001",
    "inj3cted\\/Key\\u002B0001",
    "inj3cted&#x2F;Key&#43;0001",
    "aW5qM2N0ZWQvS2V5KzAwMD",
];
const HOST: &str = "graph.microsoft.com";

/// A daemon whose target is at `address`, under the CA `ca`, with the secret in `file`.
fn daemon(address: SocketAddr, ca: String, file: &Path) -> Result<Daemon> {
    Daemon::start(&Order {
        purpose: "secrets",
        policy: ALL.to_owned(),
        resolve: vec![(HOST.to_owned(), address)],
        extra_ca: ca,
        targets: format!(
            "[[target]]\nname = \"graph\"\nhosts = [\"{HOST}\"]\n\
             credential = {{ header = \"Authorization\", prefix = \"Bearer \", value_file = {file:?} }}\n"
        ),
        more: String::new(),
        workload: String::new(),
        bring: vec!["wire"],
    })
}

fn has_none(text: &str) -> Result<()> {
    for form in FORMS {
        ensure!(!text.contains(form), "`{form}` is in {text}");
    }
    Ok(())
}

#[test]
fn what_a_server_sends_back_of_a_credential_is_masked_in_every_part() -> Result<()> {
    require_root!(Ok(()));
    let (_folder, file) = secret_file(SECRET)?;
    let authority = Authority::new()?;
    let upstream = Scripted::start(authority.server(&[HOST])?, |peer| {
        let head = peer.request()?;
        if head.starts_with("GET /gzip ") {
            return peer.send("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd");
        }
        peer.send(format!(
            "HTTP/1.1 401 {SECRET}\r\nWWW-Authenticate: Bearer error=\"{SECRET}\"\r\n\
             Location: https://h/?key={}\r\nX-Coded: {}\r\nTransfer-Encoding: chunked\r\nTrailer: X-Echo\r\n\r\n",
            FORMS[1], FORMS[4]
        ))?;
        // Cut within it.
        for piece in ["{\"key\":\"inj3c", "ted\\/Key\\u002", "B0001\",\"html\":\"inj3cted&#x2F;Key&#43;0001\"}"] {
            peer.send(format!("{:x}\r\n{piece}\r\n", piece.len()))?;
        }
        peer.send(format!("0\r\nX-Echo: {SECRET}\r\n\r\n"))
    })?;
    let daemon = daemon(upstream.address(), authority.pem(), &file)?;
    let mut wire = Wire::tls(&daemon)?;
    wire.send(format!("GET /all HTTP/1.1\r\nHost: {HOST}\r\nTE: trailers\r\nConnection: te\r\n\r\n"))?;
    let answer = wire.answer()?;
    ensure!(String::from_utf8_lossy(&upstream.came()).contains(&format!("Bearer {SECRET}")), "it wasn't injected");
    ensure!(answer.head.starts_with("HTTP/1.1 401 Unauthorized\r\n"), "{answer:?}");
    let body = String::from_utf8(answer.body.clone())?;
    has_none(&format!("{}{body}{}", answer.head, answer.trailers))?;
    let stars = |form: &str| "*".repeat(form.len());
    ensure!(answer.header("location") == Some(format!("https://h/?key={}", stars(FORMS[1])).as_str()), "{answer:?}");
    ensure!(answer.header("x-coded") == Some(stars(FORMS[4]).as_str()), "{answer:?}");
    ensure!(body == format!("{{\"key\":\"{}\",\"html\":\"{}\"}}", stars(FORMS[2]), stars(FORMS[3])), "{body}");
    ensure!(answer.trailers.to_lowercase() == format!("x-echo: {}\r\n", stars(SECRET)), "{answer:?}");
    // A coding that nobody asked for could hide it.
    let answer = Wire::tls(&daemon)?.ask("GET", "/gzip")?;
    ensure!(answer.status == 502 && answer.code() == "response-unreadable", "{answer:?}");
    has_none(&serde_json::to_string(&exported(&daemon, "GET /gzip")?)?)?;
    drop(wire);
    daemon.finish()
}

/// 401 with the credential in its head, its body and its trailers; 500 where it didn't come.
fn echo(request: &Request<RecvStream>, mut respond: SendResponse<Bytes>) -> Result<()> {
    let wanted = format!("Bearer {SECRET}");
    let came = request.headers().get("authorization").is_some_and(|value| value.as_bytes() == wanted.as_bytes());
    let head = Response::builder().status(if came { 401 } else { 500 });
    if request.uri().path() == "/gzip" {
        let mut body = respond.send_response(head.header("content-encoding", "gzip").body(())?, false)?;
        return Ok(body.send_data(Bytes::from_static(b"abcd"), true)?);
    }
    let head = head.header("location", format!("https://h/?key={}", FORMS[1])).header("x-coded", FORMS[4]);
    let mut body = respond.send_response(head.body(())?, false)?;
    body.send_data(Bytes::from_static(b"<inj3cted/Key"), false)?;
    body.send_data(Bytes::from_static(b"&#43;0001>"), false)?;
    let mut trailers = HeaderMap::new();
    trailers.insert("x-echo", HeaderValue::from_static(SECRET));
    Ok(body.send_trailers(trailers)?)
}

/// Serves [`echo`] in HTTP/2 until the test's process ends.
fn serve_http2(authority: &Authority) -> Result<SocketAddr> {
    let mut tls = rustls::ServerConfig::clone(&*authority.server(&[HOST])?);
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(move || {
        runtime.block_on(async move {
            let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let mut connection = h2::server::handshake(acceptor.accept(stream).await?).await?;
                    while let Some(request) = connection.accept().await {
                        let (request, respond) = request?;
                        echo(&request, respond)?;
                    }
                    Ok::<_, anyhow::Error>(())
                });
            }
        });
    });
    Ok(address)
}

#[test]
fn a_credential_is_injected_and_its_echo_masked_in_http2() -> Result<()> {
    require_root!(Ok(()));
    let (_folder, file) = secret_file(SECRET)?;
    let authority = Authority::new()?;
    let daemon = daemon(serve_http2(&authority)?, authority.pem(), &file)?;
    let ask = |path: &str| -> Result<String> {
        let url = format!("https://{HOST}{path}");
        let output = daemon.run(&["curl", "-sS", "-i", "--http2", &url]).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let said = ask("/all")?;
    ensure!(said.starts_with("HTTP/2 401"), "{said}");
    has_none(&said)?;
    ensure!(said.contains(&format!("location: https://h/?key={}", "*".repeat(FORMS[1].len()))), "{said}");
    ensure!(said.contains(&format!("<{}>", "*".repeat("inj3cted/Key&#43;0001".len()))), "{said}");
    let said = ask("/gzip")?;
    ensure!(said.starts_with("HTTP/2 502") && said.contains("response-unreadable"), "{said}");
    has_none(&serde_json::to_string(&exported(&daemon, "GET /gzip")?)?)?;
    daemon.finish()
}
