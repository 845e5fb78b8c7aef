//! The drop-in that puts a unit of systemd under control: in our slice, with what its clients need to trust us, without
//! privileges, and not without the daemon.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Where systemd looks for what the administrator adds to units (systemd.unit(5)).
const UNITS: &str = "/etc/systemd/system";

/// The drop-in's file name, which sorts behind what others add, `override.conf` of `systemctl edit` among it.
const FILE: &str = "zzz-interceptor.conf";

/// What it was called before.
const EARLIER: &str = "90-interceptor.conf";

/// Variables that name what to trust instead of the host's store.
const REPLACING: [&str; 10] = [
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "PIP_CERT",
    "NPM_CONFIG_CAFILE",
    "CARGO_HTTP_CAINFO",
    "AWS_CA_BUNDLE",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "HTTPLIB2_CA_CERTS",
];

/// Variables that name what to trust besides.
const ADDING: [&str; 2] = ["NODE_EXTRA_CA_CERTS", "DENO_CERT"];

/// Why there is no drop-in.
#[derive(Debug, thiserror::Error)]
pub enum UnitError {
    /// The name isn't a service's.
    #[error("`{0}` isn't a service of systemd; name it in full, as in `crm-mcp.service`")]
    Name(String),
    /// The file can't be written or removed.
    #[error("`{}` can't be changed: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// The drop-in of a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DropIn {
    /// Where it is.
    pub path: PathBuf,
    /// What it says.
    pub text: String,
}

impl DropIn {
    /// The drop-in of a unit, below `root` (`/` but for tests). `bundle` is the host's store with our authority, `authority`
    /// our authority alone.
    ///
    /// # Errors
    /// [`UnitError::Name`].
    pub fn new(root: &Path, unit: &str, bundle: &Path, authority: &Path) -> Result<Self, UnitError> {
        let plain = |name: &str| {
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.@:\\".contains(&byte))
        };
        if !unit.strip_suffix(".service").is_some_and(plain) {
            return Err(UnitError::Name(unit.into()));
        }
        let folder = root.join(UNITS.trim_start_matches('/')).join(format!("{unit}.d"));
        Ok(Self { path: folder.join(FILE), text: text(bundle, authority) })
    }

    /// Whether the file is there as it should be, and none of an earlier name.
    pub fn is_written(&self) -> bool {
        fs::read_to_string(&self.path).is_ok_and(|text| text == self.text) && !self.earlier().exists()
    }

    /// Whether there is a file, whatever it says.
    pub fn is_there(&self) -> bool {
        self.path.exists() || self.earlier().exists()
    }

    /// Writes the file, as a whole or not at all, in place of one of an earlier name.
    ///
    /// # Errors
    /// [`UnitError::File`].
    pub fn write(&self) -> Result<(), UnitError> {
        let failed = |error| UnitError::File { path: self.path.clone(), error };
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(folder).map_err(failed)?;
        let new = folder.join(".zzz-interceptor.conf.new");
        fs::write(&new, &self.text).map_err(failed)?;
        fs::set_permissions(&new, fs::Permissions::from_mode(0o644)).map_err(failed)?;
        fs::rename(&new, &self.path).map_err(failed)?;
        remove(self.earlier()).map(drop)
    }

    /// Removes the file, and its folder if nothing else is in it. Whether it was there.
    ///
    /// # Errors
    /// [`UnitError::File`].
    pub fn remove(&self) -> Result<bool, UnitError> {
        let was_there = remove(self.path.clone())? | remove(self.earlier())?;
        if was_there {
            // Others may have something in it.
            let _ = self.path.parent().map(fs::remove_dir);
        }
        Ok(was_there)
    }

    fn earlier(&self) -> PathBuf {
        self.path.with_file_name(EARLIER)
    }
}

/// Removes a file. Whether it was there.
fn remove(path: PathBuf) -> Result<bool, UnitError> {
    match fs::remove_file(&path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(UnitError::File { path, error }),
    }
}

fn text(bundle: &Path, authority: &Path) -> String {
    let mut text = String::from(
        "# Written by `interceptor adopt`; `interceptor release` removes it.\n\
         [Unit]\n\
         # It isn't started before the daemon serves, and goes on when the daemon is started again.\n\
         Requires=interceptor-anchor.service\n\
         Wants=interceptor.service\n\
         After=interceptor.service interceptor-anchor.service\n\
         \n\
         [Service]\n\
         # One place for all that is under control.\n\
         Slice=interceptor.slice\n",
    );
    let mut line = |words: String| {
        text.push_str(&words);
        text.push('\n');
    };
    line("# Clients trust what the daemon answers them with.".into());
    REPLACING.iter().for_each(|name| line(format!("Environment={name}={}", bundle.display())));
    ADDING.iter().for_each(|name| line(format!("Environment={name}={}", authority.display())));
    line("# No way to more than an unprivileged user may.".into());
    line("NoNewPrivileges=yes".into());
    line("CapabilityBoundingSet=".into());
    line("AmbientCapabilities=".into());
    line("Delegate=no".into());
    line("# No sockets but those that the hooks see.".into());
    line("RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK".into());
    line("SystemCallArchitectures=native".into());
    line("SystemCallFilter=~io_uring_setup io_uring_enter io_uring_register".into());
    text
}

#[cfg(test)]
mod tests;
