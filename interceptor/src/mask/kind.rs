//! What a body is, by its media type. What no mask can look into has no kind.

use super::Withheld;

/// How a body is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// JSON; with `lines`, one document after the other.
    Json {
        /// JSON Lines, or JSON text sequences (RFC 7464).
        lines: bool,
    },
    /// Text without structure.
    Text,
    /// HTML or XML.
    Markup,
    /// Comma-separated values; a tab, if it is said to be one.
    Separated {
        /// Whether tabs separate.
        tabs: bool,
    },
    /// A form.
    Form,
    /// Server-sent events.
    Events,
}

impl Kind {
    /// Reads a Content-Type.
    ///
    /// # Errors
    /// There is none, it isn't one that can be masked, or its text isn't ASCII with something above.
    pub(super) fn of(content_type: Option<&str>) -> Result<Self, Withheld> {
        let Some(content_type) = content_type else { return Err(Withheld::UnknownType(None)) };
        let unknown = || Withheld::UnknownType(Some(content_type.chars().take(100).collect()));
        // A comma outside of quotes joins two of them.
        if content_type.split('"').step_by(2).any(|unquoted| unquoted.contains(',')) {
            return Err(unknown());
        }
        let mut parts = content_type.split(';');
        let essence = parts.next().unwrap_or_default().trim().to_ascii_lowercase();
        for parameter in parts {
            let Some((name, value)) = parameter.split_once('=') else { continue };
            if name.trim().eq_ignore_ascii_case("charset") {
                let charset = value.trim().trim_matches('"').to_ascii_lowercase();
                let known = ["utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1", "iso-8859-15", "windows-1252"];
                if !known.contains(&charset.as_str()) {
                    return Err(unknown());
                }
            }
        }
        Ok(match essence.as_str() {
            "application/json" | "text/json" => Kind::Json { lines: false },
            "application/jsonl"
            | "application/x-ndjson"
            | "application/ndjson"
            | "application/json-lines"
            | "application/x-jsonlines"
            | "application/json-seq"
            | "application/stream+json" => Kind::Json { lines: true },
            "text/event-stream" => Kind::Events,
            "text/csv" | "application/csv" => Kind::Separated { tabs: false },
            "text/tab-separated-values" => Kind::Separated { tabs: true },
            "application/x-www-form-urlencoded" => Kind::Form,
            "text/html" | "application/xhtml+xml" | "text/xml" | "application/xml" => Kind::Markup,
            "application/yaml" | "application/x-yaml" | "application/javascript" => Kind::Text,
            essence if essence.starts_with("application/") && essence.ends_with("+json") => Kind::Json { lines: false },
            essence if essence.ends_with("+xml") => Kind::Markup,
            essence if essence.starts_with("text/") => Kind::Text,
            _ => return Err(unknown()),
        })
    }
}

#[cfg(test)]
mod tests;
