use super::*;

#[test]
fn what_makes_an_oracle_of_a_masked_field_is_told() {
    let names: Vec<Box<str>> = ["mail", "$search"].map(Box::from).into();
    for (query, found) in [
        ("$filter=mail%20eq%20%27a%27", Some("mail")),
        ("$filter=startswith(MAIL,%27a%27)", Some("mail")),
        ("$orderby=displayName,mail+desc", Some("mail")),
        ("%24search=%22x%22", Some("$search")),
        ("Mail=a", Some("mail")),
        ("$select=id,mail", None),
        ("$filter=mailNickname eq 'x'", None),
        ("q=e-mail", None),
        ("", None),
    ] {
        assert_eq!(mentions(query, &names), found, "{query}");
    }
}
