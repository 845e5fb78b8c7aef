//! The channels that people are told by, `[[notify]]`.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use nix::unistd::{Uid, User};

use super::super::raw::{At, RawNotify};
use super::super::{Form, Identities, NotifySettings, NotifyWay, Occasion, Place, is_post_url};
use super::Resolver;

/// The group of a user without an account: the kernel's own for what belongs to nobody.
const NOGROUP: u32 = 65_534;

impl Resolver<'_> {
    pub(super) fn notify(&mut self, raw: &[RawNotify], identities: &Identities) -> Vec<NotifySettings> {
        let mut names = HashSet::new();
        raw.iter().filter_map(|raw| self.channel(raw, identities, &mut names)).collect()
    }

    fn channel(
        &mut self,
        raw: &RawNotify,
        identities: &Identities,
        names: &mut HashSet<String>,
    ) -> Option<NotifySettings> {
        let name = self.name(&raw.name, "channel", names);
        let way = match raw.kind.value().as_str() {
            "webhook" => self.post(raw, Form::Webhook),
            "slack" => self.post(raw, Form::Slack),
            "teams" => self.post(raw, Form::Teams),
            "command" => self.hook(raw),
            other => {
                let message = format!("`{other}` isn't a kind of channel");
                self.wrong(raw.kind.span(), message, "`webhook`, `slack`, `teams` or `command`");
                None
            }
        };
        let on = self.occasions(raw.on.as_ref());
        let groups = raw.groups.as_ref().map(|at| self.groups(at, identities));
        Some(NotifySettings { name: name?, way: way?, on, groups })
    }

    fn post(&mut self, raw: &RawNotify, form: Form) -> Option<NotifyWay> {
        self.idle(raw, "command", raw.command.as_ref());
        self.idle(raw, "user", raw.user.as_ref());
        let ca = raw.ca.as_ref().map(|at| self.path(Some(at), PathBuf::new));
        let secret = raw.secret_file.as_ref().map(|at| self.path(Some(at), PathBuf::new));
        match (form, &raw.secret_file) {
            (Form::Webhook, None) => {
                let expected = "as in `secret_file = \"/etc/interceptor/hook.secret\"`: receivers verify the signature";
                self.wrong(raw.kind.span(), "the webhook has no `secret_file`", expected);
            }
            (Form::Slack | Form::Teams, file) => self.idle(raw, "secret_file", file.as_ref()),
            (Form::Webhook, Some(_)) => {}
        }
        let place = match (&raw.url, &raw.url_file) {
            (Some(at), None) => {
                if !is_post_url(at.value()) {
                    // Not shown: such URLs are secrets.
                    let expected = "as in `https://hooks.example.com/interceptor`, without a user in it";
                    self.wrong(at.span(), "the channel's URL can't be used", expected);
                    return None;
                }
                Place::Url(at.value().clone())
            }
            (None, Some(at)) => Place::File(self.path(Some(at), PathBuf::new)),
            _ => {
                self.wrong(raw.kind.span(), "where it posts to isn't clear", "either `url` or `url_file`");
                return None;
            }
        };
        Some(NotifyWay::Post { form, place, secret, ca })
    }

    fn hook(&mut self, raw: &RawNotify) -> Option<NotifyWay> {
        for (key, at) in
            [("url", &raw.url), ("url_file", &raw.url_file), ("secret_file", &raw.secret_file), ("ca", &raw.ca)]
        {
            self.idle(raw, key, at.as_ref());
        }
        let Some(command) = &raw.command else {
            let expected = "as in `command = [\"/usr/local/bin/tell\"]`";
            self.wrong(raw.kind.span(), "the channel has no `command`", expected);
            return None;
        };
        let words: Vec<String> = command.value().iter().map(|word| word.value().clone()).collect();
        let program = words.first().is_some_and(|program| Path::new(program).is_absolute());
        if !program || words.iter().any(|word| word.contains('\0')) {
            let expected = "the absolute path of a program and its arguments; there is no shell";
            self.wrong(command.span(), "the command has no program", expected);
        }
        let Some(user) = &raw.user else {
            let expected = "as in `user = \"nobody\"`: an unprivileged user";
            self.wrong(raw.kind.span(), "the command has no `user`", expected);
            return None;
        };
        let (uid, gid) = self.unprivileged(user)?;
        Some(NotifyWay::Command { words, uid, gid })
    }

    /// A user and his group, neither of them root's.
    fn unprivileged(&mut self, at: &At<String>) -> Option<(u32, u32)> {
        let name = at.value();
        let number = name.parse::<u32>().ok();
        let account = match number {
            Some(uid) => User::from_uid(Uid::from_raw(uid)),
            None => User::from_name(name),
        };
        let account = account.ok().flatten().map(|user| (user.uid.as_raw(), user.gid.as_raw()));
        let found = account.or_else(|| number.map(|uid| (uid, NOGROUP)));
        match found {
            // The last value stands for "no user" in the kernel's calls.
            Some((uid, gid)) if uid != 0 && gid != 0 && uid != u32::MAX => return found,
            Some(_) => {
                let message = format!("`{name}` is root, or in its group");
                self.wrong(at.span(), message, "an unprivileged user, such as `nobody`");
            }
            None => {
                let message = format!("there is no user `{name}` on this host");
                self.wrong(at.span(), message, "a name that `getent passwd` knows, or a uid");
            }
        }
        None
    }

    fn occasions(&mut self, at: Option<&At<Vec<At<String>>>>) -> Vec<Occasion> {
        let Some(list) = at else { return Occasion::ALL.to_vec() };
        let all = || Occasion::ALL.iter().map(|one| format!("`{one}`")).collect::<Vec<_>>().join(", ");
        if list.value().is_empty() {
            self.wrong(list.span(), "the channel would be told nothing", all());
        }
        let mut on = Vec::new();
        for at in list.value() {
            match at.value().parse::<Occasion>() {
                Ok(occasion) => on.push(occasion),
                Err(()) => self.wrong(at.span(), format!("`{}` isn't an occasion", at.value()), all()),
            }
        }
        on
    }

    fn groups(&mut self, list: &At<Vec<At<String>>>, identities: &Identities) -> Vec<String> {
        if list.value().is_empty() {
            self.wrong(list.span(), "the list is empty", "at least one group of `[approvers]`");
        }
        for at in list.value() {
            if !identities.approvers.contains_key(at.value()) {
                let message = format!("`{}` isn't in `[approvers]`", at.value());
                self.wrong(at.span(), message, "a group that is listed there");
            }
        }
        list.value().iter().map(|at| at.value().clone()).collect()
    }

    /// Notes a key that another kind of channel has.
    fn idle<T>(&mut self, raw: &RawNotify, key: &str, at: Option<&At<T>>) {
        if let Some(at) = at {
            let message = format!("`{key}` says nothing to a channel of the kind `{}`", raw.kind.value());
            self.wrong(at.span(), message, "remove it: it would have no effect");
        }
    }
}
