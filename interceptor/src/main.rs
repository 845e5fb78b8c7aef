//! The binary: everything is in the library. The hidden first argument is how the launcher starts process 1 of a
//! workload; it is no part of the command line.

use std::process::ExitCode;

use interceptor::heap::Heap;
use interceptor::launch::init;

#[global_allocator]
static HEAP: Heap = Heap;

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|first| first == init::ARGUMENT) {
        return init::main();
    }
    interceptor::cli::main()
}
