//! JSONPath (RFC 9535), the part of it that can be followed in a document that streams by: members, indexes from the
//! start, slices forward, wildcards, descendants, and filters that compare one member with a literal. What would need
//! the end of an array first (negative indexes, negative steps) is refused with the place.

use std::fmt;
use std::str::FromStr;

/// A path into JSON documents.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonPath {
    text: Box<str>,
    segments: Box<[Segment]>,
}

/// One step of a path: `.name`, `[…]`, or one of these after `..`.
#[derive(Debug, Clone, PartialEq)]
pub struct Segment {
    /// Whether it is looked for at every depth (`..`).
    pub descendant: bool,
    /// What it selects; never empty.
    pub selectors: Box<[Selector]>,
}

/// What a step selects of an object or array.
#[derive(Debug, Clone, PartialEq)]
pub enum Selector {
    /// The members of this name.
    Name(Box<str>),
    /// Every member and element.
    Wildcard,
    /// The element at this index, from 0.
    Index(u32),
    /// The elements from `start` to before `end`, each `step`-th.
    Slice {
        /// The first.
        start: u32,
        /// The one after the last; none for the array's end.
        end: Option<u32>,
        /// At least 1.
        step: u32,
    },
    /// The members and elements in which `path` leads to `value`.
    Filter(Filter),
}

/// `?@.a.b == literal`.
#[derive(Debug, Clone, PartialEq)]
pub struct Filter {
    /// The names from the member or element on; empty for itself.
    pub path: Box<[Box<str>]>,
    /// What it is compared with.
    pub value: Literal,
}

/// A literal of a filter.
#[derive(Debug, Clone, PartialEq)]
pub enum Literal {
    /// A string.
    Text(Box<str>),
    /// A number.
    Number(f64),
    /// `true` or `false`.
    Bool(bool),
    /// `null`.
    Null,
}

/// Why a text isn't such a path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{path}` isn't a path that can be followed: {why}, at character {at}")]
pub struct JsonPathError {
    path: Box<str>,
    why: &'static str,
    /// From 1.
    at: usize,
}

impl JsonPath {
    /// The path as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Its steps; empty for the whole document.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }
}

impl fmt::Display for JsonPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for JsonPath {
    type Err = JsonPathError;

    fn from_str(text: &str) -> Result<Self, JsonPathError> {
        let mut reader = Reader { text, at: 0 };
        reader.path().map(|segments| Self { text: text.into(), segments: segments.into() }).map_err(|why| {
            let at = text.get(..reader.at).map_or(0, |before| before.chars().count()) + 1;
            JsonPathError { path: text.into(), why, at }
        })
    }
}

/// More steps than anybody writes; each costs a little in every document.
const MOST_SEGMENTS: usize = 32;
const INDEX: &str = "an index is a whole number below 2^32";
const BACKWARDS: &str = "what counts from the end of an array can't be told while it streams by";

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

type Parsed<T> = Result<T, &'static str>;

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn take(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn blanks(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r']).len();
    }

    fn path(&mut self) -> Parsed<Vec<Segment>> {
        if !self.take("$") {
            return Err("it starts with `$`");
        }
        let mut segments = Vec::new();
        loop {
            self.blanks();
            if self.rest().is_empty() {
                return Ok(segments);
            }
            if segments.len() == MOST_SEGMENTS {
                return Err("it has more than 32 steps");
            }
            segments.push(self.segment()?);
        }
    }

    fn segment(&mut self) -> Parsed<Segment> {
        let descendant = self.take("..");
        if !descendant && !self.take(".") {
            return if self.take("[") {
                Ok(Segment { descendant: false, selectors: self.bracket()? })
            } else {
                Err("`.`, `..` or `[` is expected")
            };
        }
        let selectors = if descendant && self.take("[") {
            self.bracket()?
        } else if self.take("*") {
            Box::new([Selector::Wildcard])
        } else {
            Box::new([Selector::Name(self.name()?)]) as Box<[Selector]>
        };
        Ok(Segment { descendant, selectors })
    }

    /// A name in its short form: RFC 9535 section 2.5.1.1.
    fn name(&mut self) -> Parsed<Box<str>> {
        let rest = self.rest();
        let part = |c: char| c.is_ascii_alphanumeric() || c == '_' || !c.is_ascii();
        let end = rest.find(|c| !part(c)).unwrap_or(rest.len());
        let name = rest.get(..end).unwrap_or_default();
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            return Err("a name is expected; one with other characters stands in brackets and quotes: `['a-b']`");
        }
        self.at += end;
        Ok(name.into())
    }

    fn bracket(&mut self) -> Parsed<Box<[Selector]>> {
        let mut selectors = Vec::new();
        loop {
            self.blanks();
            selectors.push(self.selector()?);
            self.blanks();
            if self.take("]") {
                return Ok(selectors.into());
            }
            if !self.take(",") {
                return Err("`,` or `]` is expected");
            }
        }
    }

    fn selector(&mut self) -> Parsed<Selector> {
        match self.peek() {
            Some('*') => {
                self.at += 1;
                Ok(Selector::Wildcard)
            }
            Some('\'' | '"') => self.quoted().map(Selector::Name),
            Some('?') => {
                self.at += 1;
                self.filter().map(Selector::Filter)
            }
            _ => self.index_or_slice(),
        }
    }

    fn index_or_slice(&mut self) -> Parsed<Selector> {
        let start = self.integer()?;
        self.blanks();
        if !self.take(":") {
            return start.map(Selector::Index).ok_or("a name in quotes, an index, a slice, `*` or `?` is expected");
        }
        self.blanks();
        let end = self.integer()?;
        self.blanks();
        let mut step = None;
        if self.take(":") {
            self.blanks();
            step = self.integer()?;
        }
        match step {
            Some(0) => Err("a step of 0 selects nothing"),
            step => Ok(Selector::Slice { start: start.unwrap_or(0), end, step: step.unwrap_or(1) }),
        }
    }

    fn integer(&mut self) -> Parsed<Option<u32>> {
        let rest = self.rest();
        if rest.starts_with('-') {
            return Err(BACKWARDS);
        }
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let digits = rest.get(..end).unwrap_or_default();
        if digits.is_empty() {
            return Ok(None);
        }
        if digits.len() > 1 && digits.starts_with('0') {
            return Err(INDEX);
        }
        let number = digits.parse().map_err(|_too_large| INDEX)?;
        self.at += end;
        Ok(Some(number))
    }

    /// A string literal: RFC 9535 section 2.3.1.1.
    fn quoted(&mut self) -> Parsed<Box<str>> {
        let Some(quote @ ('\'' | '"')) = self.peek() else { return Err("a text in quotes is expected") };
        self.at += 1;
        let mut name = String::new();
        loop {
            let Some(c) = self.peek() else { return Err("the quote isn't closed") };
            match c {
                c if c == quote => {
                    self.at += 1;
                    return Ok(name.into());
                }
                '\\' => {
                    self.at += 1;
                    name.push(self.escaped(quote)?);
                }
                c if (c as u32) < 0x20 => return Err("control characters are written as escapes"),
                c => {
                    self.at += c.len_utf8();
                    name.push(c);
                }
            }
        }
    }

    fn escaped(&mut self, quote: char) -> Parsed<char> {
        let Some(c) = self.peek() else { return Err("the quote isn't closed") };
        self.at += c.len_utf8();
        Ok(match c {
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            '/' | '\\' => c,
            c if c == quote => c,
            'u' => {
                let high = self.unit()?;
                let code = if (0xd800..0xdc00).contains(&high) && self.take("\\u") {
                    let low = self.unit()?;
                    0x10000 + ((high - 0xd800) << 10) + low.checked_sub(0xdc00).ok_or("half a surrogate pair")?
                } else {
                    high
                };
                char::from_u32(code).ok_or("half a surrogate pair")?
            }
            _ => return Err("there is no such escape"),
        })
    }

    fn unit(&mut self) -> Parsed<u32> {
        let digits = self.rest().get(..4).filter(|digits| digits.bytes().all(|c| c.is_ascii_hexdigit()));
        let unit = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        self.at += 4;
        unit.ok_or("`\\u` has four hexadecimal digits")
    }

    /// `@.a.b == literal` or `literal == @.a.b`, in parentheses or not.
    fn filter(&mut self) -> Parsed<Filter> {
        self.blanks();
        if self.take("(") {
            let filter = self.filter()?;
            self.blanks();
            return if self.take(")") { Ok(filter) } else { Err("`)` is expected") };
        }
        let (path, value) = if self.peek() == Some('@') {
            let path = self.relative()?;
            self.equals()?;
            (path, self.literal()?)
        } else {
            let value = self.literal()?;
            self.equals()?;
            (self.relative()?, value)
        };
        Ok(Filter { path, value })
    }

    fn equals(&mut self) -> Parsed<()> {
        self.blanks();
        if !self.take("==") {
            return Err("a filter compares with `==`");
        }
        self.blanks();
        Ok(())
    }

    fn relative(&mut self) -> Parsed<Box<[Box<str>]>> {
        if !self.take("@") {
            return Err("a filter compares a member of the element, as in `?@.kind == 'person'`");
        }
        let mut names = Vec::new();
        loop {
            if self.take(".") {
                names.push(self.name()?);
            } else if self.take("[") {
                self.blanks();
                names.push(self.quoted()?);
                self.blanks();
                if !self.take("]") {
                    return Err("a filter's path has names only");
                }
            } else {
                return Ok(names.into());
            }
        }
    }

    fn literal(&mut self) -> Parsed<Literal> {
        if matches!(self.peek(), Some('\'' | '"')) {
            return self.quoted().map(Literal::Text);
        }
        let constants = [("true", Literal::Bool(true)), ("false", Literal::Bool(false)), ("null", Literal::Null)];
        if let Some((_, literal)) = constants.into_iter().find(|(word, _)| self.take(word)) {
            return Ok(literal);
        }
        let rest = self.rest();
        let end = rest.find(|c: char| !c.is_ascii_digit() && !"+-.eE".contains(c)).unwrap_or(rest.len());
        let number = rest.get(..end).and_then(|digits| digits.parse().ok()).filter(|number: &f64| number.is_finite());
        self.at += if number.is_some() { end } else { 0 };
        number.map(Literal::Number).ok_or("a text in quotes, a number, `true`, `false` or `null` is expected")
    }
}

#[cfg(test)]
mod tests;
