//! The escape matrix: every way past the proxy that the program `probe` knows, out of a launched and an adopted workload, by
//! an unprivileged process and by root of a namespace of its own. Prints what each saw and what caught it; nothing may arrive
//! outside. The same ways without Interceptor are the control: they show that what arrives is seen.

#[path = "escape_matrix/outside.rs"]
mod outside;
#[path = "escape_matrix/table.rs"]
mod table;
#[path = "escape_matrix/workload.rs"]
mod workload;

use anyhow::{Result, ensure};
use interceptor_tests::require_root;

use self::outside::Outside;
use self::table::Table;
use self::workload::{Host, Kind, MODES};

#[test]
fn nothing_of_a_governed_process_arrives_outside() -> Result<()> {
    require_root!(Ok(()));
    // This thread's network is the host's from here on, for all that it starts.
    let mut outside = Outside::new()?;
    let host = Host::start(&mut outside)?;
    let names = host.names()?;
    let mut table = Table::new(&names);
    for mode in MODES {
        for kind in [Kind::Free, Kind::Launched, Kind::Adopted] {
            outside.hear_netlink(kind == Kind::Free)?;
            table.add(kind, mode, host.tries(kind, mode, &names, &mut outside)?);
        }
    }
    let refused = host.refused()?;
    println!("{table}");
    host.finish()?;
    ensure!(names.len() >= 80, "{} behaviours", names.len());
    ensure!(table.control() >= 60, "only {} ways get outside without us: is anything seen?", table.control());
    ensure!(refused >= table.proxied(), "the proxy refused {refused}, and {} cells say so", table.proxied());
    ensure!(table.unanswered().is_empty(), "the resolver was silent: {:?}", table.unanswered());
    let escapes = table.escapes();
    ensure!(escapes.is_empty(), "{} escapes:\n{}", escapes.len(), escapes.join("\n"));
    Ok(())
}
