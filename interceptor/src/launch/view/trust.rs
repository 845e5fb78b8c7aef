//! Where programs look for certificates: the host's bundles, and those of the Python environment that the command runs in.
//! Each is covered with the bundle that holds the host's roots and ours.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::mounts::{self, cover_with, is_missing};
use crate::launch::environment::{self, BUNDLE};
use crate::launch::plan::{Plan, planned_path};

/// The host's bundles, by distribution.
const BUNDLES: [&str; 8] = [
    "/etc/ssl/certs/ca-certificates.crt",                // Debian, Arch, Alpine
    "/etc/ssl/cert.pem",                                 // Alpine, Arch
    "/etc/ssl/ca-bundle.pem",                            // SUSE
    "/var/lib/ca-certificates/ca-bundle.pem",            // SUSE
    "/etc/pki/tls/certs/ca-bundle.crt",                  // Fedora
    "/etc/pki/tls/cert.pem",                             // Fedora
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // Fedora
    "/usr/lib/ssl/cert.pem",                             // OpenSSL's default on Debian
];

/// Bundles in a Python environment's packages.
const PYTHON_BUNDLES: [&str; 3] = ["certifi/cacert.pem", "pip/_vendor/certifi/cacert.pem", "botocore/cacert.pem"];

/// How many bytes of a script may name its interpreter (the kernel's BINPRM_BUF_SIZE).
const HEADER_BYTES: u64 = 256;

/// Covers what is there.
pub(super) fn place(plan: &Plan) -> io::Result<()> {
    let mut covered = Vec::new();
    for path in BUNDLES.iter().map(PathBuf::from).chain(python_bundles(plan)) {
        let Ok(real) = fs::canonicalize(&path) else { continue };
        if covered.contains(&real) || real == Path::new(BUNDLE) {
            continue;
        }
        let place = match mounts::place(&real) {
            Err(e) if is_missing(&e) => continue,
            place => place?,
        };
        if mounts::is_file(&place)? {
            cover_with(Path::new(BUNDLE), &place)?;
        }
        covered.push(real);
    }
    Ok(())
}

/// The bundles that may be in the command's Python environments.
fn python_bundles(plan: &Plan) -> Vec<PathBuf> {
    let mut prefixes: Vec<PathBuf> = vec!["/usr".into(), "/usr/local".into()];
    prefixes.extend(environment::value(&plan.env, "VIRTUAL_ENV").map(planned_path));
    for program in find(plan).into_iter().flat_map(|command| [interpreter(&command), Some(command)]).flatten() {
        let real = fs::canonicalize(&program).ok();
        // PREFIX/bin/program, where the program may be a link to another environment's.
        let places = [Some(program), real].into_iter().flatten();
        prefixes.extend(places.filter_map(|place| Some(place.parent()?.parent()?.to_path_buf())));
    }
    prefixes.sort();
    prefixes.dedup();
    let packages = prefixes.iter().flat_map(|prefix| package_folders(&prefix.join("lib")));
    packages.flat_map(|folder| PYTHON_BUNDLES.map(|bundle| folder.join(bundle))).collect()
}

/// LIB/python3…/site-packages, and Debian's dist-packages.
fn package_folders(lib: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(lib).into_iter().flatten().flatten();
    let pythons = entries.filter(|entry| entry.file_name().as_bytes().starts_with(b"python3"));
    pythons.flat_map(|entry| ["site-packages", "dist-packages"].map(|name| entry.path().join(name))).collect()
}

/// The command's file, as PATH has it.
fn find(plan: &Plan) -> Option<PathBuf> {
    let name = planned_path(plan.argv.first()?);
    let cwd = planned_path(&plan.cwd.path);
    if name.as_os_str().as_bytes().contains(&b'/') {
        return Some(cwd.join(name));
    }
    let path = environment::value(&plan.env, "PATH")?;
    let places = path.split(|&byte| byte == b':').map(|place| cwd.join(OsStr::from_bytes(place)).join(&name));
    places.into_iter().find(|place| place.is_file())
}

/// The interpreter that a script's first line names.
fn interpreter(script: &Path) -> Option<PathBuf> {
    // The file is the caller's: it may be a pipe by now.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(script).ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut header = Vec::new();
    file.take(HEADER_BYTES).read_to_end(&mut header).ok()?;
    let line = header.strip_prefix(b"#!")?.split(|&byte| byte == b'\n').next()?;
    let name = line.split(|byte| byte.is_ascii_whitespace()).find(|word| !word.is_empty())?;
    Some(PathBuf::from(OsStr::from_bytes(name)))
}
