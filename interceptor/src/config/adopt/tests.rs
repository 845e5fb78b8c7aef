use super::{Pattern, slice_path};

#[test]
fn a_pattern_fits_whole_paths_and_a_star_stays_within_a_name() {
    let fits = |pattern: &str, path: &str| Pattern::new(pattern).unwrap().fits(path);
    assert!(fits("/system.slice/crm.service", "/system.slice/crm.service"));
    assert!(!fits("/system.slice/crm.service", "/system.slice/crm.service/below"));
    assert!(!fits("/system.slice/crm.service", "/system.slice"));
    assert!(fits("/system.slice/mcp-*.service", "/system.slice/mcp-a.service"));
    assert!(fits("/system.slice/mcp-*.service", "/system.slice/mcp-.service"));
    assert!(!fits("/system.slice/mcp-*.service", "/system.slice/mcp-a.scope"));
    assert!(!fits("/system.slice/mcp-*.service", "/system.slice/mcp-a/b.service"));
    assert!(fits("/a/*x*y", "/a/1x2x3y"));
    assert!(!fits("/a/*x*y", "/a/1y2x"));
    assert!(!fits("/a/aa*aa", "/a/aaa"));
    assert!(fits("/a/*/b", "/a/anything/b"));
}

#[test]
fn how_paths_begin_is_what_comes_before_the_first_star() {
    let pattern = Pattern::new("/system.slice/mcp-*.service").unwrap();
    assert_eq!((pattern.beginning(), pattern.is_whole()), ("/system.slice/mcp-", false));
    let pattern = Pattern::new("/a/b").unwrap();
    assert_eq!((pattern.beginning(), pattern.is_whole()), ("/a/b", true));
}

#[test]
fn all_that_fit_are_at_one_level() {
    for (text, level) in [("/a", 1), ("/a*", 1), ("/a/*", 2), ("/a/b-*/c", 3), ("/a/*/*/d", 4)] {
        assert_eq!(Pattern::new(text).unwrap().level(), level, "{text}");
    }
}

#[test]
fn what_is_no_path_of_a_cgroup_is_refused() {
    for text in ["", "/", "a/b", "/a//b", "/a/", "/a/../b", "/./a", "/*", "/*a/b", "/a\0b"] {
        assert!(Pattern::new(text).is_err(), "`{text}` was taken");
    }
    assert!(Pattern::new(&format!("/{}", "a".repeat(250))).is_ok());
    assert!(Pattern::new(&format!("/{}", "a".repeat(251))).is_err());
    assert!(Pattern::new(&"/a".repeat(15)).is_ok());
    assert!(Pattern::new(&"/a".repeat(16)).is_err());
}

#[test]
fn a_slice_is_in_those_that_its_name_says() {
    assert_eq!(slice_path("mcp.slice").as_deref(), Some("/mcp.slice"));
    assert_eq!(slice_path("a-b-c.slice").as_deref(), Some("/a.slice/a-b.slice/a-b-c.slice"));
    for name in ["-.slice", ".slice", "a-.slice", "-a.slice", "a--b.slice", "a.service", "slice"] {
        assert_eq!(slice_path(name), None, "{name}");
    }
}
