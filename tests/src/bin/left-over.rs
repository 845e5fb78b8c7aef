//! Prints what fixtures have left on this host, a line each; for `cargo xtask test`, which compares before and after.

use std::io::{self, Write};

use interceptor_tests::remains::census;

fn main() -> io::Result<()> {
    let own = std::env::current_exe()?;
    let built = own.parent().ok_or(io::ErrorKind::NotFound)?;
    let mut out = io::stdout().lock();
    census::take(built)?.iter().try_for_each(|line| writeln!(out, "{line}"))
}
