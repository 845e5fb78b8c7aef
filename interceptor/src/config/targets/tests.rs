use std::fmt::Write;

use super::*;
use crate::config::Settings;

const HOSTS: [&str; 6] = ["a.example", "b.a.example", "*.a.example", "*.b.a.example", "192.0.2.7", "example.test"];
const ASKED: [&str; 9] = [
    "a.example",
    "b.a.example",
    "c.a.example",
    "c.b.a.example",
    "d.c.b.a.example",
    "192.0.2.7",
    "192.0.2.8",
    "example.test",
    "x.example.test",
];

/// The first target of all that fits is found, whichever way it lists the host.
#[test]
fn the_look_ups_find_what_a_search_finds() {
    let mut text = String::new();
    for number in 0..36 {
        let (one, other) = (HOSTS[number % 6], HOSTS[(number * 5 + number / 6) % 6]);
        let hosts = if one == other { format!("\"{one}\"") } else { format!("\"{one}\", \"{other}\"") };
        let port = 8000 + number;
        writeln!(text, "[[target]]\nname = \"t{number}\"\nhosts = [{hosts}]\nports = [{port}]").unwrap();
    }
    for (name, host) in [("wide", "*.a.example"), ("narrow", "b.a.example")] {
        writeln!(text, "[[target]]\nname = \"{name}\"\nhosts = [\"{host}\"]\nports = [443]").unwrap();
    }
    let settings = Settings::parse("/etc/interceptor/config.toml", &text).unwrap();
    let targets = Targets::new(settings.targets.iter().rev().cloned().collect());
    for of in [&settings.targets, &targets] {
        for asked in ASKED {
            let host: Host = asked.parse().unwrap();
            let lists = |target: &&Arc<Target>| target.hosts.iter().any(|pattern| pattern.matches(&host));
            let name = |target: &Arc<Target>| target.name.to_string();
            assert_eq!(of.by_host(&host).map(name), of.iter().find(lists).map(name), "{asked}");
            for port in (8000..8036).chain([443, 80]) {
                let fits = |target: &&Arc<Target>| lists(target) && target.ports.contains(&port);
                assert_eq!(of.find(&host, port).map(name), of.iter().find(fits).map(name), "{asked} {port}");
            }
        }
    }
    assert!(targets.find(&"c.a.example".parse().unwrap(), 443).is_some());
}
