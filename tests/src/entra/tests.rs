use std::collections::HashSet;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::directory::*;
use super::guard::{open, verify};
use super::*;
use crate::graph::Graph;

const V2: &str = "7c3e5b1a-0d64-4f2e-9a18-5be0c1d2f301/oauth2/v2.0/token";
const V1: &str = "contoso.onmicrosoft.com/oauth2/token";
const ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// A client of the login host.
struct Client {
    http: reqwest::Client,
    port: u16,
}

impl Client {
    fn new(entra: &Entra, more: &[(&str, SocketAddr, String)]) -> Self {
        let login = entra.places().login;
        let mut http = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
        let mut roots = vec![reqwest::Certificate::from_pem(entra.ca_pem().as_bytes()).unwrap()];
        for host in login::HOSTS.into_iter().chain([CLUSTER_HOST]) {
            http = http.resolve(host, login);
        }
        for (host, address, ca) in more {
            http = http.resolve(host, *address);
            roots.push(reqwest::Certificate::from_pem(ca.as_bytes()).unwrap());
        }
        Self { http: http.tls_certs_only(roots).build().unwrap(), port: login.port() }
    }

    fn url(&self, path: &str) -> String {
        format!("https://login.microsoftonline.com:{}/{path}", self.port)
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        let answer = self.http.get(self.url(path)).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    async fn post(&self, path: &str, form: &[(&str, &str)]) -> (u16, Value) {
        let mut body = form_urlencoded::Serializer::new(String::new());
        body.extend_pairs(form);
        let request = self.http.post(self.url(path)).body(body.finish());
        let kind = "application/x-www-form-urlencoded";
        let answer = request.header("content-type", kind).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    /// The claims of the access token that is given for it.
    async fn claims(&self, path: &str, form: &[(&str, &str)]) -> Value {
        let (status, document) = self.post(path, form).await;
        assert_eq!(status, 200, "{document}");
        Value::Object(open(document["access_token"].as_str().unwrap()).unwrap().1)
    }
}

fn secret<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let own = [("grant_type", "client_credentials"), ("client_id", CRM.id), ("client_secret", CRM.secret.unwrap())];
    own.iter().chain(more).copied().collect()
}

#[tokio::test]
async fn discovery_names_endpoints_issuers_and_keys() {
    let entra = Entra::start(&[]).unwrap();
    let client = Client::new(&entra, &[]);
    let (_, v2) = client.get("contoso.onmicrosoft.com/v2.0/.well-known/openid-configuration").await;
    assert_eq!(v2["issuer"], format!("https://login.microsoftonline.com/{}/v2.0", CONTOSO.id));
    assert_eq!(v2["token_endpoint"], client.url(V2), "a domain is resolved, and the port is the one that was asked");
    let (_, v1) = client.get(&format!("{}/.well-known/openid-configuration", FABRIKAM.id)).await;
    assert_eq!(v1["issuer"], format!("https://sts.windows.net/{}/", FABRIKAM.id));
    let (_, common) = client.get("common/v2.0/.well-known/openid-configuration").await;
    assert_eq!(common["issuer"], "https://login.microsoftonline.com/{tenantid}/v2.0");
    let (_, consumers) = client.get("consumers/v2.0/.well-known/openid-configuration").await;
    assert_eq!(consumers["issuer"], format!("https://login.microsoftonline.com/{}/v2.0", CONSUMERS.id));
    let (status, nobody) = client.get("nobody.example/v2.0/.well-known/openid-configuration").await;
    assert_eq!((status, &nobody["error"]), (400, &json!("invalid_tenant")));
    let keys = v2["jwks_uri"].as_str().unwrap().rsplit_once(&format!(":{}/", client.port)).unwrap().1;
    let (_, keys) = client.get(keys).await;
    let key = keys["keys"].as_array().unwrap().iter().find(|key| key["kid"] == entra.key().kid()).unwrap();
    let modulus = URL_SAFE_NO_PAD.decode(key["n"].as_str().unwrap()).unwrap();
    assert_eq!((modulus.len(), &key["e"]), (256, &json!("AQAB")));
    assert!(entra.key().public().windows(256).any(|part| part == modulus), "the modulus is the key's");
    let asked = "common/discovery/instance?api-version=1.1&authorization_endpoint=https://";
    let (_, known) =
        client.get(&format!("{asked}login.microsoftonline.com/{}/oauth2/v2.0/authorize", CONTOSO.id)).await;
    assert!(known["tenant_discovery_endpoint"].as_str().unwrap().ends_with("/v2.0/.well-known/openid-configuration"));
    let (status, unknown) = client.get(&format!("{asked}login.evil.example/common/oauth2/v2.0/authorize")).await;
    assert_eq!((status, &unknown["error"]), (400, &json!("invalid_instance")));
}

#[tokio::test]
async fn an_application_signs_in_and_the_resource_decides_the_version() {
    let entra = Entra::start(&[]).unwrap();
    let client = Client::new(&entra, &[]);
    let graph = client.claims(V2, &secret(&[("scope", "https://graph.microsoft.com/.default")])).await;
    let oid = CRM.principal(CONTOSO).unwrap();
    for (name, expected) in [("oid", oid), ("appid", CRM.id), ("ver", "1.0"), ("aud", GRAPH.uris[0]), ("idtyp", "app")]
    {
        assert_eq!(graph[name], expected, "{name}");
    }
    let orders = client.claims(V1, &secret(&[("resource", "api://orders")])).await;
    for (name, expected) in [("azp", CRM.id), ("ver", "2.0"), ("aud", ORDERS.id), ("tid", CONTOSO.id)] {
        assert_eq!(orders[name], expected, "{name}");
    }
    assert_eq!((&orders["groups"], &orders["roles"]), (&json!([CRM_READERS]), &json!(ORDERS.roles)));
    let database = client.claims(V2, &secret(&[("scope", "https://database.windows.net//.default")])).await;
    assert_eq!(database["aud"], "https://database.windows.net/", "the audience is as it was asked for");
    let path = V2.replace(CONTOSO.id, FABRIKAM.domain);
    let elsewhere = client.claims(&path, &secret(&[("scope", "api://legacy/.default")])).await;
    assert_eq!(
        (&elsewhere["tid"], &elsewhere["iss"]),
        (&json!(FABRIKAM.id), &json!(format!("https://sts.windows.net/{}/", FABRIKAM.id)))
    );
    let claims = r#"{"access_token":{"nbf":{"essential":true,"value":"4000000000"},"xms_cc":{"values":["CP1"]}}}"#;
    let asked = client.claims(V2, &secret(&[("scope", "api://orders/.default"), ("claims", claims)])).await;
    assert_eq!((&asked["nbf"], &asked["xms_cc"]), (&json!(4_000_000_000_u64), &json!(["CP1"])));
    let lives = |claims: &Value| claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
    assert!((3_800..4_000).contains(&lives(&graph)), "{}", lives(&graph));
    let utis: HashSet<String> = entra.issued().into_iter().map(|one| one.uti).collect();
    assert_eq!(utis.len(), 5, "each token has its own id");
}

#[tokio::test]
async fn refusals_are_worded_as_entra_does() {
    let entra = Entra::start(&[]).unwrap();
    let client = Client::new(&entra, &[]);
    let graph = ("scope", "https://graph.microsoft.com/.default");
    let other = entra.federated_token("system:serviceaccount:crm:other").unwrap().build().unwrap();
    let old = entra.federated_token(CRM.federated.unwrap()).unwrap().claim("exp", 1).build().unwrap();
    let forged = entra.federated_token(CRM.federated.unwrap()).unwrap().signed_by(entra.key()).build().unwrap();
    let foreign =
        entra.federated_token(CRM.federated.unwrap()).unwrap().claim("iss", "https://x.example").build().unwrap();
    let assertion = |token: &str| {
        let own = [("grant_type", "client_credentials"), ("client_id", CRM.id), ("client_assertion_type", ASSERTION)];
        own.into_iter()
            .chain([("client_assertion", token), graph])
            .map(|(name, value)| (name, value.to_owned()))
            .collect::<Vec<_>>()
    };
    let own = |pairs: &[(&'static str, &str)]| {
        pairs.iter().map(|&(name, value)| (name, value.to_owned())).collect::<Vec<_>>()
    };
    let with = |more: &[(&'static str, &'static str)]| own(&secret(more));
    let common = V2.replace(CONTOSO.id, "common");
    let tailspin = V2.replace(CONTOSO.id, TAILSPIN.id);
    let nowhere = V2.replace(CONTOSO.id, "nobody.example");
    let wrong = own(&[("grant_type", "client_credentials"), ("client_id", CRM.id), ("client_secret", "guess"), graph]);
    let naked = own(&[("grant_type", "client_credentials"), ("client_id", CRM.id), graph]);
    let user = [("username", "adele.vance@contoso.example"), ("password", "x")];
    let password = own(&[&[("grant_type", "password"), ("client_id", TOOL.id), graph], &user[..]].concat());
    let refresh = own(&[("grant_type", "refresh_token"), ("client_id", TOOL.id), ("refresh_token", "0.AAA"), graph]);
    for (path, form, status, error, number) in [
        (V2, wrong, 401, "invalid_client", 7_000_215),
        (V2, naked, 401, "invalid_client", 7_000_218),
        (V2, assertion(&other), 401, "invalid_client", 700_213),
        (V2, assertion(&old), 401, "invalid_client", 700_024),
        (V2, assertion(&forged), 401, "invalid_client", 700_027),
        (V2, assertion(&foreign), 401, "invalid_client", 700_211),
        (V2, assertion("no.token"), 401, "invalid_client", 50_027),
        (V2, with(&[("scope", "api://nothing/.default")]), 400, "invalid_resource", 500_011),
        (V2, with(&[("scope", "https://graph.microsoft.com/User.Read")]), 400, "invalid_scope", 1_002_012),
        (V2, with(&[]), 400, "invalid_request", 900_144),
        (&common, with(&[graph]), 400, "invalid_request", 50_059),
        (&tailspin, with(&[graph]), 400, "unauthorized_client", 700_016),
        (&nowhere, with(&[graph]), 400, "invalid_request", 90_002),
        (V2, password, 400, "invalid_grant", 50_076),
        (V2, refresh, 400, "invalid_grant", 9_002_313),
        (V2, own(&[("grant_type", "magic"), ("client_id", CRM.id)]), 400, "unsupported_grant_type", 70_003),
    ] {
        let form: Vec<(&str, &str)> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let (came, document) = client.post(path, &form).await;
        assert_eq!(
            (came, &document["error"], &document["error_codes"]),
            (status, &json!(error), &json!([number])),
            "{document}"
        );
        assert!(document["error_description"].as_str().unwrap().starts_with(&format!("AADSTS{number}: ")));
    }
    assert!(entra.issued().is_empty());
}

#[tokio::test]
async fn people_sign_in_by_code_device_and_refresh() {
    let entra = Entra::start(&[]).unwrap();
    let client = Client::new(&entra, &[]);
    // RFC 7636, appendix B.
    let (verifier, challenge) =
        ("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    let asked = format!(
        "{}/oauth2/v2.0/authorize?client_id={}&redirect_uri=http://localhost/&login_hint={}&state=7\
         &scope=openid%20offline_access%20User.Read&code_challenge={challenge}",
        CONTOSO.id, TOOL.id, ADELE.upn
    );
    let code = async || {
        let answer = client.http.get(client.url(&asked)).send().await.unwrap();
        let back = answer.headers()["location"].to_str().unwrap().to_owned();
        assert!(back.starts_with("http://localhost/?code=1.") && back.ends_with("&state=7"), "{back}");
        back.split_once("code=").unwrap().1.split_once('&').unwrap().0.to_owned()
    };
    let first = code().await;
    let form = |code: &str, verifier: &str| {
        let own = [("grant_type", "authorization_code"), ("client_id", TOOL.id), ("redirect_uri", "http://localhost/")];
        let more = [("code", code), ("code_verifier", verifier), ("client_info", "1")];
        own.into_iter().chain(more).map(|(name, value)| (name, value.to_owned())).collect::<Vec<_>>()
    };
    let post = async |form: Vec<(&str, String)>| {
        let form: Vec<(&str, &str)> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
        client.post(V2, &form).await
    };
    let (_, guessed) = post(form(&code().await, "guess")).await;
    assert_eq!(guessed["error_codes"], json!([501_481]));
    let (status, given) = post(form(&first, verifier)).await;
    assert_eq!(status, 200, "{given}");
    let (_, claims) = open(given["access_token"].as_str().unwrap()).unwrap();
    assert_eq!(
        (&claims["oid"], &claims["scp"], &claims["upn"]),
        (&json!(ADELE.id), &json!("User.Read"), &json!(ADELE.upn))
    );
    assert!(verify(&entra.state.lock().keys.published, given["id_token"].as_str().unwrap()).is_ok());
    let (_, again) = post(form(&first, verifier)).await;
    assert_eq!(again["error_codes"], json!([54_005]), "a code serves once");

    let refresh = [("grant_type", "refresh_token"), ("refresh_token", given["refresh_token"].as_str().unwrap())];
    let by =
        |client: &'static str| [refresh[0], refresh[1], ("client_id", client), ("scope", "api://orders/orders.read")];
    let orders = client.claims(&V2.replace(CONTOSO.id, "common"), &by(TOOL.id)).await;
    assert_eq!(
        (&orders["aud"], &orders["scp"], &orders["tid"]),
        (&json!(ORDERS.id), &json!("orders.read"), &json!(CONTOSO.id))
    );
    assert_eq!(client.post(V2, &by(CRM.id)).await.0, 400, "another client's refresh token");
    assert_eq!(client.post(&V2.replace(CONTOSO.id, FABRIKAM.id), &by(TOOL.id)).await.1["error_codes"], json!([50_020]));

    let path = V2.replace("token", "devicecode");
    let (_, device) = client.post(&path, &[("client_id", TOOL.id), ("scope", "openid User.Read")]).await;
    let grant = "urn:ietf:params:oauth:grant-type:device_code";
    let poll =
        [("grant_type", grant), ("client_id", TOOL.id), ("device_code", device["device_code"].as_str().unwrap())];
    entra.set_device_answer(DeviceAnswer::Granted { by: ALEX, after: 1 });
    assert_eq!(client.post(V2, &poll).await.1["error"], "authorization_pending");
    assert_eq!(client.claims(V2, &poll).await["oid"], ALEX.id);
    let (_, device) = client.post(&path, &[("client_id", TOOL.id), ("scope", "User.Read")]).await;
    let poll = [poll[0], poll[1], ("device_code", device["device_code"].as_str().unwrap())];
    entra.set_device_answer(DeviceAnswer::Declined);
    assert_eq!(client.post(V2, &poll).await.1["error"], "authorization_declined");
    assert_eq!(client.post(V2, &poll).await.1["error"], "bad_verification_code");
}

#[tokio::test]
async fn a_middle_tier_asks_on_behalf_of_a_person() {
    let entra = Entra::start(&[]).unwrap();
    let client = Client::new(&entra, &[]);
    let form = |assertion: &str| {
        let own = [("grant_type", BEARER), ("client_id", ORDERS_APP.id), ("client_secret", ORDERS_APP.secret.unwrap())];
        let more = [("requested_token_use", "on_behalf_of"), ("assertion", assertion), ("scope", "Mail.Read")];
        own.into_iter().chain(more).map(|(name, value)| (name.to_owned(), value.to_owned())).collect::<Vec<_>>()
    };
    let good = entra.user_token(ADELE, TOOL, ORDERS);
    let post = async |token: &TokenBuilder| {
        let form = form(&token.build().unwrap());
        let form: Vec<(&str, &str)> = form.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        client.post(V2, &form).await.1
    };
    let given = post(&good).await;
    let (_, claims) = open(given["access_token"].as_str().unwrap()).unwrap();
    assert_eq!((&claims["oid"], &claims["appid"]), (&json!(ADELE.id), &json!(ORDERS_APP.id)));
    assert_eq!((&claims["aud"], &claims["scp"]), (&json!(GRAPH.uris[0]), &json!("Mail.Read")));
    let app = entra.app_token(CONTOSO, CRM, ORDERS).unwrap();
    let graph = entra.user_token(ADELE, TOOL, GRAPH);
    for bad in [good.clone().spoilt(), app, graph, good.expired(1_000_000, 1)] {
        assert_eq!(post(&bad).await["error_codes"], json!([50_013]));
    }
}

#[tokio::test]
async fn hosts_have_identities() {
    let entra = Entra::start(&[]).unwrap();
    let Places { imds, arc, app_service, .. } = entra.places();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let ask = async |address: SocketAddr, query: &str, headers: &[(&'static str, &str)]| {
        let mut request = http.get(format!("http://{address}/metadata/identity/oauth2/token?{query}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().await.unwrap();
        let realm = answer.headers().get("www-authenticate").map(|value| value.to_str().unwrap().to_owned());
        (answer.status().as_u16(), realm, answer.json::<Value>().await.unwrap())
    };
    let metadata = ("metadata", "true");
    let query = "api-version=2018-02-01&resource=https://vault.azure.net";
    let (status, _, document) = ask(imds, query, &[metadata]).await;
    assert_eq!((status, document["resource"].as_str()), (200, Some("https://vault.azure.net")));
    let token = document["access_token"].as_str().unwrap();
    let (_, claims) = open(token).unwrap();
    assert_eq!((&claims["oid"], &claims["appid"]), (&json!(SYSTEM_ASSIGNED.id), &json!(SYSTEM_ASSIGNED.client)));
    assert_eq!(claims["xms_mirid"], SYSTEM_ASSIGNED.resource);
    assert_eq!(ask(imds, query, &[metadata]).await.2["access_token"], token, "all get the same while it lives");
    assert_ne!(ask(imds, &format!("{query}&bypass_cache=true"), &[metadata]).await.2["access_token"], token);
    for name in ["client_id", "object_id", "msi_res_id"] {
        let id = match name {
            "client_id" => USER_ASSIGNED.client,
            "object_id" => USER_ASSIGNED.id,
            _ => USER_ASSIGNED.resource,
        };
        let (_, _, document) = ask(imds, &format!("{query}&{name}={id}"), &[metadata]).await;
        assert_eq!(document["client_id"], USER_ASSIGNED.client, "{name}");
    }
    let unknown = format!("{query}&client_id={}", TOOL.id);
    for (query, headers, error) in [
        (query, &[][..], "invalid_request"),
        (query, &[("metadata", "true"), ("x-forwarded-for", "10.0.0.1")][..], "invalid_request"),
        (&unknown, &[metadata][..], "invalid_request"),
        ("api-version=2018-02-01", &[metadata][..], "invalid_request"),
        ("resource=https://vault.azure.net", &[metadata][..], "invalid_request"),
        ("api-version=2018-02-01&resource=https://nothing.example", &[metadata][..], "invalid_resource"),
    ] {
        let (status, _, document) = ask(imds, query, headers).await;
        assert_eq!((status, document["error"].as_str()), (400, Some(error)), "{query}");
    }
    entra.fail_host(&[429, 503]);
    assert_eq!(ask(imds, query, &[metadata]).await.0, 429);
    assert_eq!(ask(imds, query, &[metadata]).await.0, 503);
    assert_eq!(ask(imds, query, &[metadata]).await.0, 200);

    let (status, realm, _) = ask(arc, query, &[metadata]).await;
    let realm = realm.unwrap();
    let name = realm.strip_prefix(&format!("Basic realm={ARC_TOKENS}/")).unwrap();
    let secret = std::fs::read_to_string(entra.arc_tokens().join(name)).unwrap();
    let basic = format!("Basic {secret}");
    let (given, _, document) = ask(arc, query, &[metadata, ("authorization", &basic)]).await;
    assert_eq!((status, given, &document["object_id"]), (401, 200, &json!(SYSTEM_ASSIGNED.id)));
    assert_eq!(ask(arc, query, &[metadata, ("authorization", &basic)]).await.0, 401, "a secret serves once");

    let header = ("x-identity-header", IDENTITY_HEADER);
    let (status, _, document) = ask(app_service, query, &[header]).await;
    assert!(status == 200 && document["expires_on"].as_str().unwrap().parse::<i64>().is_ok(), "{document}");
    assert_eq!(ask(app_service, query, &[("x-identity-header", "guess")]).await.0, 401);
    let by = |service| entra.received().into_iter().filter(|one| one.service == service).count();
    assert_eq!((by(Service::Imds), by(Service::Arc), by(Service::AppService)), (15, 3, 2));
}

#[tokio::test]
async fn an_api_behind_a_guard_knows_who_calls() {
    let entra = Entra::start(&[]).unwrap();
    let graph = Graph::start(&[]).unwrap();
    graph.guard(entra.guard(&[GRAPH.uris[0]]));
    let client = Client::new(&entra, &[("graph.microsoft.com", graph.address(), graph.ca_pem())]);
    let url = |path: &str| format!("https://graph.microsoft.com:{}{path}", graph.address().port());
    let get = async |token: &str| {
        let answer = client.http.get(url("/v1.0/users")).bearer_auth(token).send().await.unwrap();
        let header = answer.headers().get("www-authenticate").map(|value| value.to_str().unwrap().to_owned());
        (answer.status().as_u16(), header.unwrap_or_default())
    };
    assert_eq!(client.http.get(url("/v1.0/users")).send().await.unwrap().status(), 401);
    let claims = r#"{"access_token":{"xms_cc":{"values":["cp1"]}}}"#;
    let scope = ("scope", "https://graph.microsoft.com/.default");
    let (_, given) = client.post(V2, &secret(&[scope, ("claims", claims)])).await;
    let token = given["access_token"].as_str().unwrap();
    assert!(given["expires_in"].as_i64().unwrap() > 80_000, "a client that answers challenges may keep its token long");
    assert_eq!(get(token).await.0, 200);
    let caller = graph.received().last().unwrap().caller.clone().unwrap();
    assert_eq!((caller.oid.as_str(), caller.appid.as_str()), (CRM.principal(CONTOSO).unwrap(), CRM.id));

    let groups = async |token: &str| {
        let path = format!("/v1.0/users/{}/getMemberObjects", ALEX.id);
        client.http.post(url(&path)).bearer_auth(token).body("{}").send().await.unwrap()
    };
    let all: Value = groups(token).await.json().await.unwrap();
    assert_eq!(all["value"].as_array().unwrap().len(), MANY);
    assert_eq!(groups(&entra.user_token(ADELE, TOOL, GRAPH).build().unwrap()).await.status(), 403);

    entra.revoke(&caller.oid);
    let (status, header) = get(token).await;
    let challenge = header.split_once("error=\"insufficient_claims\", claims=\"").unwrap().1.trim_end_matches('"');
    let claims = String::from_utf8(STANDARD.decode(challenge).unwrap()).unwrap();
    assert!(status == 401 && claims.contains("nbf"), "{claims}");
    let (_, newer) = client.post(V2, &secret(&[scope, ("claims", &claims)])).await;
    assert_eq!(get(newer["access_token"].as_str().unwrap()).await.0, 200);
    entra.challenge(1);
    assert!(get(newer["access_token"].as_str().unwrap()).await.1.contains("insufficient_claims"));
    assert_eq!(get(newer["access_token"].as_str().unwrap()).await.0, 200);
}

#[tokio::test]
async fn a_broken_token_passes_no_guard() {
    let entra = Entra::start(&[]).unwrap();
    let guard = entra.guard(&[ORDERS.id]);
    let check = |token: &TokenBuilder| guard.check(Some(&format!("Bearer {}", token.build().unwrap())));
    let good = entra.app_token(CONTOSO, CRM, ORDERS).unwrap();
    assert_eq!(check(&good).unwrap().oid, CRM.principal(CONTOSO).unwrap());
    let now = state::seconds();
    for (what, bad) in [
        ("PS256", good.clone().algorithm(Algorithm::Ps256)),
        ("RS384", good.clone().algorithm(Algorithm::Rs384)),
        ("HS256", good.clone().algorithm(Algorithm::Hs256)),
        ("none", good.clone().algorithm(Algorithm::None)),
        ("another algorithm that says RS256", good.clone().algorithm(Algorithm::Ps256).header("alg", "RS256")),
        ("a key that isn't published", good.clone().key(Key::number(90).unwrap())),
        ("a key by another's name", good.clone().signed_by(Key::number(90).unwrap())),
        ("no kid", good.clone().without_header("kid")),
        ("a wrong signature", good.clone().spoilt()),
        ("over", good.clone().expired(now, 1)),
        ("not yet", good.clone().not_yet(now, 1_000)),
        ("another issuer", good.clone().claim("iss", "https://login.evil.example/")),
        ("another tenant", good.clone().claim("tid", FABRIKAM.id)),
        ("another audience", good.clone().claim("aud", GRAPH.id)),
        ("no end", good.clone().without("exp")),
    ] {
        assert!(check(&bad).is_err(), "{what}");
    }
    let twice = good.clone().duplicate("oid", "second").build().unwrap();
    let body = URL_SAFE_NO_PAD.decode(twice.split('.').nth(1).unwrap()).unwrap();
    assert_eq!(String::from_utf8(body).unwrap().matches("\"oid\":").count(), 2);
    assert!(good.clone().at_least(100_000).build().unwrap().len() > 100_000);
    // Others see a signature over what they don't have.
    let graph = entra.app_token(CONTOSO, CRM, GRAPH).unwrap().build().unwrap();
    let (signed, signature) = graph.rsplit_once('.').unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    assert!(!entra.key().verifies(signed.as_bytes(), &signature));
    assert!(verify(&[entra.key()], &graph).is_ok());
}

#[tokio::test]
async fn keys_change_and_may_be_unknown() {
    let entra = Entra::start(&[]).unwrap();
    let client = Client::new(&entra, &[]);
    let kids = async || {
        let (_, keys) = client.get("common/discovery/v2.0/keys").await;
        keys["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let before = kids().await;
    assert!(before.len() == 2 && before.contains(&entra.key().kid().to_owned()));
    entra.renew_key().unwrap();
    let new = entra.key().kid().to_owned();
    let token = client.post(V2, &secret(&[("scope", "api://orders/.default")])).await.1;
    let token = format!("Bearer {}", token["access_token"].as_str().unwrap());
    assert_eq!(open(token.strip_prefix("Bearer ").unwrap()).unwrap().0["kid"], new);
    assert_eq!(kids().await, before, "it signs by a key that nobody can know yet");
    assert!(entra.guard(&[ORDERS.id]).check(Some(&token)).is_err());
    entra.publish_keys(true);
    assert_eq!(kids().await.len(), 3);
    assert!(entra.guard(&[ORDERS.id]).check(Some(&token)).is_ok());
    entra.publish_keys(false);
    assert_eq!(kids().await, [new]);
    let url = format!("{CLUSTER}:{}/.well-known/openid-configuration", client.port);
    let cluster: Value = client.http.get(url).send().await.unwrap().json().await.unwrap();
    assert_eq!(cluster["issuer"], CLUSTER);
}

#[test]
fn too_many_groups_are_a_link() {
    let entra = Entra::start(&[]).unwrap();
    let few = entra.user_token(ADELE, TOOL, ORDERS).claims;
    assert_eq!(few["groups"], json!([CRM_READERS]));
    let many = entra.user_token(ALEX, TOOL, ORDERS).claims;
    assert!(!many.contains_key("groups") && many["_claim_names"] == json!({ "groups": "src1" }), "{many:?}");
    assert_eq!(groups(ALEX.id).iter().collect::<HashSet<_>>().len(), MANY);
}
