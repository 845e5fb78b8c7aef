//! The chart of docs/performance.md: for each cell a bar for everybody, as a part of what the load reaches without a proxy.

use std::fmt::Write;

use crate::cells::{CELLS, What};
use crate::peers::Peer;
use crate::report::Run;

pub(crate) mod curves;

/// Where the bars begin, how long one is that equals direct, and how high a line is.
const LEFT: f64 = 270.0;
const WIDTH: f64 = 420.0;
const LINE: f64 = 15.0;

/// Draws it as SVG.
pub(crate) fn draw(run: &Run) -> String {
    let (mut bars, mut y) = (String::new(), 30.0);
    for cell in CELLS.iter().filter(|cell| matches!(cell.what, What::Traffic(_))) {
        let lines: Vec<_> = run.lines(cell).into_iter().filter(|line| line.peer != Peer::Direct).collect();
        if lines.is_empty() {
            continue;
        }
        // Writing to a string can't fail.
        let _ = writeln!(bars, r#"<text x="10" y="{:.0}" font-weight="bold">{}</text>"#, y + 11.0, cell.title);
        y += LINE;
        for line in lines {
            let share = line.of_direct.unwrap_or_default();
            let _ = writeln!(
                bars,
                r#"<text x="{:.0}" y="{:.0}" text-anchor="end">{}</text><rect x="{LEFT}" y="{:.0}" width="{:.1}" height="11" fill="{}"/><text x="{:.0}" y="{:.0}">{share:.2}</text>"#,
                LEFT - 8.0,
                y + 10.0,
                line.peer.name(),
                y + 1.0,
                share.clamp(0.0, 1.1) * WIDTH,
                colour(line.peer),
                LEFT + share.clamp(0.0, 1.1) * WIDTH + 5.0,
                y + 10.0
            );
            y += LINE;
        }
        y += 8.0;
    }
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="780" height="{height:.0}" font-family="sans-serif" font-size="11" fill="#222">
<rect width="780" height="{height:.0}" fill="#fff"/>
<text x="{LEFT}" y="16">rate as a part of direct ({date}, {cores} cores)</text>
{bars}</svg>
"##,
        height = y + 10.0,
        date = run.machine.date,
        cores = run.machine.cores,
    )
}

fn colour(peer: Peer) -> &'static str {
    match peer {
        Peer::Ours => "#c2410c",
        Peer::Relay | Peer::Direct => "#9ca3af",
        Peer::Nginx | Peer::Haproxy | Peer::Envoy | Peer::Sslsplit | Peer::Mitmproxy => "#3b82a0",
    }
}
