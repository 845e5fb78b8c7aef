use super::*;
use crate::config::{Host, Settings};
use crate::policy::{CanonicalPath, Credential};

const MASKS: &str = "[[mask]]\nname = \"pii\"\njson = [\"$..mail\"]\ndeny_query = [\"mail\"]\n[[mask]]\nname = \"keys\"\ndetect = [\"api-key\"]\n";

fn names(names: &[&str]) -> Vec<MaskName> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

fn ask(
    masking: &Masking,
    masks: &[&str],
    query: Option<&str>,
    websocket: bool,
) -> Result<Option<Arc<Plan>>, &'static str> {
    let (host, path): (Host, _) =
        ("graph.microsoft.com".parse().unwrap(), CanonicalPath::parse("/v1.0/users").unwrap());
    let request = HttpRequest {
        method: "GET",
        host: &host,
        port: 443,
        tls: true,
        path: &path,
        query,
        credential: Credential::None,
        websocket,
    };
    masking.of(&names(masks), &request).map_err(|fault| fault.code)
}

#[test]
fn names_that_go_together_are_compiled_once_and_none_mask_nothing() {
    let settings = Settings::parse("/etc/interceptor/config.toml", MASKS).unwrap();
    let masking = Masking::new(&settings).unwrap();
    assert!(ask(&masking, &[], Some("$filter=mail"), true).unwrap().is_none());
    let both = ask(&masking, &["keys", "pii"], Some("$select=mail"), false).unwrap().unwrap();
    assert!(Arc::ptr_eq(&both, &ask(&masking, &["keys", "pii"], None, false).unwrap().unwrap()));
    let one = ask(&masking, &["pii"], None, false).unwrap().unwrap();
    assert!(one.is_within(&both) && !both.is_within(&one) && one.is_within(&one));
}

#[test]
fn what_would_tell_what_is_masked_is_refused() {
    let settings = Settings::parse("/etc/interceptor/config.toml", MASKS).unwrap();
    let masking = Masking::new(&settings).unwrap();
    assert_eq!(ask(&masking, &["pii"], Some("$filter=mail eq 'a'"), false).unwrap_err(), "masked-query");
    assert!(ask(&masking, &["keys"], Some("$filter=mail eq 'a'"), false).is_ok(), "another mask's name");
    assert_eq!(ask(&masking, &["keys"], None, true).unwrap_err(), "masked-websocket");
    assert_eq!(ask(&masking, &["gone"], None, false).unwrap_err(), "internal");
}
