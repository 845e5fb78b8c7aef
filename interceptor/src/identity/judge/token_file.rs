//! The file that a workload's platform projects a token into, and replaces when that is renewed.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::config::IdentitySource;

/// The most bytes of a token file.
const MOST_TOKEN_FILE: u64 = 64 * 1024;

/// How long the token before counts.
const REPLACED: Duration = Duration::from_secs(120);

/// Whether a workload's token file holds this token now. The file is small and local.
pub(super) fn holds(source: &IdentitySource, token: &str) -> bool {
    let IdentitySource::TokenFile(path) = source else { return false };
    read(path).is_some_and(|own| own.trim() == token)
}

/// Whether another token was put into the file just now: who reads it once a minute has the one before still, which the
/// platform lets it use.
pub(super) fn was_just_replaced(source: &IdentitySource) -> bool {
    let IdentitySource::TokenFile(path) = source else { return false };
    let changed = std::fs::metadata(path).and_then(|file| file.modified()).ok();
    changed.and_then(|changed| changed.elapsed().ok()).is_some_and(|age| age < REPLACED)
}

/// Links are followed: what Kubernetes projects is one. Whoever may write to the folder could put a pipe there, which
/// nobody is to wait for.
fn read(path: &Path) -> Option<Zeroizing<String>> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut text = Zeroizing::new(String::new());
    file.take(MOST_TOKEN_FILE).read_to_string(&mut text).ok()?;
    Some(text)
}
