//! Counting rows in a body as it passes: the elements of an array that is the document, or that a member of the document
//! is (OData's `value`); the documents of JSON Lines; the records of a CSV behind its head. A row counts when it begins.

/// Counts the rows of one body.
#[derive(Debug)]
pub(super) enum Rows {
    Json(Json),
    Lines(Json),
    Csv(Csv),
}

/// Where in a JSON text it is. What isn't JSON is counted as if it were: it is only counted here.
#[derive(Debug, Default)]
pub(super) struct Json {
    depth: u32,
    /// Whether the outermost value is an array.
    is_array: bool,
    /// The depth of the array whose elements are rows, while there is one.
    rows_at: Option<u32>,
    /// Whether the next byte of a value begins a row.
    begins: bool,
    in_string: bool,
    escaped: bool,
}

/// Where in a CSV it is. A quote counts only in a field that begins with one, and never where tabs separate.
#[derive(Debug)]
pub(super) struct Csv {
    tabs: bool,
    quoted: bool,
    /// Whether the field at hand began with a quote, and whether it has begun.
    in_quotes: bool,
    in_field: bool,
    /// Whether the record at hand has begun.
    begun: bool,
    is_past_head: bool,
}

impl Rows {
    /// For a body of this Content-Type; none if it has no rows that can be counted.
    pub(super) fn of(content_type: &str) -> Option<Self> {
        let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let lines = [
            "application/jsonl",
            "application/x-ndjson",
            "application/ndjson",
            "application/json-lines",
            "application/x-jsonlines",
            "application/json-seq",
            "application/stream+json",
        ];
        match essence.as_str() {
            essence if lines.contains(&essence) => Some(Rows::Lines(Json { begins: true, ..Json::default() })),
            "application/json" | "text/json" => Some(Rows::Json(Json::default())),
            essence if essence.starts_with("application/") && essence.ends_with("+json") => {
                Some(Rows::Json(Json::default()))
            }
            "text/csv" | "application/csv" => Some(Rows::Csv(Csv::new(false))),
            "text/tab-separated-values" => Some(Rows::Csv(Csv::new(true))),
            _ => None,
        }
    }

    /// How many rows begin in these bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) -> u64 {
        let step: &mut dyn FnMut(u8) -> bool = match self {
            Rows::Json(json) => &mut |byte| json.step(byte),
            Rows::Lines(json) => &mut |byte| json.line(byte),
            Rows::Csv(csv) => &mut |byte| csv.step(byte),
        };
        bytes.iter().filter(|byte| step(**byte)).count() as u64
    }
}

impl Json {
    /// Whether a row begins with this byte.
    fn step(&mut self, byte: u8) -> bool {
        if self.string(byte) {
            return false;
        }
        let begins = self.begins && !matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b']');
        self.begins &= matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
        match byte {
            b'"' => self.in_string = true,
            b'[' | b'{' => {
                self.is_array = if self.depth == 0 { byte == b'[' } else { self.is_array };
                self.depth += 1;
                // The document itself, or a member of it.
                let outermost = if self.is_array { 1 } else { 2 };
                if byte == b'[' && self.depth == outermost {
                    self.rows_at = Some(self.depth);
                    self.begins = true;
                }
            }
            b']' | b'}' => {
                if self.rows_at == Some(self.depth) {
                    self.rows_at = None;
                }
                self.depth = self.depth.saturating_sub(1);
            }
            b',' if self.rows_at == Some(self.depth) => self.begins = true,
            _ => {}
        }
        begins
    }

    /// Whether a document begins with this byte.
    fn line(&mut self, byte: u8) -> bool {
        if self.string(byte) {
            return false;
        }
        // A record separator (RFC 7464) is between two of them.
        let is_between = matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | 0x1e);
        let begins = self.begins && !is_between;
        self.begins = self.depth == 0 && is_between;
        match byte {
            b'"' => self.in_string = true,
            b'[' | b'{' => self.depth += 1,
            b']' | b'}' => {
                self.depth = self.depth.saturating_sub(1);
                // The next may follow at once.
                self.begins = self.depth == 0;
            }
            _ => {}
        }
        begins
    }

    /// Whether this byte belongs to a string that has begun.
    fn string(&mut self, byte: u8) -> bool {
        if !self.in_string {
            return false;
        }
        match (self.escaped, byte) {
            (true, _) => self.escaped = false,
            (false, b'\\') => self.escaped = true,
            (false, b'"') => self.in_string = false,
            _ => {}
        }
        true
    }
}

impl Csv {
    fn new(tabs: bool) -> Self {
        Self { tabs, quoted: false, in_quotes: false, in_field: false, begun: false, is_past_head: false }
    }

    /// Whether a record behind the head begins with this byte.
    fn step(&mut self, byte: u8) -> bool {
        let ends_line = matches!(byte, b'\r' | b'\n');
        if byte == b'"' && !self.tabs && (self.in_quotes || !self.in_field) {
            (self.in_quotes, self.quoted) = (true, !self.quoted);
        }
        if self.quoted {
            self.in_field = true;
        } else {
            let ends_field = ends_line || byte == b',';
            (self.in_field, self.in_quotes) = (!ends_field, self.in_quotes && !ends_field);
        }
        if ends_line && !self.quoted {
            self.is_past_head |= self.begun;
            self.begun = false;
            return false;
        }
        let begins = !self.begun && self.is_past_head;
        self.begun = true;
        begins
    }
}

#[cfg(test)]
mod tests;
