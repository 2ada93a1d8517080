//! Whether the process that began a call still runs.
//!
//! Each process that keeps calls holds the lock of a file of its own (`processes/NAME` in the home). The system lets go of the lock
//! when the process is gone, however it ended: a killed process can't be taken for one that is slow.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// Where the files are, in the home.
const FOLDER: &str = "processes";

/// This process, as others see it, until the value is dropped.
#[derive(Debug)]
pub(super) struct Process {
    name: String,
    path: PathBuf,
    /// Its lock is what others look at.
    _file: File,
}

impl Process {
    /// Shows others that a process of this name runs: hexadecimal digits, drawn at random.
    pub(super) fn begin(home: &Path, name: String) -> io::Result<Self> {
        let folder = home.join(FOLDER);
        fs::create_dir_all(&folder)?;
        let path = folder.join(&name);
        // Whoever finds the file finds it locked.
        let new = folder.join(format!(".{name}"));
        let file = File::create_new(&new)?;
        file.try_lock().map_err(io::Error::from)?;
        fs::rename(&new, &path)?;
        Ok(Self { name, path, _file: file })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that stays is seen to be of a process that is gone.
        let _ = fs::remove_file(&self.path);
    }
}

/// Whether a process of this name runs. Where that can't be found out, it is taken to.
pub(super) fn is_alive(home: &Path, name: &str) -> bool {
    let path = home.join(FOLDER).join(name);
    let file = match File::open(&path) {
        Err(error) => return error.kind() != io::ErrorKind::NotFound,
        Ok(file) => file,
    };
    match file.try_lock_shared() {
        Ok(()) => {
            let _ = fs::remove_file(&path);
            false
        }
        Err(TryLockError::WouldBlock | TryLockError::Error(_)) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_alive_until_it_lets_go_of_its_lock() {
        let home = tempfile::tempdir().unwrap();
        assert!(!is_alive(home.path(), "aa"), "there was never one");
        let process = Process::begin(home.path(), "aa".to_owned()).unwrap();
        assert!(is_alive(home.path(), "aa") && is_alive(home.path(), "aa"));
        let path = process.path.clone();
        drop(process);
        assert!(!is_alive(home.path(), "aa") && !path.exists());
    }

    #[test]
    fn the_file_of_a_killed_process_does_not_keep_it_alive() {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join(FOLDER)).unwrap();
        fs::write(home.path().join(FOLDER).join("bb"), "").unwrap();
        assert!(!is_alive(home.path(), "bb"));
        assert!(!home.path().join(FOLDER).join("bb").exists(), "nothing is left lying about");
    }
}
