//! What cargo can't do: `setup`, `test`, `check`, `demo`, `fuzz` and `bench`, one verb a file. What CI runs is what a person
//! runs.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod check;
mod command;
mod demo;
mod fuzz;
mod setup;
mod test;
mod third_party;

/// What cargo can't do.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Install what the build needs (rust-src, bpf-linker), and say in a line each what was done or found.
    Setup {
        /// Also what the tests need: cargo-nextest, curl, Python and Node with the servers they are tested with.
        #[arg(long)]
        tests: bool,
    },
    /// Set up, build, and run all tests; the kernel tests too if this is root.
    Test {
        /// The long rounds as well.
        #[arg(long)]
        long: bool,
        /// Only the escape matrix, printed: what each way past the proxy saw, and what caught it.
        #[arg(long, conflicts_with_all = ["long", "filter"])]
        escape: bool,
        /// What cargo-nextest is told besides: names of tests, or its options.
        #[arg(last = true)]
        filter: Vec<String>,
    },
    /// Hold the rules that no compiler holds: layers, file sizes, lints, unsafe code, wording.
    Check,
    /// Set up, build, and show the main job: an MCP server under interception, from its first call to its record.
    Demo {
        /// Leave everything running afterwards, to play with, until Ctrl-C.
        #[arg(long)]
        keep: bool,
    },
    /// Fuzz what reads others' bytes, up to the first finding; needs a nightly toolchain and cargo-fuzz.
    Fuzz {
        /// The targets, of fuzz/fuzz_targets; all of them if none is named.
        targets: Vec<String>,
        /// For how many seconds each runs.
        #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..))]
        time: u32,
    },
    /// Set up, build, and measure what Interceptor costs, beside its peers in one run. `-- --help` tells the options.
    Bench {
        /// The profile that everything of ours is built with; `dist` is what packages are built with.
        #[arg(long, default_value = "dist")]
        profile: String,
        /// What the measuring program is told.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().verb {
        Verb::Setup { tests } => setup::setup(tests),
        Verb::Test { escape: true, .. } => test::escape(),
        Verb::Test { long, filter, .. } => test::test(long, &filter),
        Verb::Check => check::check(),
        Verb::Demo { keep } => demo::demo(keep),
        Verb::Fuzz { targets, time } => fuzz::fuzz(&targets, time),
        Verb::Bench { profile, arguments } => bench::bench(&profile, &arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            command::say("error", &format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}
