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
