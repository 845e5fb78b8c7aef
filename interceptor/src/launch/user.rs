//! The user that a workload runs as: the caller, or the one that its `user` names. Never root.

use std::ffi::CString;
use std::path::PathBuf;

use nix::unistd::{Gid, Uid, User, getgrouplist};

use super::{Caller, LaunchError};
use crate::config::WorkloadSettings;

/// The user that a workload runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RunAs {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: Vec<u32>,
    /// The home that the user database names.
    pub(super) home: Option<PathBuf>,
    /// Name and shell, where the workload runs as another user than the caller, whose environment names the caller.
    pub(super) switched: Option<(String, PathBuf)>,
}

impl RunAs {
    /// Settles the user.
    pub(super) fn settle(settings: &WorkloadSettings, caller: &Caller) -> Result<Self, LaunchError> {
        let run_as = match &settings.user {
            Some(name) => Self::named(name)?,
            None => {
                let entry = User::from_uid(Uid::from_raw(caller.uid)).ok().flatten();
                Self {
                    uid: caller.uid,
                    gid: caller.gid,
                    groups: caller.groups.clone(),
                    home: entry.map(|user| user.dir),
                    switched: None,
                }
            }
        };
        if run_as.uid == 0 {
            return Err(LaunchError::User {
                message: format!("workload `{}` would run as root, which can't be contained", settings.name),
                next: "set `user = \"…\"` in its `[[workload]]`, or call `interceptor run` as an ordinary user",
            });
        }
        Ok(run_as)
    }

    fn named(name: &str) -> Result<Self, LaunchError> {
        let unknown = |message: String| LaunchError::User {
            message,
            next: "create it (`useradd --system`), or name another in the workload's `user`",
        };
        let user = User::from_name(name)
            .map_err(|e| unknown(format!("user `{name}` could not be looked up: {e}")))?
            .ok_or_else(|| unknown(format!("user `{name}` doesn't exist")))?;
        let groups = CString::new(name)
            .map_err(std::io::Error::from)
            .and_then(|name| Ok(getgrouplist(&name, user.gid)?))
            .map_err(|e| unknown(format!("the groups of user `{name}` could not be looked up: {e}")))?;
        Ok(Self {
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
            groups: groups.into_iter().map(Gid::as_raw).collect(),
            home: Some(user.dir),
            switched: Some((user.name, user.shell)),
        })
    }
}
