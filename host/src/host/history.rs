//! The permissions that were in force, by the hash under which the audit log names them.
//!
//! They are kept for people who ask what a change comes to, or what was in force when something was decided. Nothing is decided by
//! them.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::Home;
use crate::clock::Timestamp;
use crate::diagnostic::Source;
use crate::id::Digest;

/// So many policies are kept; the oldest goes first.
const MOST_KEPT: usize = 100;

/// A file of permissions as it was.
#[derive(serde::Serialize, serde::Deserialize)]
struct Kept {
    name: String,
    text: String,
}

impl Home {
    /// Permissions that were in force, a file each.
    fn policies(&self) -> PathBuf {
        self.folder().join("policies")
    }

    /// Keeps what came into force. A home where that can't be written loses the history and nothing else.
    pub(super) fn keep_policy(&self, hash: Digest, sources: &[Source], now: Timestamp) {
        if let Err(error) = self.try_keep(hash, sources, now) {
            tracing::warn!(%error, "the permissions in force are not kept for later comparisons");
        }
    }

    fn try_keep(&self, hash: Digest, sources: &[Source], now: Timestamp) -> io::Result<()> {
        let folder = self.policies();
        let path = folder.join(file_name(hash));
        let now = u64::try_from(now.as_millisecond()).map(Duration::from_millis).unwrap_or_default();
        let now = SystemTime::UNIX_EPOCH + now;
        // The time of a file is when its policy came into force last.
        if let Ok(file) = fs::File::options().append(true).open(&path) {
            return file.set_modified(now);
        }
        fs::create_dir_all(&folder)?;
        let kept: Vec<Kept> =
            sources.iter().map(|s| Kept { name: s.name().to_owned(), text: s.text().to_owned() }).collect();
        let new = folder.join(format!(".new-{}-{}", std::process::id(), file_name(hash)));
        fs::write(&new, serde_json::to_vec(&kept)?)?;
        fs::File::options().append(true).open(&new)?.set_modified(now)?;
        fs::rename(&new, &path)?;
        for (old, ..) in self.kept()?.into_iter().skip(MOST_KEPT) {
            fs::remove_file(old)?;
        }
        Ok(())
    }

    /// The files, the latest first.
    fn kept(&self) -> io::Result<Vec<(PathBuf, SystemTime)>> {
        let entries = match fs::read_dir(self.policies()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut kept = Vec::new();
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let path = entry.path();
            let is_json = path.extension().is_some_and(|ending| ending == "json");
            if is_json && name.to_str().is_some_and(|name| !name.starts_with('.')) {
                kept.push((path, entry.metadata()?.modified()?));
            }
        }
        kept.sort_by(|(a, at), (b, bt)| bt.cmp(at).then_with(|| a.cmp(b)));
        Ok(kept)
    }

    /// The permissions that came into force last, in whichever process; `None` where none are kept.
    pub fn last_policy(&self) -> io::Result<Option<Vec<Source>>> {
        self.kept()?.first().map(|(path, _)| read(path)).transpose()
    }

    /// The permissions that were in force under this hash, or the beginning of one, as the audit log has it: `sha256:…`. `None`
    /// where they are not kept, or several hashes begin so.
    pub fn policy_of(&self, hash: &str) -> io::Result<Option<Vec<Source>>> {
        let beginning = hash.strip_prefix("sha256:").unwrap_or(hash);
        let kept = self.kept()?;
        let named = |path: &PathBuf| {
            path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(beginning))
        };
        let mut found = kept.iter().map(|(path, _)| path).filter(|path| named(path));
        match (found.next(), found.next()) {
            (Some(path), None) => read(path).map(Some),
            _ => Ok(None),
        }
    }
}

fn file_name(hash: Digest) -> String {
    format!("{}.json", hex::encode(hash.as_bytes()))
}

fn read(path: &PathBuf) -> io::Result<Vec<Source>> {
    let kept: Vec<Kept> = serde_json::from_slice(&fs::read(path)?)?;
    Ok(kept.into_iter().map(|kept| Source::new(kept.name, kept.text)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_policy_is_the_one_that_came_into_force_last_and_old_ones_go() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path());
        assert!(home.last_policy().unwrap().is_none());
        let at = |second: i64| Timestamp::from_second(1_800_000_000 + second).unwrap();
        let keep = |number: i64, second: i64| {
            let sources = [Source::new("permissions.toml", format!("# {number}"))];
            home.keep_policy(Digest::of(&number.to_be_bytes()), &sources, at(second));
        };
        let last = || home.last_policy().unwrap().unwrap()[0].text().to_owned();
        keep(0, 0);
        keep(1, 1);
        assert_eq!(last(), "# 1");
        keep(0, 2);
        assert_eq!(last(), "# 0", "it was put in force again");
        let hash = Digest::of(&1_i64.to_be_bytes()).to_string();
        for named in [&*hash, &hash[..20], &hash["sha256:".len()..]] {
            assert_eq!(home.policy_of(named).unwrap().unwrap()[0].text(), "# 1");
        }
        assert!(home.policy_of("sha256:").unwrap().is_none(), "several begin so");
        (2..150).for_each(|number| keep(number, 10 + number));
        assert_eq!(home.kept().unwrap().len(), MOST_KEPT);
        assert!(home.policy_of(&hash).unwrap().is_none());
        assert_eq!(last(), "# 149");
    }
}
