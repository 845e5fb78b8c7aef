use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request};
use zeroize::Zeroizing;

use super::*;
use crate::config::Settings;

const AT: &str = "2015-06-26T23:39:12Z";
/// The storage emulator's published key.
const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

fn at() -> jiff::Timestamp {
    AT.parse().unwrap()
}

fn write(folder: &Path, name: &str, text: &str, mode: u32) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    path
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    folder
}

/// The vault of a target `t` with this credential.
fn vault(credential: &str) -> Vault {
    let text = format!("[[target]]\nname = \"t\"\nhosts = [\"t.example\"]\ncredential = {credential}\n");
    Vault::new(&Settings::parse("/c/config.toml", &text).unwrap_or_else(|error| panic!("{error}")).targets)
}

async fn injected(credential: &str, request: http::request::Builder) -> (http::request::Parts, Echo) {
    let credential = vault(credential).credential(&"t".parse().unwrap()).await.unwrap().unwrap();
    let (mut parts, ()) = request.body(()).unwrap().into_parts();
    let echo = credential.inject(&mut parts, at()).unwrap();
    (parts, echo)
}

fn masked(echo: &Echo, text: &[u8], pieces: usize) -> Vec<u8> {
    let mut mask = echo.mask();
    let mut out = Vec::new();
    for piece in text.chunks(pieces.max(1)) {
        out.extend_from_slice(&mask.push(Bytes::copy_from_slice(piece)));
    }
    out.extend_from_slice(&mask.finish());
    out
}

#[tokio::test]
async fn a_header_takes_the_place_of_what_the_process_sent() {
    let dir = folder();
    let file = write(dir.path(), "key", "s3cr3t-value\n", 0o600);
    let credential = format!(r#"{{ header = "X-Api-Key", prefix = "Key ", value_file = "{}" }}"#, file.display());
    let request = Request::get("/a?b=1").header("authorization", "Bearer mine").header("x-api-key", "mine");
    let request = request.header("x-api-key", "mine too").header("x_api_key", "mine as CGI reads it");
    let request = request.header("range", "bytes=0-4").header("if-range", "\"tag\"");
    let (parts, _) = injected(&credential, request).await;
    let values: Vec<_> = parts.headers.get_all("x-api-key").iter().collect();
    assert_eq!(values, ["Key s3cr3t-value"]);
    assert!(values[0].is_sensitive() && !parts.headers.contains_key("authorization"));
    assert!(!parts.headers.contains_key("x_api_key"), "servers read it as the same field");
    assert!(!parts.headers.contains_key("range") && !parts.headers.contains_key("if-range"), "an echo comes in pieces");
    assert_eq!(parts.headers["accept-encoding"], "identity");
    assert!(!format!("{parts:?}").contains("s3cr3t"));
}

#[tokio::test]
async fn basic_and_query_credentials() {
    let dir = folder();
    let file = write(dir.path(), "key", "pa:ss&w&rd", 0o600);
    let basic = format!(r#"{{ basic = {{ user = "bob", password_file = "{}" }} }}"#, file.display());
    let (parts, echo) = injected(&basic, Request::get("/").header("authorization", "Basic bWluZQ==")).await;
    assert_eq!(parts.headers["authorization"], "Basic Ym9iOnBhOnNzJncmcmQ=");
    assert_eq!(masked(&echo, b"you sent Ym9iOnBhOnNzJncmcmQ=", 3), b"you sent *******************=");
    let query = format!(r#"{{ query = "key", value_file = "{}" }}"#, file.display());
    for (given, sent) in [("/a?KEY=mine&b=1&k%65y=x", "/a?b=1&key=pa%3Ass%26w%26rd"), ("/a", "/a?key=pa%3Ass%26w%26rd")]
    {
        let (parts, _) = injected(&query, Request::get(given)).await;
        assert_eq!(parts.uri, *sent);
    }
}

#[tokio::test]
async fn what_cannot_be_had_is_an_error_that_holds_no_secret() {
    let dir = folder();
    let open = write(dir.path(), "open", "s3cr3t-value", 0o640);
    let empty = write(dir.path(), "empty", "abc\n", 0o600);
    let lines = write(dir.path(), "lines", "s3cr3t\nvalue", 0o600);
    let missing = dir.path().join("missing");
    for (path, told) in
        [(open, "others may read it"), (empty, "shorter than 6 bytes"), (lines, "header"), (missing, "can't read")]
    {
        let credential = format!(r#"{{ header = "Authorization", value_file = "{}" }}"#, path.display());
        let error = vault(&credential).credential(&"t".parse().unwrap()).await.unwrap_err().to_string();
        assert!(error.contains(told) && !error.contains("s3cr3t"), "{error}");
    }
    assert!(
        vault(r#"{ header = "x-key", value_file = "/k" }"#).credential(&"u".parse().unwrap()).await.unwrap().is_none()
    );
}

#[tokio::test]
async fn a_command_is_run_again_when_its_time_is_over() {
    let dir = folder();
    let count = dir.path().join("count");
    let script =
        format!("#!/bin/sh\necho x >> {0}\necho \"token-$(wc -l < {0})-$1-${{HOME:-none}}\"\n", count.display());
    let program = write(dir.path(), "token", &script, 0o755);
    let credential = format!(
        r#"{{ header = "Authorization", prefix = "Bearer ", command = ["{}", "a b"], ttl = "3s" }}"#,
        program.display()
    );
    let vault = vault(&credential);
    let value = async || {
        let credential = vault.credential(&"t".parse().unwrap()).await.unwrap().unwrap();
        let (mut parts, ()) = Request::get("/").body(()).unwrap().into_parts();
        credential.inject(&mut parts, at()).unwrap();
        parts.headers["authorization"].to_str().unwrap().to_owned()
    };
    assert_eq!(value().await, "Bearer token-1-a b-none");
    assert_eq!(value().await, "Bearer token-1-a b-none");
    tokio::time::sleep(std::time::Duration::from_millis(3_050)).await;
    assert_eq!(value().await, "Bearer token-2-a b-none");
}

#[tokio::test]
async fn who_goes_away_has_no_other_command_started() {
    let dir = folder();
    let count = dir.path().join("count");
    let script = format!("#!/bin/sh\necho x >> {}\nsleep 2\necho a-long-token\n", count.display());
    let program = write(dir.path(), "token", &script, 0o755);
    let vault = vault(&format!(r#"{{ header = "Authorization", command = ["{}"] }}"#, program.display()));
    let name = "t".parse().unwrap();
    for _ in 0..5 {
        let asked = tokio::time::timeout(std::time::Duration::from_millis(20), vault.credential(&name)).await;
        assert!(asked.is_err(), "it isn't there yet");
    }
    assert!(vault.credential(&name).await.unwrap().is_some());
    assert_eq!(fs::read_to_string(count).unwrap().lines().count(), 1);
}

#[test]
fn a_command_is_bounded_in_time_and_size_and_must_be_trusted() {
    let dir = folder();
    let run = |name: &str, text: &str, mode: u32| {
        let program = write(dir.path(), name, text, mode);
        let patience = if name == "slow" { Duration::from_millis(300) } else { Duration::from_secs(20) };
        source::run(&[program.display().to_string()], patience).unwrap_err().to_string()
    };
    assert!(run("slow", "#!/bin/sh\nsleep 30\n", 0o755).contains("took longer"));
    assert!(run("large", "#!/bin/sh\nexec head -c 200000 /dev/zero\n", 0o755).contains("printed more"));
    assert!(run("fails", "#!/bin/sh\necho s3cr3t-value\nexit 3\n", 0o755).contains("exit status: 3"));
    assert!(run("writable", "#!/bin/sh\necho s3cr3t-value\n", 0o777).contains("others may write"));
    assert!(run("plain", "#!/bin/sh\necho s3cr3t-value\n", 0o644).contains("isn't executable"));
}

#[tokio::test]
async fn a_failure_is_remembered_for_a_while() {
    let dir = folder();
    let count = dir.path().join("count");
    let program = write(dir.path(), "fails", &format!("#!/bin/sh\necho x >> {}\nexit 1\n", count.display()), 0o755);
    let vault = vault(&format!(r#"{{ query = "key", command = ["{}"] }}"#, program.display()));
    for _ in 0..5 {
        assert!(vault.credential(&"t".parse().unwrap()).await.is_err());
    }
    assert_eq!(fs::read_to_string(count).unwrap(), "x\n");
}

#[test]
fn the_string_to_sign_is_the_documented_one() {
    let blob = Request::get("/mycontainer?restype=container&comp=metadata&timeout=20")
        .header("host", "myaccount.blob.core.windows.net")
        .header("x-ms-version", "2015-02-21")
        .header("x-ms-date", "Fri, 26 Jun 2015 23:39:12 GMT");
    let (parts, ()) = blob.body(()).unwrap().into_parts();
    assert_eq!(
        sharedkey::string_to_sign(&parts, "myaccount"),
        "GET\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:Fri, 26 Jun 2015 23:39:12 GMT\nx-ms-version:2015-02-21\n\
         /myaccount/mycontainer\ncomp:metadata\nrestype:container\ntimeout:20"
    );
    let put = Request::put("/mycontainer/my%20blob?include=snapshots&include=metadata&Comp=x%2Fy")
        .header("host", "myaccount.blob.core.windows.net")
        .header("content-length", "11")
        .header("content-type", "text/plain; charset=UTF-8")
        .header("date", "Sun, 11 Oct 2009 19:52:39 GMT")
        .header("if-match", "\"etag\"")
        .header("x-ms-meta-m2", "  two   words ")
        .header("x-ms-date", "Sun, 11 Oct 2009 21:49:13 GMT");
    let (parts, ()) = put.body(()).unwrap().into_parts();
    assert_eq!(
        sharedkey::string_to_sign(&parts, "myaccount"),
        "PUT\n\n\n11\n\ntext/plain; charset=UTF-8\n\n\n\"etag\"\n\n\n\n\
         x-ms-date:Sun, 11 Oct 2009 21:49:13 GMT\nx-ms-meta-m2:two words\n\
         /myaccount/mycontainer/my%20blob\ncomp:x/y\ninclude:metadata,snapshots"
    );
    let table = Request::get("/Tables()?comp=list&x=1")
        .header("host", "a.table.core.windows.net")
        .header("x-ms-date", "Fri, 26 Jun 2015 23:39:12 GMT");
    let (parts, ()) = table.body(()).unwrap().into_parts();
    assert_eq!(sharedkey::string_to_sign(&parts, "a"), "GET\n\n\nFri, 26 Jun 2015 23:39:12 GMT\n/a/Tables()?comp=list");
}

#[tokio::test]
async fn shared_key_dates_and_signs_the_request() {
    let dir = folder();
    let file = write(dir.path(), "key", KEY, 0o600);
    let credential = format!(r#"{{ shared_key = {{ account = "myaccount", key_file = "{}" }} }}"#, file.display());
    let request = Request::get("/mycontainer?restype=container&comp=metadata&timeout=20")
        .header("host", "myaccount.blob.core.windows.net")
        .header("x-ms-version", "2015-02-21")
        .header("x-ms-date", "Thu, 01 Jan 1970 00:00:00 GMT")
        .header("authorization", "SharedKey other:x");
    let (parts, echo) = injected(&credential, request).await;
    assert_eq!(parts.headers["x-ms-date"], "Fri, 26 Jun 2015 23:39:12 GMT");
    // HMAC-SHA256 of the documented string under the published key, computed with another implementation.
    let signature = "1u9lui2jDxj0+fpbHjQ5m5NnastJRSYM+PSmfi8TXx4=";
    assert_eq!(parts.headers["authorization"], format!("SharedKey myaccount:{signature}"));
    assert_eq!(masked(&echo, signature.as_bytes(), 1), vec![b'*'; signature.len()]);
}

#[test]
fn an_echo_is_found_however_it_is_spelled_and_cut() {
    use base64::Engine;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};
    let secret = b"s3cr3t/+\"?v\xc3\xa4lue";
    let echo = Echo::of(&[Zeroizing::new(secret.to_vec())]);
    let text = std::str::from_utf8(secret).unwrap();
    let percent = "s3cr3t%2F%2B%22%3Fv%C3%A4lue";
    let json = serde_json::to_string(&text).unwrap();
    let mut forms: Vec<Vec<u8>> = vec![
        secret.to_vec(),
        percent.into(),
        percent.replace("2F", "2f").replace("2B", "2b").replace("3F", "3f").replace("C3%A4", "c3%a4").into(),
        json.as_bytes().to_vec(),
        // As .NET, Go, Python and PHP write JSON.
        r#"s3cr3t/\u002B\u0022?v\u00E4lue"#.into(),
        r#"s3cr3t/\u002b\"?v\u00e4lue"#.into(),
        r#"s3cr3t\/+\"?v\u00e4lue"#.into(),
        // As a document in a string, and a query in a query.
        r#"s3cr3t\\\/+\\\"?v\\u00e4lue"#.into(),
        percent.replace('%', "%25").into(),
        // As HTML has it, and what escapes HTML again.
        "s3cr3t/&#43;&quot;?v&#xe4;lue".into(),
        "s3cr3t&#x2F;&#x2B;&#034;?v&#228;lue".into(),
        "s3cr3t&amp;#x2F;+&amp;quot;?v\u{e4}lue".into(),
        // Only some of it, as a form does.
        "s3cr3t/%2B%22?v%C3%A4lue".into(),
    ];
    for shift in 0..3 {
        let shifted = [&b"xyz"[..shift], secret].concat();
        let coded = STANDARD.encode(&shifted);
        forms.push(coded.replace('/', "\\/").into_bytes());
        forms.push(coded.replace('+', "\\u002B").replace('/', "&#x2F;").into_bytes());
        forms.push(coded.replace('+', "%2b").replace('/', "%2F").replace('=', "%3D").into_bytes());
        forms.push(coded.into_bytes());
        forms.push(URL_SAFE.encode(&shifted).into_bytes());
    }
    assert!(
        forms.iter().any(|form| form.windows(2).any(|two| two == b"\\/") && !form.starts_with(b"s3cr3t")),
        "no `/`"
    );
    for form in forms {
        let body = [b"{\"a\":\"", form.as_slice(), b"\",\"s3cr3\":1}"].concat();
        let whole = masked(&echo, &body, body.len());
        assert_eq!(whole.len(), body.len());
        // All but what base64 has of its neighbours.
        let told = String::from_utf8_lossy(&whole).into_owned();
        let kept = whole.iter().filter(|byte| **byte != b'*').count() - b"{\"a\":\"\",\"s3cr3\":1}".len();
        let around = if form.starts_with(b"s3cr3t") {
            0
        } else if form.starts_with(b"\"s3cr3t") {
            2
        } else {
            10
        };
        assert!(kept <= around, "{told}");
        assert!(whole.ends_with(b"\"s3cr3\":1}"));
        for pieces in 1..body.len() {
            assert_eq!(masked(&echo, &body, pieces), whole, "in pieces of {pieces}");
        }
    }
}

#[test]
fn an_echo_in_a_header_is_masked() {
    let echo = Echo::of(&[Zeroizing::new(b"s3cr3t-value".to_vec())]);
    let mut headers = HeaderMap::new();
    headers.insert("location", HeaderValue::from_static("https://h/?key=s3cr3t-value&x=1"));
    headers.insert("server", HeaderValue::from_static("plain"));
    assert_eq!(echo.headers(&mut headers), 1);
    assert_eq!(headers["location"], "https://h/?key=************&x=1");
    assert_eq!(headers["server"], "plain");
}

#[test]
fn what_is_nearly_an_echo_is_left_alone() {
    let echo = Echo::of(&[Zeroizing::new(b"a%b\\c&de f".to_vec())]);
    for text in ["a%25b\\\\c&amp;de+f", "a%b\\c&de f", "a%2525b\\c&amp;amp;de%20f", "\\u0061%b\\x5Cc&#38;de f"] {
        assert_eq!(masked(&echo, text.as_bytes(), 3), vec![b'*'; text.len()], "{text}");
    }
    for text in ["A%b\\c&de f", "a%24b\\c&de f", "a%b\\u005dc&de f", "a%b\\c&#39;de f", "a%b\\c&lt;de f", "a%b\\c&de"] {
        for pieces in 1..=text.len() {
            assert_eq!(masked(&echo, text.as_bytes(), pieces), text.as_bytes(), "{text}");
        }
    }
}

#[test]
fn nothing_is_held_back_that_is_no_beginning_of_an_echo() {
    let echo = Echo::of(&[Zeroizing::new(b"s3cr3t-value".to_vec())]);
    let mut mask = echo.mask();
    assert_eq!(mask.push(Bytes::from_static(b"data: 1\n\n")), "data: 1\n\n");
    assert_eq!(mask.push(Bytes::from_static(b"data: s3cr3")), "data: ");
    assert_eq!(mask.push(Bytes::from_static(b"s\n\n")), "s3cr3s\n\n");
    assert_eq!((mask.finish().len(), mask.found()), (0, 0));
}

#[tokio::test]
async fn a_client_certificate_is_for_its_targets_connections_only() {
    let dir = folder();
    let made = || rcgen::generate_simple_self_signed(["client.example".to_owned()]).unwrap();
    let (one, other) = (made(), made());
    let certificate = write(dir.path(), "c.pem", &one.cert.pem(), 0o644);
    let key = write(dir.path(), "k.pem", &one.signing_key.serialize_pem(), 0o600);
    let wrong = write(dir.path(), "w.pem", &other.signing_key.serialize_pem(), 0o600);
    let vault_of = |key: &Path| {
        vault(&format!(r#"{{ client_cert = "{}", client_key = "{}" }}"#, certificate.display(), key.display()))
    };
    let (host, elsewhere) = ("t.example".parse().unwrap(), "u.example".parse().unwrap());
    let vault = vault_of(&key);
    let identity = vault.identity(&host, 443).await.unwrap().expect("it has one");
    assert_eq!(identity.cert[0], *one.cert.der());
    assert!(vault.identity(&elsewhere, 443).await.unwrap().is_none());
    assert!(vault.identity(&host, 8443).await.unwrap().is_none());
    assert!(vault.credential(&"t".parse().unwrap()).await.unwrap().is_none(), "it isn't put into requests");
    let error = vault_of(&wrong).identity(&host, 443).await.unwrap_err().to_string();
    assert!(error.contains("isn't the certificate's key"), "{error}");
    fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
    let error = vault_of(&key).identity(&host, 443).await.unwrap_err().to_string();
    assert!(error.contains("others may read it"), "{error}");
}

proptest::proptest! {
    #[test]
    fn what_is_masked_does_not_depend_on_the_cuts(
        text in "[ab]{0,60}(abbabab|abababb){0,3}[ab]{0,20}",
        pieces in 1usize..9,
    ) {
        let echo = Echo::of(&[Zeroizing::new(b"abbabab".to_vec()), Zeroizing::new(b"bababba".to_vec())]);
        let whole = masked(&echo, text.as_bytes(), text.len());
        proptest::prop_assert_eq!(masked(&echo, text.as_bytes(), pieces), whole);
    }

    /// The same of escapes, whole and broken, and of secrets that are escapes themselves.
    #[test]
    fn what_is_masked_does_not_depend_on_the_cuts_of_escapes(
        text in r#"(\\{1,4}|%|25|2[fF]|&|amp;|#47;|#x2f;|/|u002f|x2f|a|"){0,30}"#,
        pieces in 1usize..9,
    ) {
        let secrets = [r"a/a/a/a", r"\\\\\\", "%25%25", "&amp;&amp;"].map(|secret| Zeroizing::new(secret.as_bytes().to_vec()));
        let echo = Echo::of(&secrets);
        let whole = masked(&echo, text.as_bytes(), text.len());
        proptest::prop_assert_eq!(masked(&echo, text.as_bytes(), pieces), whole);
    }
}

#[tokio::test(start_paused = true)]
async fn a_secret_whose_time_is_over_is_wiped_though_nobody_asks_again() {
    let dir = folder();
    let program = write(dir.path(), "print", "#!/bin/sh\necho s3cr3t-value\n", 0o700);
    let vault = vault(&format!(r#"{{ header = "X-Api-Key", command = ["{}"], ttl = "2s" }}"#, program.display()));
    let target = "t".parse().unwrap();
    assert!(vault.credential(&target).await.unwrap().is_some());
    let keeper = &vault.keepers[&target];
    assert!(keeper.held.lock().await.is_some());
    tokio::time::sleep(Duration::from_millis(1_900)).await;
    assert!(keeper.held.lock().await.is_some());
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(keeper.held.lock().await.is_none());
}
