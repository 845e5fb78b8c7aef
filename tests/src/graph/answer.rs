//! What the API answers: the directory, and paths that put a proxy to the test.
//!
//! `GET /v1.0/users[/{id}]`, `POST /v1.0/users`, `DELETE /v1.0/users/{id}`, `POST /v1.0/{kind}/{id}/getMemberObjects`
//! (the groups of [`directory`](crate::entra::directory); behind a guard for callers that may read groups); `/stream` (a line each 20 ms until the client
//! goes), `/bytes/{n}`, `/cut/{n}` (announces twice as many bytes as it sends), `/upload` (counts and digests), `/trailers`,
//! `/slow?ms=…`, `/echo`; `/v1/tickets`, for who has the key ([`TICKETS_KEY`]).

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, TRAILER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::channel::{Channel, Sender};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::{Person, Received, Shared, TICKETS_KEY};
use crate::entra::{Caller, Challenge};

type Body = BoxBody<Bytes, io::Error>;

/// The largest piece that a streamed answer is sent in.
const PIECE: usize = 64 * 1024;
const ZEROS: &[u8] = &[0; PIECE];

/// Notes the request, then answers it.
pub(super) async fn answer(
    request: Request<Incoming>,
    connection: u64,
    tls: bool,
    shared: &Arc<Shared>,
) -> Result<Response<Body>, Infallible> {
    let host = request.headers().get(HOST).map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned());
    let authorization = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let checked = shared.guard().map(|guard| guard.check(authorization)).transpose();
    let request_id = shared.request_id();
    shared.note(Received {
        connection,
        tls,
        method: request.method().to_string(),
        path: request.uri().path_and_query().map_or_else(|| request.uri().to_string(), ToString::to_string),
        host: host.unwrap_or_default(),
        caller: checked.as_ref().ok().cloned().flatten(),
        request_id: request_id.clone(),
    });
    let mut response = match checked {
        Ok(caller) => route(request, caller.as_ref(), shared)
            .await
            .unwrap_or_else(|error| problem(StatusCode::INTERNAL_SERVER_ERROR, "generalException", &error.to_string())),
        Err(challenge) => unauthorized(&challenge, request.headers()),
    };
    if let Ok(value) = HeaderValue::from_str(&request_id) {
        response.headers_mut().insert("request-id", value);
    }
    Ok(response)
}

async fn route(
    request: Request<Incoming>,
    caller: Option<&Caller>,
    shared: &Shared,
) -> Result<Response<Body>, http::Error> {
    let path = request.uri().path().to_owned();
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    let is_read = request.method() == Method::GET || request.method() == Method::HEAD;
    match segments.as_slice() {
        ["v1.0", "users"] if is_read => {
            let people = shared.people().clone();
            Ok(document(StatusCode::OK, &json!({ "@odata.context": "$metadata#users", "value": people })))
        }
        ["v1.0", "users"] if request.method() == Method::POST => Ok(add(request, shared).await),
        ["v1.0", "users", id] if is_read => Ok(find(id, shared)),
        ["v1.0", "users", id] if request.method() == Method::DELETE => remove(id, shared),
        ["v1.0", "users" | "servicePrincipals" | "directoryObjects", id, "getMemberObjects"]
            if request.method() == Method::POST =>
        {
            Ok(groups(id, caller, shared))
        }
        ["stream"] => Ok(Response::new(stream(usize::MAX, Some(Duration::from_millis(20))))),
        ["bytes", count] => match count.parse() {
            Ok(count) => Response::builder().header(CONTENT_LENGTH, count).body(stream(count, None)),
            Err(_) => Ok(problem(StatusCode::BAD_REQUEST, "badRequest", "how many bytes?")),
        },
        ["cut", count] => match count.parse::<usize>() {
            Ok(count) => Response::builder().header(CONTENT_LENGTH, count.saturating_mul(2)).body(cut(count)),
            Err(_) => Ok(problem(StatusCode::BAD_REQUEST, "badRequest", "how many bytes?")),
        },
        ["upload"] => Ok(upload(request).await),
        ["trailers"] => Response::builder().header(TRAILER, "x-digest").body(trailers()),
        ["slow"] => {
            let query = request.uri().query().unwrap_or_default();
            let wait = query.strip_prefix("ms=").and_then(|ms| ms.parse().ok()).unwrap_or(1_000);
            tokio::time::sleep(Duration::from_millis(wait)).await;
            Ok(document(StatusCode::OK, &json!({ "waited": wait })))
        }
        ["echo"] => Ok(echo(request).await),
        ["v1", "tickets"] if is_read => Ok(tickets(request.headers(), shared)),
        _ => Ok(problem(StatusCode::NOT_FOUND, "Request_ResourceNotFound", &format!("nothing at {path}"))),
    }
}

/// The tickets, with the mail addresses of who wrote them.
fn tickets(headers: &HeaderMap, shared: &Shared) -> Response<Body> {
    if headers.get("x-api-key").is_none_or(|key| key != TICKETS_KEY) {
        return problem(StatusCode::UNAUTHORIZED, "unauthorized", "the key is missing or wrong");
    }
    let people = shared.people().clone();
    let ticket = |(number, person): (usize, &Person)| json!({ "id": number + 1, "from": person.mail, "state": "open" });
    document(StatusCode::OK, &json!({ "tickets": people.iter().take(2).enumerate().map(ticket).collect::<Vec<_>>() }))
}

/// All groups that a principal is in.
fn groups(id: &str, caller: Option<&Caller>, shared: &Shared) -> Response<Body> {
    let may = |caller: &Caller| caller.roles.iter().any(|role| role == "GroupMember.Read.All");
    if !caller.is_none_or(may) {
        let text = "Insufficient privileges to complete the operation.";
        return problem(StatusCode::FORBIDDEN, "Authorization_RequestDenied", text);
    }
    let context = "https://graph.microsoft.com/v1.0/$metadata#Collection(Edm.String)";
    document(StatusCode::OK, &json!({ "@odata.context": context, "value": shared.groups(id) }))
}

fn find(id: &str, shared: &Shared) -> Response<Body> {
    match shared.people().iter().find(|person| person.id == id) {
        Some(person) => document(StatusCode::OK, &json!(person)),
        None => absent(id),
    }
}

fn remove(id: &str, shared: &Shared) -> Result<Response<Body>, http::Error> {
    let mut people = shared.people();
    let before = people.len();
    people.retain(|person| person.id != id);
    if people.len() == before {
        return Ok(absent(id));
    }
    Response::builder().status(StatusCode::NO_CONTENT).body(whole(Bytes::new()))
}

async fn add(request: Request<Incoming>, shared: &Shared) -> Response<Body> {
    let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    match serde_json::from_slice::<Person>(&body) {
        Ok(person) => {
            shared.people().push(person.clone());
            document(StatusCode::CREATED, &json!(person))
        }
        Err(error) => problem(StatusCode::BAD_REQUEST, "Request_BadRequest", &error.to_string()),
    }
}

/// Never holds more of the body than one frame.
async fn upload(request: Request<Incoming>) -> Response<Body> {
    let (mut body, mut bytes, mut digest) = (request.into_body(), 0, blake3::Hasher::new());
    let mut trailers = 0;
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => match frame.into_data() {
                Ok(data) => {
                    bytes += data.len() as u64;
                    digest.update(&data);
                }
                Err(_) => trailers += 1,
            },
            Err(error) => return problem(StatusCode::BAD_REQUEST, "badRequest", &error.to_string()),
        }
    }
    let digest = digest.finalize().to_hex();
    document(StatusCode::OK, &json!({ "bytes": bytes, "blake3": digest.as_str(), "trailers": trailers }))
}

async fn echo(request: Request<Incoming>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let headers: Vec<(String, String)> = head
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    document(
        StatusCode::OK,
        &json!({
            "method": head.method.as_str(),
            "uri": head.uri.to_string(),
            "headers": headers,
            "body": String::from_utf8_lossy(&body),
        }),
    )
}

/// `count` zeros, or lines of text with a pause before each; ends early when the client goes.
fn stream(count: usize, pause: Option<Duration>) -> Body {
    let (mut sender, body) = Channel::<Bytes, io::Error>::new(2);
    tokio::spawn(async move {
        let mut left = count;
        while left > 0 {
            let piece = match pause {
                Some(pause) => {
                    tokio::time::sleep(pause).await;
                    Bytes::from_static(b"tick\n")
                }
                None => Bytes::from_static(&ZEROS[..left.min(PIECE)]),
            };
            left = left.saturating_sub(piece.len());
            if sender.send_data(piece).await.is_err() {
                return;
            }
        }
    });
    body.boxed()
}

fn cut(count: usize) -> Body {
    let (mut sender, body) = Channel::<Bytes, io::Error>::new(1);
    tokio::spawn(async move {
        let mut left = count;
        while left > 0 {
            let piece = &ZEROS[..left.min(PIECE)];
            left -= piece.len();
            if sender.send_data(Bytes::from_static(piece)).await.is_err() {
                return;
            }
        }
        abort(sender).await;
    });
    body.boxed()
}

/// An error overtakes what is queued before it: let the connection take that first.
async fn abort(mut sender: Sender<Bytes, io::Error>) {
    while sender.capacity() < sender.max_capacity() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    sender.abort(io::Error::from(io::ErrorKind::ConnectionAborted));
}

fn trailers() -> Body {
    let (mut sender, body) = Channel::<Bytes, io::Error>::new(2);
    tokio::spawn(async move {
        let text = Bytes::from_static(b"a body with a trailer\n");
        let mut trailers = HeaderMap::new();
        if let Ok(digest) = HeaderValue::from_str(blake3::hash(&text).to_hex().as_str()) {
            trailers.insert("x-digest", digest);
        }
        if sender.send_data(text).await.is_ok() {
            // The client may have gone by now.
            let _ = sender.send_trailers(trailers).await;
        }
    });
    body.boxed()
}

fn absent(id: &str) -> Response<Body> {
    problem(StatusCode::NOT_FOUND, "Request_ResourceNotFound", &format!("Resource '{id}' does not exist."))
}

/// As a text for who accepts nothing else.
fn unauthorized(challenge: &Challenge, asked: &HeaderMap) -> Response<Body> {
    let mut response = problem(StatusCode::UNAUTHORIZED, "InvalidAuthenticationToken", &challenge.text);
    if asked.get(ACCEPT).is_some_and(|accepted| accepted == "text/plain") {
        *response.body_mut() = whole(Bytes::from(challenge.text.clone()));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    }
    if let Ok(value) = HeaderValue::from_str(&challenge.www_authenticate) {
        response.headers_mut().insert(WWW_AUTHENTICATE, value);
    }
    response
}

/// An error as Graph words it.
fn problem(status: StatusCode, code: &str, message: &str) -> Response<Body> {
    document(status, &json!({ "error": { "code": code, "message": message } }))
}

fn document(status: StatusCode, value: &Value) -> Response<Body> {
    let mut response = Response::new(whole(Bytes::from(value.to_string())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed()
}
