//! What the lists of the command line have in common.

use crate::config::duration;

/// How a list is asked for.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Listing {
    /// What is over as well, newest first
    #[arg(long)]
    pub(super) all: bool,
    /// How many at most
    #[arg(long, value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) limit: u32,
    /// Print a JSON array
    #[arg(long)]
    pub(super) json: bool,
}

/// `90s`, `30m`, `8h`, `2d`, in whole seconds, from a second to `DAYS` days.
pub(super) fn time<const DAYS: u64>(text: &str) -> Result<u64, String> {
    let seconds = duration(text).map(|time| time.as_secs()).filter(|seconds| (1..=DAYS * 86_400).contains(seconds));
    let most = if DAYS == 1 { "a day".to_owned() } else { format!("{DAYS} days") };
    seconds.ok_or_else(|| format!("a time such as 90s, 30m or 8h, at least a second and at most {most}"))
}
