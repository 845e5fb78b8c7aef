//! Broken configurations, each with what is said of it (`broken.txt`: after `###` the case, then the text, after `---`
//! each mistake as `line:column: message | what was expected`), and whole ones.

use std::net::SocketAddr;

use super::*;
use crate::config::{
    Adopt, BatchFormat, CredentialKind, CredentialSettings, Form, Home, Issues, Level, Named, Occasion, Pattern, Place,
    Required, SecretSource, SinkSettings, Strategy,
};

fn parse(text: &str) -> Result<Settings, ConfigError> {
    Settings::parse("/etc/interceptor/config.toml", text)
}

#[test]
fn each_mistake_is_told_with_its_place_and_what_was_expected() {
    let file = include_str!("broken.txt");
    let mut actual = String::new();
    let mut cases = 0;
    for case in file.split("### ").skip(1) {
        let (title, rest) = case.split_once('\n').unwrap();
        let (text, _) = rest.split_once("---\n").unwrap();
        actual += &format!("### {title}\n{text}---\n");
        let error = parse(text).expect_err(title);
        for mistake in error.mistakes() {
            let (line, column) = mistake.place();
            actual += &format!("{line}:{column}: {} | {}\n", mistake.message(), mistake.expected());
        }
        let first = error.to_string();
        let (line, column) = error.mistakes()[0].place();
        assert!(first.starts_with(&format!("/etc/interceptor/config.toml:{line}:{column}: ")), "{first}");
        cases += 1;
    }
    if std::env::var_os("INTERCEPTOR_BLESS").is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/src/config/load/broken.txt"), &actual).unwrap();
        return;
    }
    assert_eq!(actual, file);
    assert!(cases >= 40, "{cases}");
}

#[test]
fn the_place_is_underlined() {
    let error = parse("[[target]]\nname = \"graph\"\nhosts = [\"a b\"]\n").unwrap_err();
    let mut shown = String::new();
    miette::GraphicalReportHandler::new_themed(miette::GraphicalTheme::none())
        .render_report(&mut shown, &error)
        .unwrap();
    for part in ["/etc/interceptor/config.toml:3:10", "hosts = [\"a b\"]", "^^^^^", "help: a host name, an address"] {
        assert!(shown.contains(part), "{part} in\n{shown}");
    }
}

#[test]
fn nothing_configured_is_a_configuration() {
    let settings = parse("").unwrap();
    assert!(settings.workloads.is_empty());
    assert_eq!(settings.targets.iter().count(), 0);
    assert_eq!(settings.cgroup, "interceptor");
    assert_eq!(settings.paths.policy, Path::new("/etc/interceptor/policy.d"));
    assert_eq!(settings.paths.control_socket, Path::new("/run/interceptor/control.sock"));
    assert_eq!(settings.paths.state, Path::new("/var/lib/interceptor"));
    assert_eq!(settings.paths.pins, Path::new("/sys/fs/bpf/interceptor"));
    assert_eq!(settings.paths.docker, Path::new("/var/lib/docker"));
    assert_eq!(settings.paths.podman, Path::new("/var/lib/containers/storage"));
    assert_eq!(settings.record.segment_bytes, 16 << 20);
    let seconds = Duration::from_secs;
    let limits = Limits {
        detect_timeout: seconds(5),
        dial_timeout: seconds(10),
        response_timeout: seconds(300),
        idle_timeout: seconds(90),
        connections: 1024,
        streams: 100,
        header_bytes: 64 << 10,
        header_fields: 100,
        request_body: 1 << 30,
        response_body: 16 << 30,
        expansion: Expansion { free: 16 << 20, ratio: 200 },
        hold: HoldLimits { patience: seconds(25), each: 16, all: 256, body: 1 << 20 },
        operations: 1024,
        names: 4096,
        drain: seconds(10),
    };
    assert_eq!(settings.limits, limits);
    assert_eq!(settings.payload, PayloadSettings { level: PayloadLevel::Full, bytes: 1 << 20 });
}

#[test]
fn the_example_is_a_configuration() {
    let text = include_str!("../../../../examples/config.toml");
    let settings = parse(text).unwrap();
    assert_eq!(settings.workloads[0].name.as_str(), "crm");
    let graph = settings.targets.find(&"graph.microsoft.com".parse().unwrap(), 443).unwrap();
    assert_eq!(graph.name.as_str(), "graph");
}

#[test]
fn every_key_is_taken() {
    let settings = parse(
        r#"
        state_dir = "/s"
        runtime_dir = "/r"
        policy_dir = "/p"
        pin_dir = "/sys/fs/bpf/i"
        docker_dir = "/d"
        podman_dir = "/p"
        metrics_socket = "/m/m.sock"
        cgroup = "a/b"
        control.operators = ["user:root", "group:root"]
        control.auditors = ["user:4321", "group:4322", "group:root"]
        record = { reserve = "8MiB", anchor = "required", payload = "headers", payload_bytes = "64KiB", durability = "power-loss", segment = "1MiB", backlog = "2MiB", backlog_age = "1s", keep_payloads_of = { a = "40d", b = "30d" } }
        upstream = { extra_ca = ["/ca.pem"], resolve = { "A.example" = "[::1]:1", "b.example" = "10.0.0.1", "c.example" = "::1" } }
        limits = { detect_timeout = "1s", dial_timeout = "2s", response_timeout = "3s", idle_timeout = "4s", connections = 5, streams = 9, header_bytes = "8KiB", header_fields = 16, request_body = "1MiB", response_body = "2MiB", decoded_body = "3MiB", decoded_ratio = 11, hold = "5s", holds = 3, holds_in_all = 4, approvable_body = "6KiB", operations = 9, names = 7, drain = "8s" }

        [[export]]
        name = "siem"
        kind = "syslog"
        address = "siem.example"
        ca = "/siem.pem"

        [[export]]
        name = "web"
        kind = "http"
        url = "https://siem.example/in?index=a"
        format = "json"
        bearer_file = "/etc/interceptor/web"

        [[export]]
        name = "otel"
        kind = "otlp"
        url = "https://otel.example:4318/"

        [[notify]]
        name = "hook"
        kind = "webhook"
        url = "https://hooks.example/a"
        secret_file = "/etc/interceptor/hook"
        ca = "/hooks.pem"
        on = ["approval-requested", "grant-ended"]

        [[notify]]
        name = "chat"
        kind = "slack"
        url_file = "/etc/interceptor/chat"

        [[notify]]
        name = "run"
        kind = "command"
        command = ["/usr/local/bin/tell", "-v"]
        user = "61234"

        [[workload]]
        name = "one"
        match = { user = "root", uid = 1000, group = ["root"], command = "crm-mcp" }
        user = "61234"
        home = "full"
        unix = ["/run/a.sock"]
        publish = ["127.0.0.1:8000:8080", "[::1]:8000:8080"]
        class = "internal"

        [[workload]]
        name = "two"
        match = { uid = [1, 2] }
        home = "private"
        class = ["a", "b"]

        [[workload]]
        name = "adopted"
        match = { unit = "crm.service", cgroup = ["/x/y", "/c/d-*"], container_label = "interceptor=crm" }
        containment = "steered"

        [[target]]
        name = "plain"
        hosts = ["plain.example", "*.apps.example", "10.0.0.1", "[::1]", "localhost"]
        cleartext = true

        [[target]]
        name = "any"
        hosts = ["*.blob.core.windows.net"]
        any_account = true

        [[mask]]
        name = "pii"
        json = ["$..mail"]
        detect = ["email", "api-key"]
        strategy = "pseudonym"
        headers = ["X-User"]
        deny_query = ["mail"]

        [[target]]
        name = "pg"
        mask = ["pii", "pii"]
        hosts = ["plain.example"]
        protocol = "postgres"

        [[target]]
        name = "keyed"
        hosts = ["keyed.example"]
        credential = { header = "X-Api-Key", prefix = "Key ", command = ["/usr/bin/token", "a b"], ttl = "2m" }

        [[target]]
        name = "store"
        hosts = ["account.blob.core.windows.net"]
        credential = { shared_key = { account = "account", key_file = "/etc/interceptor/store" } }

        [[target]]
        name = "mutual"
        hosts = ["mutual.example"]
        credential = { client_cert = "/c.pem", client_key = "/k.pem" }

        [[tenant]]
        id = "11111111-0000-4000-8000-00000000000A"
        domains = ["Contoso.com"]
        login = "login.microsoftonline.us"
        audiences = ["api://CRM/"]
        directory = { client = "44444444-0000-4000-8000-000000000004", secret_file = "/etc/interceptor/directory" }

        [[issuer]]
        name = "pass"
        url = "https://pass.example/realm/"
        audiences = ["crm"]
        jwks_uri = "https://keys.example/jwks"

        [names]
        readers = "group:11111111-0000-4000-8000-00000000000A/22222222-0000-4000-8000-000000000002"
        writers = "role:11111111-0000-4000-8000-00000000000a/api://crm/Crm.Write"
        bot = "identity:pass/bot|7"
        app = "client:44444444-0000-4000-8000-000000000004"

        [people]
        root = "11111111-0000-4000-8000-00000000000a/33333333-0000-4000-8000-000000000003"

        [approvers]
        crm = ["root", "identity:11111111-0000-4000-8000-00000000000A/22222222-0000-4000-8000-000000000002", "group:11111111-0000-4000-8000-00000000000A/22222222-0000-4000-8000-00000000000B"]

        [login]
        tenant = "11111111-0000-4000-8000-00000000000a"
        client = "44444444-0000-4000-8000-000000000004"
        required = "bound"
        for = "1h"

        [[workload]]
        name = "three"
        identity = { source = "token-file", path = "/run/token" }

        [[target]]
        name = "login"
        hosts = ["login.microsoftonline.us"]

        [[target]]
        name = "pass"
        hosts = ["pass.example"]
        identity = "oidc:pass"

        [[target]]
        name = "vault"
        hosts = ["*.vault.azure.net"]
        any_account = true
        audiences = ["api://Vault"]
        accept_foreign = ["basic", "x-api-key", "?sig"]
        pin = { headers = { "X-Ms-Version" = "2024-11-04" }, path_prefix = "/secrets/" }
        "#,
    )
    .unwrap();
    assert_eq!(settings.payload, PayloadSettings { level: PayloadLevel::Headers, bytes: 64 << 10 });
    assert_eq!((settings.limits.request_body, settings.limits.operations), (1 << 20, 9));
    assert_eq!(settings.limits.expansion, Expansion { free: 3 << 20, ratio: 11 });
    let hold = HoldLimits { patience: Duration::from_secs(5), each: 3, all: 4, body: 6 << 10 };
    assert_eq!(settings.limits.hold, hold);
    let credential = |name: &str| {
        let target = settings.targets.iter().find(|target| target.name.as_str() == name).unwrap();
        target.credential.clone().unwrap()
    };
    let keyed = credential("keyed");
    let source = SecretSource::Command(vec!["/usr/bin/token".into(), "a b".into()]);
    let kind = CredentialKind::Header { name: "x-api-key".into(), prefix: "Key ".into(), source };
    assert_eq!(keyed, CredentialSettings { kind, ttl: Duration::from_secs(120) });
    assert!(keyed.replaces_header("X-API-KEY") && keyed.replaces_header("authorization"));
    assert!(credential("store").replaces_header("x-ms-date"));
    assert!(!credential("mutual").replaces_header("authorization"));
    assert_eq!(settings.paths.control_socket, Path::new("/r/control.sock"));
    assert_eq!(settings.paths.metrics_socket, Path::new("/m/m.sock"));
    assert_eq!((&settings.control.operators.uids[..], &settings.control.operators.gids[..]), (&[0][..], &[0][..]));
    let auditors = &settings.control.auditors;
    assert_eq!((&auditors.uids[..], &auditors.gids[..]), (&[4321][..], &[4322, 0][..]));
    assert_eq!(settings.record.durability, Durability::PowerLoss);
    assert_eq!((settings.record.anchor, settings.record.reserve), (Anchor::Required, 8 << 20));
    assert_eq!((settings.record.segment_bytes, settings.record.backlog_bytes), (1 << 20, 2 << 20));
    let resolved = |name: &str| settings.upstream.resolve[&name.parse::<Host>().unwrap()];
    assert_eq!(resolved("a.example"), "[::1]:1".parse::<SocketAddr>().unwrap());
    assert_eq!(resolved("b.example"), "10.0.0.1:0".parse::<SocketAddr>().unwrap());
    assert_eq!(resolved("c.example"), "[::1]:0".parse::<SocketAddr>().unwrap());
    let limits = &settings.limits;
    assert_eq!((limits.connections, limits.streams, limits.header_bytes, limits.names), (5, 9, 8192, 7));
    let sinks: Vec<_> = settings.exports.iter().map(|export| (export.to_string(), export.sink.clone())).collect();
    let host = "siem.example".parse().unwrap();
    assert_eq!(sinks[0], ("siem.syslog".into(), SinkSettings::Syslog { host, port: 6514 }));
    assert_eq!(settings.exports[0].ca.as_deref(), Some(Path::new("/siem.pem")));
    let (url, bearer) = ("https://siem.example/in?index=a".into(), Some("/etc/interceptor/web".into()));
    assert_eq!(sinks[1], ("web.http".into(), SinkSettings::Http { url, format: BatchFormat::Array, bearer }));
    let url = "https://otel.example:4318/v1/logs".into();
    assert_eq!(sinks[2], ("otel.otlp".into(), SinkSettings::Otlp { url, bearer: None }));
    let ways: Vec<_> = settings.notify.iter().map(|channel| channel.way.clone()).collect();
    let (place, secret) = (Place::Url("https://hooks.example/a".into()), Some("/etc/interceptor/hook".into()));
    let hook = NotifyWay::Post { form: Form::Webhook, place, secret, ca: Some("/hooks.pem".into()) };
    let place = Place::File("/etc/interceptor/chat".into());
    let chat = NotifyWay::Post { form: Form::Slack, place, secret: None, ca: None };
    let words = vec!["/usr/local/bin/tell".into(), "-v".into()];
    assert_eq!(ways, [hook, chat, NotifyWay::Command { words, uid: 61_234, gid: 65_534 }]);
    assert_eq!(settings.notify[0].on, [Occasion::ApprovalRequested, Occasion::GrantEnded]);
    assert_eq!(settings.notify[1].on, Occasion::ALL);
    let identities = &settings.identities;
    let approvers = &identities.approvers["crm"];
    assert_eq!((approvers.uids.len(), approvers.people.len(), approvers.count()), (1, 1, None));
    let group = "11111111-0000-4000-8000-00000000000a/22222222-0000-4000-8000-00000000000b".to_owned();
    let (nobody, member) = ("pass/x".parse().unwrap(), [group].into());
    assert!(approvers.take(&nobody, &member) && !approvers.take(&nobody, &Default::default()));
    let login = identities.login.as_ref().unwrap();
    assert_eq!((login.required, login.lasts), (Required::Bound, Duration::from_secs(3600)));
    let one = &settings.workloads[0];
    assert_eq!((&one.matches.uids[..], &one.matches.gids[..]), (&[0, 1000][..], &[0][..]));
    assert_eq!(one.matches.command.as_deref(), Some("crm-mcp"));
    assert_eq!((one.user.as_deref(), one.home), (Some("61234"), Home::Full));
    assert_eq!(settings.workloads[1].matches.uids, [1, 2]);
    assert_eq!(settings.workloads[1].classes, ["a", "b"]);
    assert_eq!((one.adopt.len(), one.containment), (0, Level::Contained));
    let adopted = &settings.workloads[2];
    assert_eq!(adopted.containment, Level::Steered);
    assert_eq!(adopted.adopt[0], Adopt::Unit("crm.service".into()));
    assert_eq!(adopted.adopt[2], Adopt::Cgroup(Pattern::new("/c/d-*").unwrap()));
    assert_eq!(adopted.adopt[3], Adopt::ContainerLabel("interceptor=crm".into()));
    let keep: Vec<_> = settings.record.keep_payloads_of.values().collect();
    assert_eq!(keep, [&(30 * units::DAY)], "of several classes the least");
    let targets: Vec<_> = settings.targets.iter().collect();
    let mask = &settings.masks[0];
    assert_eq!((mask.name.as_str(), mask.json[0].as_str(), mask.strategy), ("pii", "$..mail", Strategy::Pseudonym));
    assert!(mask.detect.len() > 10 && *mask.detect[0].id == *"email", "{:?}", mask.detect);
    assert_eq!((mask.headers[0].as_str(), &*mask.deny_query[0]), ("x-user", "mail"));
    assert_eq!(targets[2].masks, std::slice::from_ref(&mask.name));
    assert_eq!(targets[0].ports, [80, 443]);
    assert_eq!(targets[1].ports, [443]);
    assert_eq!(targets[2].ports, [5432]);
}

#[test]
fn a_relative_config_keeps_its_policies_beside_it() {
    let settings = Settings::parse("conf/config.toml", "").unwrap();
    assert_eq!(settings.paths.policy, std::env::current_dir().unwrap().join("conf/policy.d"));
}

#[test]
fn a_configuration_that_others_may_write_is_for_checks_only() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    std::fs::write(&path, format!("upstream.extra_ca = [\"{}\"]", folder.path().join("ca.pem").display())).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
    assert!(Settings::load(&path).is_ok());
    assert!(matches!(Settings::load_trusted(&path), Err(ConfigError::Untrusted { .. })));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert!(matches!(Settings::load_trusted(&path), Err(ConfigError::Read { .. })), "its extra_ca isn't there");
    std::fs::write(folder.path().join("ca.pem"), "").unwrap();
    assert!(Settings::load_trusted(&path).is_ok());
}

/// The keys of the schema, with their tables: `limits.drain`.
fn keys() -> Vec<String> {
    fn walk(schema: &serde_json::Value, root: &serde_json::Value, prefix: &str, keys: &mut Vec<String>) {
        if let Some(reference) = schema["$ref"].as_str() {
            let name = reference.rsplit('/').next().unwrap();
            return walk(&root["$defs"][name], root, prefix, keys);
        }
        walk_each(schema["anyOf"].as_array().into_iter().flatten(), root, prefix, keys);
        if schema["items"].is_object() {
            walk(&schema["items"], root, prefix, keys);
        }
        for (key, inner) in schema["properties"].as_object().into_iter().flatten() {
            let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
            walk(inner, root, &key, keys);
            keys.push(key);
        }
    }
    fn walk_each<'a>(
        schemas: impl Iterator<Item = &'a serde_json::Value>,
        root: &serde_json::Value,
        prefix: &str,
        keys: &mut Vec<String>,
    ) {
        schemas.for_each(|schema| walk(schema, root, prefix, keys));
    }
    let (schema, mut keys) = (schema(), Vec::new());
    walk(&schema, &schema, "", &mut keys);
    keys
}

#[test]
fn ids_are_canonical_and_audiences_belong_to_targets() {
    let settings = parse(
        r#"
        [[tenant]]
        id = "11111111-0000-4000-8000-00000000000A"
        [names]
        readers = "group:11111111-0000-4000-8000-00000000000A/22222222-0000-4000-8000-00000000000B"
        [[target]]
        name = "graph"
        hosts = ["graph.microsoft.com"]
        [[target]]
        name = "vault"
        hosts = ["crm.vault.azure.net"]
        [[target]]
        name = "crm"
        hosts = ["*.crm.example"]
        audiences = ["api://CRM"]
        [[target]]
        name = "login"
        hosts = ["login.microsoftonline.com"]
        [[target]]
        name = "host"
        hosts = ["169.254.169.254"]
        cleartext = true
        "#,
    )
    .unwrap();
    let of = |audience: &str| settings.targets.by_audience(audience).map(|target| target.name.as_str());
    for (audience, target) in [
        ("https://graph.microsoft.com", Some("graph")),
        ("https://graph.microsoft.com/", Some("graph")),
        ("00000003-0000-0000-C000-000000000000", Some("graph")),
        ("https://vault.azure.net", Some("vault")),
        ("https://org.crm.example", Some("crm")),
        ("API://crm", Some("crm")),
        ("https://crm.example", None),
        ("https://graph.microsoft.com/x", None),
        ("https://evil.example/graph.microsoft.com", None),
        ("", None),
    ] {
        assert_eq!(of(audience), target, "{audience}");
    }
    let issues = |name: &str| settings.targets.iter().find(|target| target.name.as_str() == name)?.issues.clone();
    assert_eq!((issues("login"), issues("host"), issues("crm")), (Some(Issues::Entra), Some(Issues::Imds), None));
    assert_eq!(
        settings.identities.names["readers"],
        Named::Group("11111111-0000-4000-8000-00000000000a/22222222-0000-4000-8000-00000000000b".into())
    );
}

#[test]
fn who_answers_can_be_given_by_local_user_and_by_local_group() {
    let settings = parse(
        r#"
        [[tenant]]
        id = "11111111-0000-4000-8000-00000000000a"

        [people]
        root = "11111111-0000-4000-8000-00000000000a/33333333-0000-4000-8000-000000000003"

        [approvers]
        users = ["root", "user:0"]
        groups = ["group:root", "group:4321"]
        "#,
    )
    .unwrap();
    let of = |name: &str| settings.identities.approvers[name].clone();
    let (users, groups) = (of("users"), of("groups"));
    assert_eq!((users.uids.into_iter().collect::<Vec<_>>(), users.gids.len()), (vec![0], 0));
    assert_eq!(groups.gids, [0, 4321]);
    assert_eq!(groups.count(), None, "nobody knows how many are in it");
    let unknown = parse("[approvers]\ncrm = [\"user:root\", \"group:no-such-group\"]\n").unwrap_err();
    let told: Vec<_> = unknown.mistakes().iter().map(|mistake| mistake.message().to_owned()).collect();
    assert_eq!(told, ["`user:root` isn't in `[people]`", "there is no group `no-such-group` on this host"]);
}

#[test]
fn every_key_is_documented() {
    let keys = keys();
    assert!(keys.len() > 40 && keys.contains(&"workload.match.uid".to_owned()), "{keys:?}");
    let documentation = include_str!("../../../../docs/configuration.md");
    for key in keys {
        assert!(documentation.contains(&format!("`{key}`")), "`{key}` isn't in docs/configuration.md");
    }
}

/// What a target names on `localhost` is steered inside of the workload, whatever it is published as.
#[test]
fn a_published_port_that_leads_to_the_daemon_is_refused() {
    for (host, inside, is_fine) in [
        ("localhost", 8000, false),
        ("127.0.0.1", 8000, false),
        ("a.example", 53, false),
        ("localhost", 8001, true),
        ("a.example", 8000, true),
    ] {
        let text = format!(
            "[[workload]]\nname = \"one\"\nmatch = {{ uid = 1000 }}\npublish = [\"127.0.0.1:9000:{inside}\"]\n\
             [[target]]\nname = \"own\"\nhosts = [\"{host}\"]\nports = [8000]\n"
        );
        assert_eq!(Settings::parse("/config.toml", &text).is_ok(), is_fine, "{host} {inside}");
    }
}
