//! Queries that would tell what is masked: filtering, sorting or searching by a masked field makes an oracle of it.

/// Parameters that only choose which fields are answered; those are masked.
const CHOOSING: &[&str] = &["$select", "select", "fields"];

/// The first of `names` that a query mentions: as a parameter's name or a word in it (`filter[mail]`, `mail__startswith`),
/// or as a word in the value of one that does more than choose fields. Upper and lower case are the same.
pub(super) fn mentions<'a>(query: &str, names: &'a [Box<str>]) -> Option<&'a str> {
    let names: Vec<Name<'a>> = names.iter().map(|name| Name::new(name)).collect();
    for (parameter, value) in form_urlencoded::parse(query.as_bytes()) {
        let choosing = CHOOSING.iter().any(|known| parameter.eq_ignore_ascii_case(known));
        let value = if choosing { "" } else { &*value };
        let is_ransack = parameter.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("q["));
        let found = names.iter().find(|name| {
            name.is(&parameter)
                || name.is_option(&parameter, value)
                || name.is_in(&parameter)
                || (is_ransack && words(&parameter).any(|word| name.has_predicate(word)))
                || name.is_in(value)
        });
        if let Some(name) = found {
            return Some(name.name);
        }
    }
    None
}

/// A name to look for.
struct Name<'a> {
    name: &'a str,
    /// In lower case, between double underscores, as it stands in a word that has them around it.
    run: String,
    /// In lower case, between single ones.
    part: String,
    /// In lower case without its `$`, which OData 4.01 lets its own parameters do without.
    bare: Option<String>,
}

impl<'a> Name<'a> {
    fn new(name: &'a str) -> Self {
        let lower = name.to_ascii_lowercase();
        let bare = lower.strip_prefix('$').filter(|bare| !bare.is_empty()).map(str::to_owned);
        Self { name, run: format!("__{lower}__"), part: format!("_{lower}_"), bare }
    }

    fn is(&self, word: &str) -> bool {
        word.eq_ignore_ascii_case(self.name)
    }

    /// Whether it is the parameter without its `$`, or is set in the value of one: `$expand=manager(search=x)`.
    fn is_option(&self, parameter: &str, value: &str) -> bool {
        let Some(bare) = &self.bare else { return false };
        let value = value.to_ascii_lowercase();
        let mut places = value.match_indices(bare.as_str());
        parameter.eq_ignore_ascii_case(bare)
            || places.any(|(at, _)| {
                !value[..at].ends_with(is_in_word) && value[at + bare.len()..].trim_start().starts_with('=')
            })
    }

    /// Whether it is a word of `text`, as that stands or once its escapes are undone.
    fn is_in(&self, text: &str) -> bool {
        let is_word = |text: &str| words(text).any(|word| self.is_run(word));
        is_word(text) || unescaped(text).is_some_and(|text| is_word(&text))
    }

    /// Whether it is the word, or what stands in it between double underscores, which Django puts before what it does
    /// (`author__mail__startswith`). A minus before it only sorts the other way round.
    fn is_run(&self, word: &str) -> bool {
        let word = word.strip_prefix('-').filter(|_| !self.name.starts_with('-')).unwrap_or(word);
        self.is(word) || (word.contains("__") && format!("__{}__", word.to_ascii_lowercase()).contains(&self.run))
    }

    /// Whether it stands in the word before an underscore: Ransack's `q[author_mail_cont]`. Elsewhere that would be
    /// another name.
    fn has_predicate(&self, word: &str) -> bool {
        format!("_{}", word.to_ascii_lowercase()).contains(&self.part)
    }
}

fn words(value: &str) -> impl Iterator<Item = &str> {
    value.split(|c: char| !is_in_word(c))
}

fn is_in_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '$' | '-')
}

/// The text with JSON's `\uXXXX` undone (RFC 8259 section 7), by which any name can be written; none if it has none.
fn unescaped(text: &str) -> Option<String> {
    if !text.contains("\\u") {
        return None;
    }
    // A character beyond the first 65,536 is two of them.
    let mut units: Vec<u16> = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("\\u") {
        units.extend(rest[..at].encode_utf16());
        rest = &rest[at + 2..];
        match rest.get(..4).and_then(|digits| u16::from_str_radix(digits, 16).ok()) {
            Some(unit) => {
                units.push(unit);
                rest = &rest[4..];
            }
            None => units.extend("\\u".encode_utf16()),
        }
    }
    units.extend(rest.encode_utf16());
    Some(String::from_utf16_lossy(&units))
}

#[cfg(test)]
mod tests;
