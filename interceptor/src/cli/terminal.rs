//! What a terminal may see: text of governed processes made harmless, and how wide the terminal is.

pub use crate::detect::hidden::escape;

/// The columns of the terminal that standard output is; none if it isn't one.
pub fn width() -> Option<u16> {
    terminal_size::terminal_size_of(std::io::stdout()).map(|(width, _)| width.0).filter(|&columns| columns > 0)
}

#[cfg(test)]
mod tests;
