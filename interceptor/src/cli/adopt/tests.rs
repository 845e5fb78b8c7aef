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
