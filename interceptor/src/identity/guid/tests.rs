use super::*;

#[test]
fn a_guid_is_printed_in_lower_case_however_it_was_written() {
    let id: TenantId = "9188040D-6C67-4C5B-B112-36A304B66DAD".parse().unwrap();
    assert_eq!(id.to_string(), "9188040d-6c67-4c5b-b112-36a304b66dad");
    assert_eq!(id, "9188040d-6c67-4c5b-b112-36a304b66dad".parse().unwrap());
}

#[test]
fn other_spellings_are_no_guids() {
    for bad in [
        "",
        "9188040d6c674c5bb11236a304b66dad",
        "{9188040d-6c67-4c5b-b112-36a304b66dad}",
        "9188040d-6c67-4c5b-b112-36a304b66da",
        "9188040d-6c67-4c5b-b112-36a304b66dad ",
        "9188040g-6c67-4c5b-b112-36a304b66dad",
        "9188040d06c67-4c5b-b112-36a304b66dad",
        "9188040d-6c67-4c5b-b112-36a304b66d\u{e9}",
    ] {
        assert_eq!(bad.parse::<ObjectId>(), Err(GuidError(bad.into())), "{bad}");
    }
}
