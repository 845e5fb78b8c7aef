use super::*;

#[test]
fn an_id_reads_back_as_it_was_printed() {
    let id = SessionId::new();
    let text = id.to_string();
    assert!(text.starts_with("ses_"));
    assert_eq!(text, text.to_lowercase());
    assert_eq!(text.parse::<SessionId>(), Ok(id));
}

#[test]
fn an_id_of_another_kind_is_refused() {
    let text = OperationId::new().to_string();
    assert!(matches!(text.parse::<SessionId>(), Err(IdError::Malformed { prefix: "ses", .. })));
    assert!("ses_".parse::<SessionId>().is_err());
    assert!("ses_01".parse::<SessionId>().is_err());
}

#[test]
fn names_are_short_and_plain() {
    for good in ["crm", "a", "0", "graph-v1_0", &"x".repeat(63)] {
        assert!(good.parse::<TargetName>().is_ok(), "{good}");
    }
    for bad in ["", "Crm", "-a", "_a", "a b", "a.b", "é", &"x".repeat(64)] {
        assert_eq!(bad.parse::<TargetName>(), Err(IdError::Name(bad.into())));
    }
}

#[test]
fn guids_are_kept_in_lower_case() {
    let id: TenantId = "72F988BF-86F1-41AF-91AB-2D7CD011DB47".parse().unwrap();
    assert_eq!(id.to_string(), "72f988bf-86f1-41af-91ab-2d7cd011db47");
    let short = "72f988bf86f141af91ab2d7cd011db47";
    for bad in ["", short, "{72f988bf-86f1-41af-91ab-2d7cd011db47}", "72f988bf-86f1-41af-91ab-2d7cd011db4g"] {
        assert_eq!(bad.parse::<ObjectId>(), Err(IdError::Guid(bad.into())));
    }
}
