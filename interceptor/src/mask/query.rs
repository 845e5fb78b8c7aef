//! Queries that would tell what is masked: filtering, sorting or searching by a masked field makes an oracle of it.

/// Parameters that only choose which fields are answered; those are masked.
const CHOOSING: &[&str] = &["$select", "select", "fields"];

/// The first of `names` that a query mentions: as a parameter's name, or as a word in the value of one that does more than
/// choose fields. Upper and lower case are the same.
pub(super) fn mentions<'a>(query: &str, names: &'a [Box<str>]) -> Option<&'a str> {
    for (parameter, value) in form_urlencoded::parse(query.as_bytes()) {
        let choosing = CHOOSING.iter().any(|known| parameter.eq_ignore_ascii_case(known));
        let found = names.iter().find(|name| {
            parameter.eq_ignore_ascii_case(name)
                || (!choosing && words(&value).any(|word| word.eq_ignore_ascii_case(name)))
        });
        if let Some(name) = found {
            return Some(name);
        }
    }
    None
}

fn words(value: &str) -> impl Iterator<Item = &str> {
    value.split(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '$' | '-')))
}

#[cfg(test)]
mod tests;
