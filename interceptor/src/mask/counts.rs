//! What was masked, counted: by path and by detector, never the values.

/// Which of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tally {
    Path(u16),
    Rule(u16),
}

#[derive(Debug, Clone, Default)]
pub(super) struct Counts {
    paths: Vec<u64>,
    rules: Vec<u64>,
}

impl Counts {
    pub(super) fn new(paths: usize, rules: usize) -> Self {
        Self { paths: vec![0; paths], rules: vec![0; rules] }
    }

    pub(super) fn add(&mut self, what: Tally) {
        let count = match what {
            Tally::Path(path) => self.paths.get_mut(usize::from(path)),
            Tally::Rule(rule) => self.rules.get_mut(usize::from(rule)),
        };
        if let Some(count) = count {
            *count += 1;
        }
    }

    /// How many values were masked because a path leads to them.
    pub(super) fn by_paths(&self) -> u64 {
        self.paths.iter().sum()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Tally, u64)> {
        let number = |at: usize| u16::try_from(at).unwrap_or(u16::MAX);
        let paths = self.paths.iter().enumerate().map(move |(at, count)| (Tally::Path(number(at)), *count));
        let rules = self.rules.iter().enumerate().map(move |(at, count)| (Tally::Rule(number(at)), *count));
        paths.chain(rules).filter(|(_, count)| *count > 0)
    }
}
