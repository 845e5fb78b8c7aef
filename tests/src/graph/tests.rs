use super::*;

fn client(graph: &Graph) -> reqwest::Client {
    let root = reqwest::Certificate::from_pem(graph.ca_pem().as_bytes()).unwrap();
    reqwest::Client::builder()
        .tls_certs_only([root])
        .resolve("graph.microsoft.com", graph.address())
        .no_proxy()
        .build()
        .unwrap()
}

fn url(graph: &Graph, path: &str) -> String {
    format!("https://graph.microsoft.com:{}{path}", graph.address().port())
}

#[tokio::test]
async fn the_directory_is_read_and_changed_and_every_request_is_logged() {
    let graph = Graph::start(&[]).unwrap();
    let client = client(&graph);
    let users: serde_json::Value = client.get(url(&graph, "/v1.0/users")).send().await.unwrap().json().await.unwrap();
    assert_eq!(users["value"].as_array().unwrap().len(), 3);
    let id = users["value"][1]["id"].as_str().unwrap();
    let gone = client.delete(url(&graph, &format!("/v1.0/users/{id}"))).send().await.unwrap();
    assert_eq!(gone.status(), 204);
    assert_eq!(graph.people().len(), 2);
    let again = client.get(url(&graph, &format!("/v1.0/users/{id}?$select=mail"))).send().await.unwrap();
    assert_eq!(again.status(), 404);
    let log = graph.received();
    assert_eq!(log.iter().map(|one| one.method.as_str()).collect::<Vec<_>>(), ["GET", "DELETE", "GET"]);
    assert_eq!(log[2].path, format!("/v1.0/users/{id}?$select=mail"));
    assert!(log.iter().all(|one| one.connection == 1 && one.tls), "one client keeps one connection: {log:?}");
    assert_eq!(again.headers()["request-id"], log[2].request_id, "each answer names its request");
    assert!(log[0].request_id != log[1].request_id, "{log:?}");
}

#[tokio::test]
async fn streams_digests_trailers_and_cuts() {
    let graph = Graph::start(&[]).unwrap();
    let client = client(&graph);
    let bytes = client.get(url(&graph, "/bytes/200000")).send().await.unwrap().bytes().await.unwrap();
    assert_eq!(bytes.len(), 200_000);
    let upload: serde_json::Value =
        client.post(url(&graph, "/upload")).body(bytes.clone()).send().await.unwrap().json().await.unwrap();
    assert_eq!(upload["bytes"], 200_000);
    assert_eq!(upload["blake3"], blake3::hash(&bytes).to_hex().as_str());
    let mut stream = client.get(url(&graph, "/stream")).send().await.unwrap();
    assert!(stream.chunk().await.unwrap().is_some());
    assert!(stream.chunk().await.unwrap().is_some());
    let cut = client.get(url(&graph, "/cut/1000")).send().await.unwrap();
    assert_eq!(cut.content_length(), Some(2_000));
    assert!(cut.bytes().await.is_err(), "half of what was announced isn't a whole answer");
    let echo: serde_json::Value =
        client.put(url(&graph, "/echo")).body("hello").send().await.unwrap().json().await.unwrap();
    assert_eq!((echo["method"].as_str(), echo["body"].as_str()), (Some("PUT"), Some("hello")));
    assert_eq!(client.get(url(&graph, "/slow?ms=1")).send().await.unwrap().status(), 200);
    assert_eq!(client.get(url(&graph, "/nowhere")).send().await.unwrap().status(), 404);
    let plain = format!("http://{}/v1.0/users", graph.plain_address());
    assert_eq!(client.get(plain).send().await.unwrap().status(), 200);
    assert!(!graph.received().last().unwrap().tls);
}

#[tokio::test]
async fn trailers_follow_the_body() {
    let graph = Graph::start(&[]).unwrap();
    let stream = TcpStream::connect(graph.plain_address()).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get("/trailers")
        .header("host", "localhost")
        .header("te", "trailers")
        .body(http_body_util::Empty::<bytes::Bytes>::new())
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    let collected = http_body_util::BodyExt::collect(response.into_body()).await.unwrap();
    let digest = collected.trailers().and_then(|trailers| trailers.get("x-digest")).cloned().unwrap();
    assert_eq!(digest, blake3::hash(&collected.to_bytes()).to_hex().as_str());
}

#[tokio::test]
async fn tickets_are_for_who_has_the_key() {
    let graph = Graph::start(&[]).unwrap();
    let client = client(&graph);
    assert_eq!(client.get(url(&graph, "/v1/tickets")).send().await.unwrap().status(), 401);
    let asked = client.get(url(&graph, "/v1/tickets")).header("x-api-key", TICKETS_KEY);
    let tickets: serde_json::Value = asked.send().await.unwrap().json().await.unwrap();
    assert_eq!(tickets["tickets"][0]["from"], "adele.vance@contoso.example");
}
