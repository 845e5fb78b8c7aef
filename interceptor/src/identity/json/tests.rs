use super::*;

#[test]
fn only_an_object_that_reads_one_way_is_taken() {
    let deep = |n: usize| format!("{{\"a\":{}1{}}}", "[".repeat(n), "]".repeat(n));
    let cases = [
        (r#"{"a":{"b":[1,-1,1.5,"x",null,true]}}"#.to_owned(), Ok(())),
        (deep(7), Ok(())),
        (deep(8), Err(JsonError::TooDeep)),
        (deep(10_000), Err(JsonError::TooDeep)),
        (r#"{"a":1,"a":1}"#.to_owned(), Err(JsonError::DuplicateKey)),
        (r#"{"a":1,"\u0061":2}"#.to_owned(), Err(JsonError::DuplicateKey)),
        (r#"{"a":{"b":1,"b":2}}"#.to_owned(), Err(JsonError::DuplicateKey)),
        (r#"{"a":1}{"a":1}"#.to_owned(), Err(JsonError::NotAnObject)),
        (r#"{"a":1} x"#.to_owned(), Err(JsonError::NotAnObject)),
        ("[]".to_owned(), Err(JsonError::NotAnObject)),
        ("".to_owned(), Err(JsonError::NotAnObject)),
        (r#"{"a":1,}"#.to_owned(), Err(JsonError::NotAnObject)),
        (r#"{"a":NaN}"#.to_owned(), Err(JsonError::NotAnObject)),
        (r#"{"a":1e999}"#.to_owned(), Err(JsonError::NotAnObject)),
    ];
    for (text, expected) in cases {
        assert_eq!(object(text.as_bytes()).map(|_| ()), expected, "{}", &text[..text.len().min(40)]);
    }
    assert_eq!(object(b"{\"a\":\"\xff\"}").map(|_| ()), Err(JsonError::NotAnObject));
}
