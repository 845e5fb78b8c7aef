//! The user's home as a workload sees it. A guarded home is usable, and keeps two things out of reach: what identifies the
//! user elsewhere (keys, tokens, histories), and what other programs of the user run (start-up files, programs on PATH,
//! agents' and editors' settings). It is a *fence*: nothing new can be made in the home itself or in the folders that are
//! fenced as well, since a start-up file that isn't there yet could be made; what is there stays writable unless it is named.

use std::ffi::{CString, OsStr};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, lchown};
use std::path::{Path, PathBuf};

use super::mounts::{self, is_missing};
use super::{PRIVATE, c_path, hide_place};
use crate::launch::plan::{Failure, Plan, PlannedHome, failing, planned_path};
use crate::launch::sys::{self, resolve};

/// Folders in which nothing new can be made, outer ones first. The empty one is the home itself.
const FENCES: [(&str, &str); 4] = [
    ("", "shells, desktops and tools run what they find here"),
    (".config", "autostart, systemd units, shells' and tools' settings"),
    (".local", "bin is on PATH, lib holds Python's site packages"),
    (".local/share", "systemd units, applications, D-Bus services"),
];

/// What is made if it isn't there, because package runners need it and couldn't make it behind the fence.
const CACHES: [&str; 2] = [".cache", ".npm"];

const KEYS: &str = "keys and tokens";
const HISTORY: &str = "what the user typed, secrets among it";
const BROWSER: &str = "sessions and passwords of a browser";
const AGENT: &str = "an agent's tokens, settings and hooks";
const EDITOR: &str = "an editor's tokens, settings and extensions";

/// What is hidden.
const HIDDEN: [(&str, &str); 62] = [
    (".ssh", KEYS),
    (".gnupg", KEYS),
    (".pki", KEYS),
    (".password-store", KEYS),
    (".local/share/keyrings", KEYS),
    (".local/share/kwalletd", KEYS),
    (".local/share/fnox", KEYS),
    (".config/op", KEYS),
    (".config/Bitwarden", KEYS),
    (".config/Bitwarden CLI", KEYS),
    (".config/sops", KEYS),
    (".config/age", KEYS),
    (".aws", KEYS),
    (".azure", KEYS),
    (".Azure", KEYS),
    (".IdentityService", KEYS),
    (".local/share/.IdentityService", KEYS),
    (".config/gcloud", KEYS),
    (".config/gh", KEYS),
    (".config/glab-cli", KEYS),
    (".config/hub", KEYS),
    (".config/doctl", KEYS),
    (".config/rclone", KEYS),
    (".kube", KEYS),
    (".docker", KEYS),
    (".config/containers", KEYS),
    (".terraform.d", KEYS),
    (".vault-token", KEYS),
    (".netrc", KEYS),
    (".git-credentials", KEYS),
    (".config/git/credentials", KEYS),
    (".pypirc", KEYS),
    (".cargo/credentials", KEYS),
    (".cargo/credentials.toml", KEYS),
    (".gem/credentials", KEYS),
    (".m2/settings-security.xml", KEYS),
    (".pgpass", KEYS),
    (".my.cnf", KEYS),
    (".mylogin.cnf", KEYS),
    (".Xauthority", KEYS),
    (".bash_history", HISTORY),
    (".zsh_history", HISTORY),
    (".local/share/fish/fish_history", HISTORY),
    (".python_history", HISTORY),
    (".node_repl_history", HISTORY),
    (".psql_history", HISTORY),
    (".mysql_history", HISTORY),
    (".mozilla", BROWSER),
    (".thunderbird", BROWSER),
    (".config/google-chrome", BROWSER),
    (".config/chromium", BROWSER),
    (".config/microsoft-edge", BROWSER),
    (".claude", AGENT),
    (".claude.json", AGENT),
    (".config/Claude", AGENT),
    (".codex", AGENT),
    (".gemini", AGENT),
    (".config/github-copilot", AGENT),
    (".cursor", EDITOR),
    (".config/Cursor", EDITOR),
    (".config/Code", EDITOR),
    (".vscode-server", EDITOR),
];

const STARTUP: &str = "run by the user's other programs";
const ON_PATH: &str = "programs that the user's shells find on PATH";

/// What can be read but not changed. Files of the home whose names begin with a dot are read-only without being named.
const READ_ONLY: [(&str, &str); 44] = [
    (".config/autostart", STARTUP),
    (".config/autostart-scripts", STARTUP),
    (".config/plasma-workspace", STARTUP),
    (".config/systemd", STARTUP),
    (".config/environment.d", STARTUP),
    (".config/fish", STARTUP),
    (".config/nushell", STARTUP),
    (".config/zsh", STARTUP),
    (".config/bash", STARTUP),
    (".config/git", STARTUP),
    (".config/nvim", STARTUP),
    (".config/emacs", STARTUP),
    (".config/direnv", STARTUP),
    (".config/mise", STARTUP),
    (".config/pip", STARTUP),
    (".config/uv", STARTUP),
    (".config/npm", STARTUP),
    (".local/share/systemd", STARTUP),
    (".local/share/applications", STARTUP),
    (".local/share/dbus-1", STARTUP),
    (".local/share/bash-completion", STARTUP),
    (".local/share/fish", STARTUP),
    (".local/share/nvim", STARTUP),
    (".local/lib", "Python imports sitecustomize and usercustomize from it"),
    (".local/bin", ON_PATH),
    ("bin", ON_PATH),
    (".cargo", ON_PATH),
    (".rustup", ON_PATH),
    (".nvm", ON_PATH),
    (".pyenv", ON_PATH),
    (".asdf", ON_PATH),
    (".volta", ON_PATH),
    (".rbenv", ON_PATH),
    (".sdkman", ON_PATH),
    (".deno", ON_PATH),
    (".bun", ON_PATH),
    (".oh-my-zsh", STARTUP),
    (".bashrc.d", STARTUP),
    (".vim", STARTUP),
    (".emacs.d", STARTUP),
    (".vscode", EDITOR),
    (".continue", AGENT),
    (".git", "hooks and filters of a home under version control"),
    (".githooks", STARTUP),
];

/// Makes the view of the homes.
pub(super) fn place(plan: &Plan) -> Result<(), Failure> {
    for home in homes(plan) {
        let doing = || format!("guard the home `{}`", home.display());
        match plan.home {
            PlannedHome::Full => {}
            PlannedHome::Private => make_private(plan, &home).map_err(failing(doing()))?,
            PlannedHome::Guarded => guard(plan, &home).map_err(failing(doing()))?,
        }
    }
    Ok(())
}

/// Why a path can't be seen inside, if the home is the reason.
pub(super) fn unseen(plan: &Plan, path: &Path) -> Option<String> {
    let homes = plan.homes.iter().map(|home| planned_path(home));
    let below = homes.filter_map(|home| path.strip_prefix(home).ok().map(Path::to_path_buf)).next()?;
    match plan.home {
        PlannedHome::Full => None,
        PlannedHome::Private => Some("the workload has a home of its own (`home = \"private\"`)".into()),
        PlannedHome::Guarded => {
            let (hidden, why) = HIDDEN.iter().find(|(hidden, _)| below.starts_with(hidden))?;
            Some(format!("`~/{hidden}` is hidden ({why})"))
        }
    }
}

/// The homes that are there, after links, and belong to the user: another directory, such as `/`, is no home.
fn homes(plan: &Plan) -> Vec<PathBuf> {
    let mut homes = Vec::new();
    for home in &plan.homes {
        let Ok(real) = fs::canonicalize(planned_path(home)) else { continue };
        let own = fs::metadata(&real).is_ok_and(|directory| directory.is_dir() && directory.uid() == plan.uid);
        let private = PRIVATE.iter().any(|(private, ..)| real.starts_with(private));
        if own && !private && !homes.contains(&real) {
            homes.push(real);
        }
    }
    homes
}

fn make_private(plan: &Plan, home: &Path) -> io::Result<()> {
    let (uid, gid) = (CString::new(plan.uid.to_string())?, CString::new(plan.gid.to_string())?);
    let options = [(c"mode", c"0700"), (c"uid", &uid), (c"gid", &gid)];
    mounts::filesystem(c"tmpfs", home, &options, libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV)
}

fn guard(plan: &Plan, home: &Path) -> io::Result<()> {
    make_caches(plan, home)?;
    for (below, _) in FENCES {
        fence(home, below)?;
    }
    // The home as it is seen from here on.
    let inside = mounts::place(home)?;
    for (below, _) in READ_ONLY {
        treat(&inside, home, Path::new(below), |place| mounts::pin(place.as_fd(), true).map(drop))?;
    }
    // A start-up file may be a link to a file in a folder of dot files.
    for name in names(&inside)?.iter().filter(|name| name.as_bytes().starts_with(b".")) {
        treat_link(&inside, home, Path::new(name), |place| match mounts::is_file(place)? {
            true => mounts::pin(place.as_fd(), true).map(drop),
            false => Ok(()),
        })?;
    }
    for (below, _) in HIDDEN {
        treat(&inside, home, Path::new(below), hide_place)?;
    }
    Ok(())
}

/// Makes the caches that aren't there, as the user would. What stands in the way is the user's own affair.
fn make_caches(plan: &Plan, home: &Path) -> io::Result<()> {
    let home = mounts::place(home)?;
    for name in CACHES {
        // Below the descriptor, so that a home that is renamed meanwhile isn't made elsewhere.
        let path = Path::new("/proc/self/fd").join(std::os::fd::AsRawFd::as_raw_fd(&home).to_string()).join(name);
        if fs::DirBuilder::new().mode(0o700).create(&path).is_ok() {
            lchown(&path, Some(plan.uid), Some(plan.gid))?;
        }
    }
    Ok(())
}

/// Makes a folder read-only but for what is in it.
fn fence(home: &Path, below: &str) -> io::Result<()> {
    let opened = mounts::place(home).and_then(|home| open(&home, Path::new(below)));
    let folder = match opened {
        Err(e) if is_missing(&e) => return Ok(()),
        folder => folder?,
    };
    if !mounts::is_directory(&folder)? {
        return Ok(());
    }
    let entries = names(&folder)?;
    // Copies of the entries are taken before, when they are still writable.
    let mut writable = Vec::new();
    for name in entries {
        let name = Path::new(&name);
        let entry = match open(&folder, name) {
            Err(e) if is_missing(&e) => continue,
            entry => entry?,
        };
        let dotted = name.as_os_str().as_bytes().starts_with(b".");
        if mounts::is_directory(&entry)? || (mounts::is_file(&entry)? && !(dotted && below.is_empty())) {
            writable.push((name.to_path_buf(), sys::clone_tree(folder.as_fd(), &c_path(name)?, true)?));
        }
    }
    let fenced = mounts::pin(folder.as_fd(), true)?;
    for (name, copy) in writable {
        match open(&fenced, &name) {
            // Renamed or removed meanwhile, by a program outside: then it is covered by the fence alone.
            Err(e) if is_missing(&e) => {}
            entry => sys::attach(copy.as_fd(), entry?.as_fd()).or_else(|e| match e.raw_os_error() {
                // Replaced by something of another kind meanwhile.
                Some(libc::EINVAL | libc::ENOENT | libc::ENOTDIR) => Ok(()),
                _ => Err(e),
            })?,
        }
    }
    Ok(())
}

/// Does something to what is at a path below the home, or to what a link there leads to within the home.
fn treat(home: &OwnedFd, path: &Path, below: &Path, act: impl Fn(&OwnedFd) -> io::Result<()>) -> io::Result<()> {
    match open(home, below) {
        Err(e) if is_missing(&e) => Ok(()),
        place => {
            let place = place?;
            if mounts::is_link(&place)? { treat_link(home, path, below, act) } else { act(&place) }
        }
    }
}

/// Does something to what a link below the home leads to. Folders on the way there are made mount points, so that they
/// can't be renamed and made anew. A link that leads out of the home is left alone: what it leads to is no part of it.
fn treat_link(home: &OwnedFd, path: &Path, below: &Path, act: impl Fn(&OwnedFd) -> io::Result<()>) -> io::Result<()> {
    if fs::symlink_metadata(path.join(below)).map_or(true, |link| !link.is_symlink()) {
        return Ok(());
    }
    let Ok(target) = fs::canonicalize(path.join(below)) else { return Ok(()) };
    let Ok(within) = target.strip_prefix(path) else { return Ok(()) };
    let mut folder = PathBuf::new();
    for component in within.parent().into_iter().flat_map(Path::components) {
        folder.push(component);
        match open(home, &folder) {
            Err(e) if is_missing(&e) => return Ok(()),
            place => mounts::pin(place?.as_fd(), false).map(drop)?,
        }
    }
    match open(home, within) {
        Err(e) if is_missing(&e) => Ok(()),
        place => {
            let place = place?;
            if mounts::is_link(&place)? { Ok(()) } else { act(&place) }
        }
    }
}

/// Opens a place below a directory, which no link on the way may leave; a link as the last component is opened itself.
fn open(dir: &OwnedFd, below: &Path) -> io::Result<OwnedFd> {
    if below.as_os_str().is_empty() {
        return dir.try_clone();
    }
    let (parent, name) = (below.parent().unwrap_or(Path::new("")), below.file_name().unwrap_or(OsStr::new(".")));
    let parent = match parent.as_os_str().is_empty() {
        true => dir.try_clone()?,
        false => sys::open_place(dir.as_fd(), &c_path(parent)?, resolve::BENEATH)?,
    };
    sys::open_place(parent.as_fd(), &c_path(Path::new(name))?, 0)
}

/// The names in a directory.
fn names(dir: &OwnedFd) -> io::Result<Vec<std::ffi::OsString>> {
    let path = Path::new("/proc/self/fd").join(std::os::fd::AsRawFd::as_raw_fd(dir).to_string());
    fs::read_dir(path)?.map(|entry| Ok(entry?.file_name())).collect()
}
