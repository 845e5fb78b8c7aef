use super::*;

const SECRET: &str = "hunter2-Zx9";

fn redacted(content_type: &str, input: &str) -> String {
    let out = String::from_utf8(body(content_type, input.as_bytes())).unwrap();
    assert!(!out.contains(SECRET), "{input} became {out}");
    out
}

#[test]
fn every_pattern_is_a_pattern() {
    assert_eq!(text::patterns(), 16);
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

#[test]
fn documents_in_strings_and_in_events_are_documents() {
    for (kind, input, expected) in [
        (
            "application/json",
            r#"{"content":[{"type":"text","text":"{\"token\":\"hunter2-Zx9\",\"n\":1}"}]}"#,
            r#"{"content":[{"type":"text","text":"{\"token\":\"[secret]\",\"n\":1}"}]}"#,
        ),
        // As .NET writes it, with something around it, and in two strings.
        ("", r#"{"text":"{\u0022cookie\u0022:\u0022hunter2-Zx9\u0022}"}"#, r#"{"text":"{\"cookie\":\"[secret]\"}"}"#),
        ("", r#"{"text":"got: {\"pwd\":\"hunter2-Zx9\"} 5\""}"#, r#"{"text":"got: {\"pwd\":\"[secret]\"} 5\""}"#),
        (
            "",
            r#"["{\"t\":\"{\\\"otp\\\":\\\"hunter2-Zx9\\\"}\"}"]"#,
            r#"["{\"t\":\"{\\\"otp\\\":\\\"[secret]\\\"}\"}"]"#,
        ),
        // Cut short within the string, and in the middle of an escape.
        ("", r#"{"text":"{\"token\":\"hunter2-Zx9"#, r#"{"text":"{\"token\":\"[secret]\"""#),
        ("", r#"{"text":"{\"token\":\"hunter2-Zx9\"#, r#"{"text":"{\"token\":\"[secret]\"""#),
        (
            "text/event-stream",
            "event: message\ndata: {\"token\":\"hunter2-Zx9\"}\n\ndata: 5\"\n\ndata: {\"authorization\":\"hunter2-Zx9\"}\n\n",
            "event: message\ndata: {\"token\":\"[secret]\"}\n\ndata: 5\"\n\ndata: {\"authorization\":\"[secret]\"}\n\n",
        ),
        (
            "",
            "data: {\"cookie\":\r\ndata: \"hunter2-Zx9\"}\r\n\r\n",
            "data: {\"cookie\":\r\ndata: \"[secret]\"}\r\n\r\n",
        ),
        ("application/json-seq", "\x1e{\"pwd\":\"hunter2-Zx9\"}\n", "\x1e{\"pwd\":\"[secret]\"}\n"),
    ] {
        assert_eq!(redacted(kind, input), expected);
    }
    let innermost = serde_json::json!({ "token": SECRET }).to_string();
    let deep = (0..6).fold(innermost, |inner, _| serde_json::json!({ "text": inner }).to_string());
    assert!(redacted("", &deep).contains(MARK));
    let harmless = r#"{"text":"{\u0022a\u0022:\"b\"}"}"#;
    assert_eq!(redacted("", harmless), harmless, "it is written anew without need");
}

#[test]
fn a_table_loses_its_secret_columns() {
    for (kind, input, expected) in [
        (
            "text/csv; header=present",
            "user,Password,\"api key\",n\r\nbob,hunter2-Zx9,\"a,\"\"hunter2-Zx9\",1\r\n\"x\ny\",hunter2-Zx9",
            "user,Password,\"api key\",n\r\nbob,[secret],[secret],1\r\n\"x\ny\",[secret]",
        ),
        ("text/csv", "a;pwd\n1;hunter2-Zx9\n\n2;\n", "a;pwd\n1;[secret]\n\n2;\n"),
        ("text/tab-separated-values", "otp\ta\nhunter2-Zx9\t1,5\n", "otp\ta\n[secret]\t1,5\n"),
        ("text/csv", "country,code,key\nFR,33,a\n", "country,code,key\nFR,33,a\n"),
    ] {
        assert_eq!(redacted(kind, input), expected);
    }
}

#[test]
fn members_say_of_others_that_they_are_secret_before_and_behind_them() {
    for (input, expected) in [
        (
            r#"{"keys":[{"keyName":"key1","value":"hunter2-Zx9"},{"value":"hunter2-Zx9","key_name":"key2"}]}"#,
            r#"{"keys":[{"keyName":"key1","value":"[secret]"},{"value":"[secret]","key_name":"key2"}]}"#,
        ),
        (r#"{"value":"hunter2-Zx9","name":"x-api-key"}"#, r#"{"value":"[secret]","name":"x-api-key"}"#),
        (
            r#"{"code":"hunter2-Zx9","grant_type":"authorization_code"}"#,
            r#"{"code":"[secret]","grant_type":"authorization_code"}"#,
        ),
        (r#"{"grantType":"a","n":1,"code":123456}"#, r#"{"grantType":"a","n":1,"code":"[secret]"}"#),
        (r#"{"code":"hunter2-Zx9","code_verifier":"v"}"#, r#"{"code":"[secret]","code_verifier":"[secret]"}"#),
        (
            r#"{"primaryReadonlyMasterKey":"hunter2-Zx9","primaryKey":"hunter2-Zx9","key1":"hunter2-Zx9","SAMLResponse":"hunter2-Zx9"}"#,
            r#"{"primaryReadonlyMasterKey":"[secret]","primaryKey":"[secret]","key1":"[secret]","SAMLResponse":"[secret]"}"#,
        ),
        (
            r#"{"error":{"code":"NotFound"},"name":"a","value":3,"key":"b"}"#,
            r#"{"error":{"code":"NotFound"},"name":"a","value":3,"key":"b"}"#,
        ),
        // In a document of its own it is hidden as a whole.
        (r#"{"value":"{\"pwd\":\"hunter2-Zx9\"}","name":"cookie"}"#, r#"{"value":"[secret]","name":"cookie"}"#),
    ] {
        assert_eq!(redacted("application/json", input), expected);
    }
}

#[test]
fn addresses_that_are_secrets_lose_them() {
    for (input, expected) in [
        ("/services/T00000000/B00000000/hunter2Zx9hunter2Zx9abcd", "/services/T00000000/B00000000/[secret]"),
        ("/bot123456789:hunter2-Zx9hunter2-Zx9_abcdefghij/sendMessage", "/bot123456789:[secret]/sendMessage"),
        ("/bot123456789%3Ahunter2-Zx9hunter2-Zx9_abcdefghij/getMe", "/bot123456789%3A[secret]/getMe"),
        ("/api/webhooks/123456789012/hunter2-Zx9hunter2-Zx9hunter2", "/api/webhooks/123456789012/[secret]"),
        ("/webhookb2/a@b/IncomingWebhook/hunter2Zx9hunter2Zx9/c", "/webhookb2/a@b/IncomingWebhook/[secret]/c"),
    ] {
        assert_eq!(path(input), expected);
    }
    for harmless in ["/services/Tickets/Boards/1", "/bots/12345678", "/v1.0/webhooks/1", "/robots.txt"] {
        assert_eq!(path(harmless), harmless);
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

/// Where `kept` stands behind what is hidden is known from what each pass tells.
#[test]
fn what_each_pass_replaces_is_told() {
    for (kind, input) in [
        ("application/json", r#"{"password":"hunter2-Zx9","n":1,"x":"kept","pwd":3}"#),
        ("application/json", r#"{"t":"{\"otp\":\"hunter2-Zx9\"}","x":"Bearer hunter2-Zx9","y":"kept"}"#),
        ("text/event-stream", "data: {\"pwd\":\"hunter2-Zx9\"}\n\ndata: {\"pwd\":\"hunter2-Zx9\",\"x\":\"kept\"}\n\n"),
        (
            "application/x-www-form-urlencoded",
            "a=1&code=hunter2-Zx9&code=&x=https://bob:hunter2-Zx9@h/&b=kept&sig=hunter2-Zx9",
        ),
        ("text/csv", "a,pwd,b\n1,hunter2-Zx9,2\n1,hunter2-Zx9,kept\n"),
        (
            "multipart/form-data; boundary=b",
            "--b\r\nContent-Disposition: form-data; name=\"password\"\r\n\r\nhunter2-Zx9\r\n--b\r\n\r\nkept\r\n--b--\r\n",
        ),
        ("text/plain", "Password=hunter2-Zx9; https://bob:hunter2-Zx9@h/ password=hunter2-Zx9 kept"),
        ("text/plain", "nothing is kept"),
    ] {
        let (mut at, mut length) = (input.find("kept").unwrap(), input.len());
        let out = body_telling(kind, input.as_bytes(), &mut |replaced| {
            assert!(replaced.is_sorted_by_key(|(place, _)| place.start), "{kind}");
            let (was, gone) = (at, |place: &Range<usize>| place.end - place.start);
            for (place, fresh) in replaced {
                length = length + fresh - gone(place);
                if place.end <= was {
                    at = at + fresh - gone(place);
                }
            }
        });
        let out = String::from_utf8(out).unwrap();
        assert!(!out.contains(SECRET) && out.len() == length && out[at..].starts_with("kept"), "{at} in {out}");
    }
    let mut at = 5;
    let out = body_telling("application/x-www-form-urlencoded", b"a=\xff\xfe&kept", &mut |replaced| {
        at = replaced.iter().fold(at, |at, (place, fresh)| at + fresh - (place.end - place.start));
    });
    assert!(out[at..].starts_with(b"kept"), "what isn't UTF-8 is as long as its replacement");
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
