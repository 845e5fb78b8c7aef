use super::*;

const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
const AT: i64 = 1_614_265_330;
const BODY: &[u8] = br#"{"test": 2432232314}"#;
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

#[test]
fn it_is_the_signature_that_the_specification_s_libraries_test() {
    assert_eq!(signature(SECRET.as_bytes(), ID, AT, BODY).as_deref(), Some(SIGNATURE));
    let bare = format!("\n  {}\n", &SECRET[6..]);
    assert_eq!(signature(bare.as_bytes(), ID, AT, BODY).as_deref(), Some(SIGNATURE));
    for (id, at, body) in [("msg_other", AT, BODY), (ID, AT + 1, BODY), (ID, AT, b"{}".as_slice())] {
        assert_ne!(signature(SECRET.as_bytes(), id, at, body).as_deref(), Some(SIGNATURE));
    }
}

#[test]
fn a_secret_that_changes_over_signs_beside_the_next_one() {
    let both = format!("{SECRET}\nwhsec_{}\n", STANDARD.encode([7; 32]));
    let signed = signature(both.as_bytes(), ID, AT, BODY).unwrap();
    let signatures: Vec<_> = signed.split(' ').collect();
    assert_eq!((signatures.len(), signatures[0]), (2, SIGNATURE));
}

#[test]
fn what_is_no_secret_signs_nothing() {
    let (short, long) = (STANDARD.encode([7; 23]), STANDARD.encode([7; 65]));
    for file in ["", "\n", "whsec_", "not base64!", &short, &long, &format!("{SECRET}\n{short}")] {
        assert_eq!(signature(file.as_bytes(), ID, AT, BODY), None, "{file}");
    }
}
