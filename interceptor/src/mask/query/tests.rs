use super::*;

#[test]
fn what_makes_an_oracle_of_a_masked_field_is_told() {
    let names: Vec<Box<str>> = ["mail", "$search"].map(Box::from).into();
    for (query, found) in [
        ("$filter=mail%20eq%20%27a%27", Some("mail")),
        ("$filter=startswith(MAIL,%27a%27)", Some("mail")),
        ("$orderby=displayName,mail+desc", Some("mail")),
        ("%24search=%22x%22", Some("$search")),
        // OData 4.01 does without the `$`.
        ("search=x", Some("$search")),
        ("Search=%22x%22", Some("$search")),
        ("$expand=messages(search=x)", Some("$search")),
        ("$expand=messages(a=1;SEARCH%20=x)", Some("$search")),
        ("q=search+me", None),
        ("$expand=messages(research=x;top=1)", None),
        ("searches=1", None),
        ("Mail=a", Some("mail")),
        ("$select=id,mail", None),
        ("$filter=mailNickname eq 'x'", None),
        ("q=e-mail", None),
        ("", None),
        // In the name of a parameter, as frameworks write filters.
        ("filters[mail][$startsWith]=a", Some("mail")),
        ("filter%5Bwhere%5D%5BMail%5D=a", Some("mail")),
        ("where.mail=a", Some("mail")),
        ("mail[]=a", Some("mail")),
        ("mail%3E=a", Some("mail")),
        ("mail:exact=a", Some("mail")),
        ("mail__startswith=a", Some("mail")),
        ("author__mail__icontains=a", Some("mail")),
        ("order=author__mail", Some("mail")),
        ("sort=-mail,id", Some("mail")),
        ("q[mail_cont]=a", Some("mail")),
        ("q[author_mail_or_name_i_cont]=a", Some("mail")),
        (r#"where={"\u006dail":{"$gt":"a"}}"#, Some("mail")),
        (r#"where={"m\u0061\u0069l":1}"#, Some("mail")),
        (r#"{"\u006Dail":1}"#, Some("mail")),
        // Other names.
        ("filter[mailNickname]=a", None),
        ("mail_cont=a", None),
        ("mailing__list=a", None),
        ("q[email_cont]=a", None),
        ("q[mailing_cont]=a", None),
        ("q[voicemail_eq]=a", None),
        ("$expand=manager&path=C:%5Cusers%5Cmails", None),
        (r#"where={"\u006dails":1}"#, None),
        (r"q=\u&r=\uzzzz&s=\ud83d", None),
    ] {
        assert_eq!(mentions(query, &names), found, "{query}");
    }
}
