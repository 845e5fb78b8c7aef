use std::cell::RefCell;

use super::{Args, remove, write};
use crate::config::Settings;

#[test]
fn the_stanza_that_is_missing_is_one_that_adopts_the_unit() {
    let settings = Settings::parse("/config.toml", "").expect("a configuration");
    for unit in ["crm-mcp.service", "Odd@a\\x2db.service"] {
        let said = super::stanza(&settings, unit);
        let at = said.find("[[workload]]").expect("a table");
        let settings = Settings::parse("/config.toml", &said[at..]).expect("it can be added as it is");
        assert!(super::is_listed(&settings, unit), "{said}");
        assert_eq!(super::stanza(&settings, unit), "");
    }
}

#[test]
fn a_unit_that_systemd_puts_elsewhere_is_told() {
    let said = |slice: &str, cgroup: &str, is_restarted| {
        let shown = format!("Slice={slice}\nControlGroup={cgroup}\n");
        super::misplaced(&shown, "crm.service", is_restarted)
    };
    assert_eq!(said("interceptor.slice", "/interceptor.slice/crm.service", true), None);
    assert_eq!(said("interceptor.slice", "/system.slice/crm.service", false), None, "it runs on where it was");
    assert_eq!(said("interceptor.slice", "", true), None, "it has ended");
    assert_eq!(said("mcp.slice", "", false).as_deref(), Some("mcp.slice"));
    let there = said("interceptor.slice", "/mcp.slice/crm.service", true);
    assert_eq!(there.as_deref(), Some("/mcp.slice/crm.service"));
}

/// Written, written again, and removed; what is promised depends on whether a workload adopts the unit.
#[test]
fn a_unit_is_adopted_and_released_below_a_root() {
    let folder = tempfile::tempdir().expect("a folder");
    let (root, config) = (folder.path().join("root"), folder.path().join("config.toml"));
    let adopted = "[[workload]]\nname = \"crm\"\nmatch = { unit = \"crm.service\" }\n";
    let args = |dry_run| Args { unit: "crm.service".into(), restart: false, dry_run };
    let file = root.join("etc/systemd/system/crm.service.d/zzz-interceptor.conf");
    let path = file.display().to_string();
    // Whether the file was there each time that it was told.
    let told = RefCell::new(Vec::new());
    let tell = |_: &Settings| told.borrow_mut().push(file.exists());
    for (text, promise) in [
        ("", "it can be contained once it is restarted, and is under control once a workload adopts it"),
        (adopted, "it is under control once it is restarted"),
    ] {
        std::fs::write(&config, text).expect("a configuration");
        let (said, _) = write(&root, &args(true), &config, tell).expect("it would be written");
        assert!(said.starts_with(&format!("would write {path}:")) && !file.exists(), "{said}");
        let (said, promised) = write(&root, &args(false), &config, tell).expect("it is written");
        assert!(said.starts_with(&format!("wrote {path}\n")) && file.exists(), "{said}");
        assert_eq!((promised, said.contains("no workload adopts it yet")), (promise, text.is_empty()));
        let (said, _) = write(&root, &args(false), &config, tell).expect("it is written");
        assert!(said.starts_with(&format!("{path} is as it should be\n")), "{said}");
        let said = remove(&root, &args(true), &config, tell).expect("it would be removed");
        assert!(said.starts_with(&format!("would remove {path}\n")) && file.exists(), "{said}");
        let said = remove(&root, &args(false), &config, tell).expect("it is removed");
        assert!(said.starts_with(&format!("removed {path}\n")) && !file.exists(), "{said}");
        assert_eq!(said.contains("is still adopted"), !text.is_empty(), "{said}");
        let said = remove(&root, &args(false), &config, tell).expect("it isn't there");
        assert!(said.starts_with(&format!("there was no {path}\n")), "{said}");
        assert_eq!(told.take(), [false, true, true, false], "it is told each time before it is done, and then only");
    }
}
