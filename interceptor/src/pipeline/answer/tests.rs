use super::*;

fn id_of(fields: &[(&'static str, &str)]) -> Option<String> {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.insert(*name, value.parse().unwrap());
    }
    request_id(&headers)
}

#[test]
fn the_services_name_of_a_request_is_microsofts_first() {
    let guid = "b1f8e7c2-0f2a-4e5b-9d7f-3a1c5e7f9b11";
    assert_eq!(id_of(&[("x-request-id", "other"), ("request-id", guid)]).as_deref(), Some(guid));
    assert_eq!(
        id_of(&[("x-amzn-requestid", "Root=1-67891233-abcdef012345678912345678")]).as_deref(),
        Some("Root=1-67891233-abcdef012345678912345678")
    );
    assert_eq!(id_of(&[]), None);
}

#[test]
fn what_a_server_sends_back_as_a_requests_name_isnt_recorded_where_it_is_something_else() {
    let jwt = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.c2lnbmF0dXJlLXRoYXQtaXMtbG9uZw";
    for value in [jwt, "Bearer abc", "ada@contoso.example", "", &"a".repeat(129)] {
        assert_eq!(id_of(&[("x-request-id", value)]), None, "{value}");
    }
}
