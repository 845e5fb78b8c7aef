use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Instant;

use super::super::notice::tests::requested;
use super::*;

/// A script that `nobody` can run, and a folder that he can write into. Only root may become somebody else.
struct Stage {
    folder: tempfile::TempDir,
    script: PathBuf,
}

impl Stage {
    fn new(script: &str) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tell");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        let open = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        open(&path, 0o755);
        open(folder.path(), 0o755);
        std::fs::create_dir(folder.path().join("out")).unwrap();
        open(&folder.path().join("out"), 0o777);
        Some(Self { folder, script: path })
    }

    fn hook(&self, patience: Duration) -> Hook {
        let words = vec![self.script.display().to_string(), self.folder.path().join("out").display().to_string()];
        Hook { patience, ..Hook::new(words, 65_534, 65_534) }
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join("out").join(name)).unwrap_or_default()
    }
}

fn now() -> Timestamp {
    Timestamp::UNIX_EPOCH
}

#[tokio::test]
async fn it_gets_the_notification_as_somebody_without_rights_in_a_clean_environment() {
    let Some(stage) = Stage::new("cd \"$1\"; cat >in; (id -u; id -g; id -G) >who; /usr/bin/env >env; pwd >dir") else {
        return;
    };
    let said = stage.hook(PATIENCE).deliver(&requested("ticket 7"), now()).await.unwrap();
    assert_eq!(said, "the command ended with exit status: 0");
    let sent: serde_json::Value = serde_json::from_str(&stage.read("in")).unwrap();
    assert_eq!(sent["data"]["justification"], "ticket 7");
    assert_eq!(stage.read("who"), "65534\n65534\n65534\n");
    let mut names: Vec<String> =
        stage.read("env").lines().filter_map(|line| Some(line.split_once('=')?.0.to_owned())).collect();
    names.retain(|name| !matches!(name.as_str(), "PWD" | "OLDPWD" | "SHLVL" | "_"));
    assert_eq!(names, ["PATH"], "the shell's own apart");
}

#[tokio::test]
async fn one_that_takes_too_long_is_ended_with_what_it_started() {
    let Some(stage) = Stage::new("sleep 30 & echo $! >\"$1/child\"; sleep 30") else { return };
    let began = Instant::now();
    let error = stage.hook(Duration::from_secs(3)).deliver(&requested("x"), now()).await.unwrap_err();
    assert!(error.to_string().contains("took longer than 3 s"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert!(is_gone(stage.read("child").trim()).await, "its child lives on");
}

#[tokio::test]
async fn what_it_leaves_behind_is_ended_and_its_failure_is_told() {
    let Some(stage) = Stage::new("sleep 30 & echo $! >\"$1/child\"; exit 3") else { return };
    let error = stage.hook(PATIENCE).deliver(&requested("x"), now()).await.unwrap_err();
    assert!(error.to_string().ends_with("ended with exit status: 3"), "{error}");
    assert!(is_gone(stage.read("child").trim()).await, "its child lives on");
}

#[tokio::test]
async fn one_that_others_could_have_written_is_not_run() {
    let Some(stage) = Stage::new("touch \"$1/ran\"") else { return };
    std::fs::set_permissions(&stage.script, std::fs::Permissions::from_mode(0o777)).unwrap();
    let error = stage.hook(PATIENCE).deliver(&requested("x"), now()).await.unwrap_err();
    assert!(matches!(error, Undelivered::File(_)), "{error}");
    std::fs::set_permissions(&stage.script, std::fs::Permissions::from_mode(0o755)).unwrap();
    stage.hook(PATIENCE).deliver(&requested("x"), now()).await.unwrap();
    let gone = Hook::new(vec!["/nowhere/tell".into()], 65_534, 65_534);
    assert!(gone.deliver(&requested("x"), now()).await.is_err());
}

/// Whether a process has ended, within a moment; nobody may have reaped it yet.
async fn is_gone(pid: &str) -> bool {
    assert!(!pid.is_empty(), "it didn't begin");
    for _ in 0..1_000 {
        let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if state.is_empty() || state.contains(") Z ") {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    false
}
