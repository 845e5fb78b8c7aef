//! What is in `packaging/`: systemd finds nothing to complain of, the units promise what the documentation says, and the
//! daemon needs no capability that its unit doesn't leave it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use interceptor::adopt::DropIn;
use interceptor_tests::daemon::{Daemon, READ_ONLY};
use interceptor_tests::graph::Graph;
use interceptor_tests::require_root;
use tempfile::TempDir;

/// Where the units start the daemon from, and the README's installation puts it.
const BINARY: &str = "/usr/local/bin/interceptor";

/// Tells this program that it is under the capabilities of the unit already.
const BOUNDED: &str = "INTERCEPTOR_TEST_BOUNDED";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn unit(name: &str) -> Result<String> {
    let path = root().join("packaging/systemd").join(name);
    fs::read_to_string(&path).with_context(|| format!("reading `{}`", path.display()))
}

fn units() -> Result<Vec<String>> {
    let folder = fs::read_dir(root().join("packaging/systemd"))?;
    folder.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

fn drop_in(root: &Path) -> Result<DropIn> {
    let (bundle, authority) = ("/run/interceptor/trust.pem", "/run/interceptor/authority.pem");
    Ok(DropIn::new(root, "crm.service", bundle.as_ref(), authority.as_ref())?)
}

/// What a unit says: keys and values, without sections, which share no key here.
fn settings(text: &str) -> Vec<(&str, &str)> {
    text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('=')).collect()
}

/// All values of a key, by words.
fn words<'a>(text: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> {
    settings(text).into_iter().filter(move |(one, _)| *one == key).flat_map(|(_, value)| value.split(' '))
}

/// A host with our units, a unit that is adopted, and a binary where ours say that it is.
struct Host(TempDir);

impl Host {
    fn new(change: impl Fn(String) -> String) -> Result<Self> {
        let host = Self(tempfile::tempdir()?);
        fs::create_dir_all(host.units())?;
        let binary = host.0.path().join("interceptor");
        fs::write(&binary, "#!/bin/sh\n")?;
        fs::set_permissions(&binary, fs::Permissions::from_mode(0o755))?;
        for name in units()? {
            let text = unit(&name)?.replace(BINARY, &binary.display().to_string());
            fs::write(host.units().join(&name), change(text))?;
        }
        fs::write(host.units().join("crm.service"), "[Service]\nDynamicUser=yes\nExecStart=/bin/true\n")?;
        drop_in(host.0.path())?.write()?;
        Ok(host)
    }

    /// Where the drop-in is, too.
    fn units(&self) -> PathBuf {
        self.0.path().join("etc/systemd/system")
    }

    /// What systemd has to say.
    fn verify(&self) -> Result<String> {
        let names = units()?.into_iter().chain(["crm.service".into()]).map(|name| self.units().join(name));
        let told = Command::new("systemd-analyze")
            // The manual may not be installed.
            .args(["verify", "--man=no"])
            .args(names)
            // A colon at the end: the system's own units as well, behind ours.
            .env("SYSTEMD_UNIT_PATH", format!("{}:", self.units().display()))
            .output()?;
        let mut text = String::from_utf8_lossy(&told.stdout).into_owned();
        text.push_str(&String::from_utf8_lossy(&told.stderr));
        ensure!(told.status.success() || !text.is_empty(), "it ended with {}", told.status);
        Ok(text)
    }
}

/// Whether systemd can be asked. Where the kernel tests are required, so is it.
fn is_systemd_analyze_there() -> Result<bool> {
    let told = Command::new("systemd-analyze").arg("--version").output();
    let is_there = told.is_ok_and(|told| told.status.success());
    let required = std::env::var_os("INTERCEPTOR_REQUIRE_KERNEL").is_some_and(|value| value == "1");
    ensure!(is_there || !required, "`systemd-analyze` isn't there: run `cargo xtask setup --tests`");
    Ok(is_there)
}

#[test]
fn systemd_has_nothing_to_say_of_the_units_and_of_a_unit_with_the_drop_in() -> Result<()> {
    if !is_systemd_analyze_there()? {
        println!("skipped: needs systemd-analyze");
        return Ok(());
    }
    let told = Host::new(|text| text)?.verify()?;
    ensure!(told.is_empty(), "{told}");
    Ok(())
}

/// It ends well in spite of what it says, so silence has to be worth something.
#[test]
fn systemd_would_tell_of_a_key_that_it_doesnt_know_and_of_a_binary_that_isnt_there() -> Result<()> {
    if !is_systemd_analyze_there()? {
        println!("skipped: needs systemd-analyze");
        return Ok(());
    }
    for (from, to) in [("KillMode=", "KillMod="), ("ExecStart=/", "ExecStart=/nowhere/")] {
        let told = Host::new(|text| text.replace(from, to))?.verify()?;
        ensure!(told.contains("interceptor.service"), "`{to}` went by: {told}");
    }
    Ok(())
}

#[test]
fn the_service_keeps_what_is_promised_of_it() -> Result<()> {
    let text = unit("interceptor.service")?;
    let said = settings(&text);
    let start = format!("{BINARY} daemon");
    let reload = format!("{BINARY} policy reload");
    for wanted in [
        ("Type", "notify"),
        ("NotifyAccess", "main"),
        ("WatchdogSec", "10s"),
        // A migration that is killed begins again.
        ("TimeoutStartSec", "infinity"),
        ("Restart", "on-failure"),
        ("StartLimitIntervalSec", "0"),
        // What was launched lives on, and the daemon that comes next finds it.
        ("KillMode", "process"),
        ("RuntimeDirectory", "interceptor"),
        ("RuntimeDirectoryMode", "0755"),
        ("RuntimeDirectoryPreserve", "yes"),
        ("StateDirectory", "interceptor"),
        ("StateDirectoryMode", "0700"),
        ("ExecStart", &start),
        ("ExecReload", &reload),
    ] {
        ensure!(said.contains(&wanted), "`{}={}` is missing", wanted.0, wanted.1);
    }
    let readme = fs::read_to_string(root().join("README.md"))?;
    ensure!(readme.contains("sudo install target/release/interceptor /usr/local/bin/"), "it is installed elsewhere");
    Ok(())
}

/// Workloads are cloned from the daemon: they would see its mounts, and couldn't get rid of its seccomp filters.
#[test]
fn nothing_hardens_the_daemon_at_the_expense_of_workloads() -> Result<()> {
    let mounts =
        ["Protect", "Private", "ReadOnly", "ReadWrite", "Inaccessible", "Bind", "Root", "Temporary", "Mount", "Exec"];
    let inherited = [
        "MemoryDenyWriteExecute",
        "RestrictSUIDSGID",
        "RestrictNamespaces",
        "RestrictRealtime",
        "LockPersonality",
        "SystemCallFilter",
        "UMask",
        "OOMScoreAdjust",
        "Nice",
    ];
    let run = ["ExecStart", "ExecReload"];
    for (key, _) in settings(&unit("interceptor.service")?) {
        let is_mount = mounts.iter().any(|start| key.starts_with(start)) && !run.contains(&key);
        ensure!(!is_mount && !inherited.contains(&key), "`{key}=` reaches into workloads");
    }
    Ok(())
}

#[test]
fn what_units_and_the_drop_in_name_of_ours_is_there() -> Result<()> {
    let there = units()?;
    let mut texts = vec![drop_in("/".as_ref())?.text];
    for name in &there {
        texts.push(unit(name)?);
    }
    for text in &texts {
        for key in ["Requires", "Wants", "After", "Before", "Slice"] {
            let ours = words(text, key).filter(|name| name.starts_with("interceptor"));
            for name in ours {
                ensure!(there.iter().any(|one| one == name), "there is no `{name}`");
            }
        }
    }
    let drop_in = &texts[0];
    let needs: Vec<&str> = words(drop_in, "Requires").collect();
    ensure!(!needs.is_empty(), "a unit with the drop-in would be started without the daemon");
    ensure!(
        needs.iter().all(|name| words(drop_in, "After").any(|one| one == *name)),
        "it is started beside the daemon"
    );
    ensure!(words(drop_in, "Slice").eq(["interceptor.slice"]), "it is in another slice");
    ensure!(
        words(&unit("interceptor-anchor.service")?, "Requires").eq(["interceptor.slice"]),
        "nothing needs the slice"
    );
    Ok(())
}

/// This test starts itself again, under the capabilities that the unit leaves: then all that it starts is bounded by them.
#[test]
fn the_daemon_serves_and_launches_with_the_capabilities_of_its_unit() -> Result<()> {
    require_root!(Ok(()));
    if std::env::var_os(BOUNDED).is_some() {
        let graph = Graph::start(&[])?;
        let daemon = Daemon::for_graph(&graph, READ_ONLY)?;
        let launched = daemon.run(&["/bin/true"]).output()?;
        ensure!(launched.status.success(), "{}", String::from_utf8_lossy(&launched.stderr));
        return daemon.finish();
    }
    let text = unit("interceptor.service")?;
    let left = words(&text, "CapabilityBoundingSet").filter_map(|name| name.strip_prefix("CAP_"));
    let left = left.fold(String::from("-all"), |all, name| format!("{all},+{}", name.to_lowercase()));
    let this = "the_daemon_serves_and_launches_with_the_capabilities_of_its_unit";
    let again = Command::new("setpriv")
        .args(["--bounding-set", &left, "--inh-caps", "-all", "--"])
        .arg(std::env::current_exe()?)
        .args(["--exact", this, "--nocapture"])
        .env(BOUNDED, "1")
        .output()?;
    let told = String::from_utf8_lossy(&again.stdout);
    ensure!(again.status.success() && told.contains("1 passed"), "{told}{}", String::from_utf8_lossy(&again.stderr));
    Ok(())
}
