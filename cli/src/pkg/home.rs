//! The home: the folder of a publisher's key pair, registry and store.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
};

use anyhow::Context;
use kadence_tokio::{Identity, kadence::libp2p::identity::Keypair};

use crate::exit::Failure;

/// Folder of one publisher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Home(PathBuf);

impl Home {
    /// Returns the given folder, or the default one.
    ///
    /// # Errors
    ///
    /// If none was given and the system has no folder for the data of programs.
    pub(super) fn find(given: Option<PathBuf>) -> Result<Self, Failure> {
        let found = given.or_else(|| default_home(|name| env::var_os(name), env::home_dir()));
        Ok(Self(found.context("no home folder is known: use --home DIR")?))
    }

    /// Returns the key pair. Creates it if it does not exist.
    ///
    /// # Errors
    ///
    /// If its file can be neither read nor created.
    pub(super) fn keypair(&self) -> Result<Keypair, Failure> {
        Ok(Identity::File(self.0.join("node.key")).load()?)
    }

    pub(super) fn registry(&self) -> PathBuf {
        self.0.join("registry")
    }

    /// Returns the file in which a node keeps records and providers for others.
    pub(super) fn store(&self) -> PathBuf {
        self.0.join("store")
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

fn default_home(variable: impl Fn(&str) -> Option<OsString>, user: Option<PathBuf>) -> Option<PathBuf> {
    let variable = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(home) = variable("KADENCE_HOME") {
        return Some(home);
    }
    // The XDG Base Directory Specification says that relative paths are ignored.
    let data = variable("XDG_DATA_HOME").filter(|path| path.is_absolute());
    let data = if cfg!(windows) {
        data.or_else(|| variable("APPDATA"))
    } else if cfg!(target_os = "macos") {
        data.or_else(|| user.map(|user| user.join("Library").join("Application Support")))
    } else {
        data.or_else(|| user.map(|user| user.join(".local").join("share")))
    };
    data.map(|data| data.join("kadence"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(all(unix, not(target_os = "macos")))]
    #[test]
    fn the_default_home_is_the_first_that_is_set() {
        let with = |variables: &'static [(&'static str, &'static str)], user: Option<&str>| {
            let value = move |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
            default_home(value, user.map(PathBuf::from))
        };
        let all = &[("KADENCE_HOME", "mine"), ("XDG_DATA_HOME", "/data")];
        assert_eq!(with(all, Some("/home/me")), Some("mine".into()));
        assert_eq!(with(&[("KADENCE_HOME", ""), ("XDG_DATA_HOME", "/data")], None), Some("/data/kadence".into()));
        let relative = &[("XDG_DATA_HOME", "data")];
        assert_eq!(with(relative, Some("/home/me")), Some("/home/me/.local/share/kadence".into()));
        assert_eq!(with(&[], None), None);
    }

    #[test]
    fn the_key_pair_is_created_once() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::find(Some(folder.path().join("new"))).unwrap();
        let first = home.keypair().unwrap().public();
        assert_eq!(home.keypair().unwrap().public(), first);
        assert!(home.path().join("node.key").is_file());
    }
}
