//! The curves of growth: for each a panel, with the workers' CPU time for a request as a multiple of the smallest step's.

use std::fmt::Write;

use crate::growth::Curve;
use crate::points::{LOADS, title};
use crate::report::{MARK, Run, steps};

/// A panel's size, and the room inside for its title and its scale.
const PANEL: (f64, f64) = (380.0, 220.0);
const INSIDE: (f64, f64, f64, f64) = (45.0, 30.0, 20.0, 40.0);
/// The scale: it reaches further if a curve does.
const LEAST: f64 = 0.8;
const MOST: f64 = 1.4;
const COLOURS: [&str; LOADS.len()] = ["#c2410c", "#3b82a0"];

/// Draws them as SVG.
pub(crate) fn draw(run: &Run) -> String {
    let mut panels = String::new();
    for (place, curve) in Curve::ALL.into_iter().enumerate() {
        let (x, y) = ((place % 2) as f64 * PANEL.0, 30.0 + (place / 2) as f64 * PANEL.1);
        // Writing to a string can't fail.
        let _ = writeln!(panels, r#"<g transform="translate({x:.0},{y:.0})">{}</g>"#, panel(run, curve));
    }
    let legend = LOADS.iter().zip(COLOURS).enumerate().map(|(place, (load, colour))| {
        let x = 45.0 + place as f64 * 250.0;
        format!(r#"<text x="{x:.0}" y="18" fill="{colour}">{}</text>"#, title(load))
    });
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{:.0}" height="{:.0}" font-family="sans-serif" font-size="11" fill="#222">
<rect width="100%" height="100%" fill="#fff"/>
{}
{panels}</svg>
"##,
        PANEL.0 * 2.0,
        PANEL.1 * 2.0 + 40.0,
        legend.collect::<String>()
    )
}

fn panel(run: &Run, curve: Curve) -> String {
    let curves = LOADS.map(|load| steps(run, curve, load));
    let most = curves.iter().flatten().map(|(_, times)| *times).fold(MOST, f64::max);
    let least = curves.iter().flatten().map(|(_, times)| *times).fold(LEAST, f64::min);
    let (left, top, right, bottom) = INSIDE;
    let (width, height) = (PANEL.0 - left - right, PANEL.1 - top - bottom);
    let y = |times: f64| top + height * (most - times) / (most - least);
    let mut text = format!(r#"<text x="{left}" y="16" font-weight="bold">{}</text>"#, curve.title());
    for (times, colour) in [(1.0, "#9ca3af"), (MARK, "#dc2626")] {
        let at = y(times);
        let _ = write!(
            text,
            r#"<line x1="{left}" x2="{:.0}" y1="{at:.1}" y2="{at:.1}" stroke="{colour}" stroke-dasharray="4 3"/><text x="{:.0}" y="{:.1}" text-anchor="end">×{times:.1}</text>"#,
            left + width,
            left - 5.0,
            at + 4.0
        );
    }
    for (curve, colour) in curves.iter().zip(COLOURS) {
        let across = width / curve.len().saturating_sub(1).max(1) as f64;
        let places =
            curve.iter().enumerate().map(|(place, (name, times))| (left + place as f64 * across, name, y(*times)));
        let points: Vec<String> = places.clone().map(|(x, _, y)| format!("{x:.1},{y:.1}")).collect();
        let _ =
            write!(text, r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="2"/>"#, points.join(" "));
        for (x, name, y) in places {
            let _ = write!(
                text,
                r#"<circle cx="{x:.1}" cy="{y:.1}" r="3" fill="{colour}"/><text x="{x:.1}" y="{:.0}" text-anchor="middle">{name}</text>"#,
                PANEL.1 - bottom + 18.0
            );
        }
    }
    text
}
