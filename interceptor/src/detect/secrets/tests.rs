use super::*;

const SECRET: &str = "hunter2-Zx9";

fn redacted(content_type: &str, input: &str) -> String {
    let out = String::from_utf8(body(content_type, input.as_bytes())).unwrap();
    assert!(!out.contains(SECRET), "{input} became {out}");
    out
}

#[test]
fn every_pattern_is_a_pattern() {
    assert_eq!(text::patterns(), 13);
}

#[test]
fn json_members_with_secret_names_lose_their_values_and_nothing_else_changes() {
    for (input, expected) in [
        (r#"{"a": 1, "client_secret" : "hunter2-Zx9", "b":"x"}"#, r#"{"a": 1, "client_secret" : "[secret]", "b":"x"}"#),
        (r#"{"PassWord":"a\"hunter2-Zx9","n":[1,2]}"#, r#"{"PassWord":"[secret]","n":[1,2]}"#),
        (r#"{"p\u0061ssword":"hunter2-Zx9"}"#, r#"{"p\u0061ssword":"[secret]"}"#),
        (
            r#"{"secrets":[{"id":7,"v":"hunter2-Zx9"}],"id":7}"#,
            r#"{"secrets":[{"id":"[secret]","v":"[secret]"}],"id":7}"#,
        ),
        (r#"{"access_token":"hunter2-Zx9"#, r#"{"access_token":"[secret]""#),
        (
            r#"{"nextPageToken":"abc","@odata.nextLink":"https://h/?$skiptoken=x"}"#,
            r#"{"nextPageToken":"abc","@odata.nextLink":"https://h/?$skiptoken=x"}"#,
        ),
        (r#"{"pwd":12345,"code":"NotFound"}"#, r#"{"pwd":"[secret]","code":"NotFound"}"#),
        (
            "{\"note\":\"{\\\"password\\\":\\\"hunter2-Zx9\\\",\\\"x\\\":1}\"}",
            "{\"note\":\"{\\\"password\\\":\\\"[secret]\\\",\\\"x\\\":1}\"}",
        ),
    ] {
        assert_eq!(redacted("application/json; charset=utf-8", input), expected);
        assert_eq!(redacted("", input), expected, "without a type");
    }
}

#[test]
fn pairs_of_a_name_and_a_value_are_members() {
    for (input, expected) in [
        (r#"[["cookie","hunter2-Zx9"],["accept","*/*"]]"#, r#"[["cookie","[secret]"],["accept","*/*"]]"#),
        (
            r#"[{"name":"X-Api-Key","value":"hunter2-Zx9"},{"name":"a","value":"b"}]"#,
            r#"[{"name":"X-Api-Key","value":"[secret]"},{"name":"a","value":"b"}]"#,
        ),
        (
            r#"{"body":"name=\"password\"\r\n\r\nhunter2-Zx9\r\n--b"}"#,
            r#"{"body":"name=\"password\"\r\n\r\n[secret]\r\n--b"}"#,
        ),
    ] {
        assert_eq!(redacted("application/json", input), expected);
    }
}

#[test]
fn forms_and_queries_lose_the_values_of_secret_keys() {
    let form = "grant_type=client_credentials&client%5Fsecret=hunter2-Zx9&scope=a&code=hunter2-Zx9&client_assertion=hunter2-Zx9";
    assert_eq!(
        redacted("application/x-www-form-urlencoded", form),
        "grant_type=client_credentials&client%5Fsecret=[secret]&scope=a&code=[secret]&client_assertion=[secret]"
    );
    assert_eq!(query("sv=2024&SIG=hunter2-Zx9&se=1"), "sv=2024&SIG=[secret]&se=1");
    assert_eq!(query("q=plain&page=2"), "q=plain&page=2");
}

#[test]
fn text_loses_what_stands_behind_a_secret_name_and_what_looks_like_a_secret() {
    let jwt = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln";
    for input in [
        "Server=x;User Id=sa;Password=hunter2-Zx9;Encrypt=true",
        "AccountName=a;AccountKey=hunter2-Zx9==;EndpointSuffix=core",
        "ALTER USER bob IDENTIFIED BY 'hunter2-Zx9'",
        "CREATE ROLE bob LOGIN PASSWORD 'hunter2-Zx9' VALID",
        "curl -H 'Authorization: Bearer hunter2-Zx9' https://h/",
        "https://bob:hunter2-Zx9@db.example/x",
        "see https://a.blob.core.windows.net/c/b?sv=1&sig=hunter2-Zx9&se=2",
        "<ns:ClientSecret type=\"x\">hunter2-Zx9</ns:ClientSecret>",
        "-----BEGIN RSA PRIVATE KEY-----\nhunter2-Zx9\n-----END RSA PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\nhunter2-Zx9",
        "api_key: \"hunter2-Zx9\"",
        "export API_TOKEN='hunter2-Zx9'",
    ] {
        let out = redacted("text/plain", input);
        assert!(out.contains(MARK), "{input} became {out}");
    }
    assert!(!redacted("text/plain", jwt).contains("eyJ"));
    for harmless in ["the password is not here", "version=1.2.3; date=2026-11-25", "GET /v1.0/users?$top=5", "a:b@c"] {
        assert_eq!(redacted("text/plain", harmless), harmless);
    }
}

#[test]
fn a_multipart_field_with_a_secret_name_loses_its_content() {
    let input = "--b\r\nContent-Disposition: form-data; name=\"password\"\r\n\r\nhunter2-Zx9\r\n--b\r\n\
                 Content-Disposition: form-data; name=\"note\"\r\n\r\nkept\r\n--b--\r\n";
    let out = redacted("multipart/form-data; boundary=b", input);
    assert!(out.contains("kept") && out.contains(MARK), "{out}");
}

#[test]
fn header_values_go_by_the_name_and_by_the_shape() {
    for name in
        ["Authorization", "set-cookie", "X-Api-Key", "x-my-secret", "X-Vault-Token", "Ocp-Apim-Subscription-Key"]
    {
        assert_eq!(&*header(name, SECRET.as_bytes()), MARK.as_bytes(), "{name}");
    }
    let location = header("location", b"https://h/cb?code=hunter2-Zx9&state=1");
    assert_eq!(&*location, b"https://h/cb?code=[secret]&state=1");
    assert_eq!(&*header("content-type", b"text/plain"), b"text/plain");
}

/// Each makes a request somebody else's, without a word of it in `Authorization`.
#[test]
fn what_authenticates_elsewhere_than_in_authorization_is_known() {
    for name in [
        "x-ms-copy-source-authorization",
        "X-Ms-Authorization-Auxiliary",
        "x_ms_authorization_auxiliary",
        "X-Vault-Token",
        "X-Consul-Token",
        "PRIVATE-TOKEN",
        "Job-Token",
        "DD-API-KEY",
        "DD-APPLICATION-KEY",
        "aeg-sas-key",
        "aeg-sas-token",
        "X-ZUMO-AUTH",
    ] {
        assert!(authenticates_header(name), "{name}");
        assert_eq!(&*header(name, SECRET.as_bytes()), MARK.as_bytes(), "{name}");
    }
    // A header that is secret needn't authenticate, and one that names a token or a key needn't be secret.
    for name in ["x-ms-encryption-key", "x-my-secret", "x-csrf-token", "idempotency-key", "x-ms-continuationtoken"] {
        assert!(!authenticates_header(name), "{name}");
    }
}

proptest::proptest! {
    #[test]
    fn any_cut_of_a_document_hides_the_secret(cut in 0usize..120) {
        let document = format!(r#"{{"a":[1,{{"b":"c"}}],"refresh_token":"{SECRET}","z":{{"password":["{SECRET}"]}}}}"#);
        let cut = &document.as_bytes()[..cut.min(document.len())];
        let out = String::from_utf8(body("application/json", cut)).unwrap();
        proptest::prop_assert!(!out.contains(&SECRET[..4]), "{}", out);
    }
}

#[test]
fn a_name_is_judged_alike_each_time_it_comes() {
    let members: String = (0..400).map(|number| format!("\"n{number}\":\"kept\",")).collect();
    let object = format!("{{{members}\"password\":\"hunter2\",\"mail\":\"kept\",\"Pass\\u0077ord\":\"hunter2\"}}");
    let list = format!("[{object},{object}]");
    let kept = String::from_utf8(body("application/json", list.as_bytes())).unwrap();
    assert!(!kept.contains("hunter2"));
    assert_eq!(kept.matches(MARK).count(), 4);
    assert_eq!(kept.matches("\"kept\"").count(), 2 * 401);
}
