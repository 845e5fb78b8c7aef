//! The cast without Interceptor: the server does what it is asked, so that whatever it can't do under interception it
//! can't do for that reason.

use std::process::Command;

use interceptor_tests::binary;
use interceptor_tests::graph::Graph;
use serde_json::json;

use crate::client::Client;

#[tokio::test]
async fn the_server_works_without_interception() {
    let graph = Graph::start(&[]).unwrap();
    let room = tempfile::tempdir().unwrap();
    let roots = room.path().join("roots.pem");
    std::fs::write(&roots, graph.ca_pem()).unwrap();
    let mut command = Command::new(binary::find("crm-mcp").unwrap());
    command
        .env_clear()
        .env("SSL_CERT_FILE", &roots)
        .env("CRM_API", format!("https://localhost:{}", graph.address().port()));
    let client = Client::start(command, &room.path().join("log")).await.unwrap();
    assert!(client.tools().await.unwrap().contains(&"delete_user".into()));

    let listed = client.call("list_users", json!({})).await.unwrap();
    assert_eq!((listed.is_error, listed.head.as_str()), (false, "200 OK"));
    assert_eq!(listed.body["value"].as_array().unwrap().len(), 3);
    let id = listed.body["value"][0]["id"].clone();
    assert_eq!(client.call("delete_user", json!({ "id": id })).await.unwrap().head, "204 No Content");
    assert_eq!(graph.people().len(), 2);
    assert_eq!(graph.connections(), 1, "one client keeps its connection");
    let again = client.call("delete_user", json!({ "id": id })).await.unwrap();
    assert_eq!((again.is_error, again.head.as_str()), (true, "404 Not Found"));
    assert_eq!(again.body["error"]["code"], "Request_ResourceNotFound");

    let port = graph.address().port();
    let connected = client.call("probe_literal", json!({ "address": "127.0.0.1", "port": port })).await.unwrap();
    assert_eq!(connected.head, "connected");
    let refused = client.call("probe_udp", json!({ "address": "127.0.0.1", "port": 9 })).await.unwrap();
    assert!(refused.is_error && refused.head.contains("refused"), "{refused:?}");
    let wrong = client.call("fetch_url", json!({ "url": format!("https://127.0.0.2:{port}/") })).await.unwrap();
    assert!(wrong.is_error && wrong.head.contains(": "), "an error comes with its causes: {wrong:?}");
    client.stop().await.unwrap();
}
