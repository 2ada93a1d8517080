//! Broken files, each with the exact text of its error.

use std::os::unix::fs::PermissionsExt;

use super::*;

/// The whole chain of an error, with the folder left out.
fn shown(error: &dyn std::error::Error, folder: &Path) -> String {
    error.to_string().replace(folder.to_str().unwrap(), "DIR")
}

#[tokio::test]
async fn a_broken_database_says_what_it_is_and_what_to_do() {
    type Break = fn(&Fixture, &Path);
    let table: [(&str, Break, &str); 11] = [
        (
            "missing",
            |_, _| {},
            "DIR/missing: no such vault: make one with `clawcoil init`, or name the file that has it",
        ),
        (
            "empty",
            |_, path| std::fs::write(path, "").unwrap(),
            "DIR/empty: not a vault of ClawCoil (it is empty): name the right file, or restore it from a backup",
        ),
        (
            "folder",
            |_, path| std::fs::create_dir(path).unwrap(),
            "DIR/folder: not a vault of ClawCoil (it is not a file): name the right file, or restore it from a backup",
        ),
        (
            "garbage",
            |_, path| std::fs::write(path, vec![0x5a; 8192]).unwrap(),
            "DIR/garbage: not a vault of ClawCoil (it is not an SQLite database): name the right file, or restore it from a backup",
        ),
        (
            "truncated",
            |f, path| {
                f.intruder().execute("VACUUM INTO ?1", [path.to_str()]).unwrap();
                let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
                file.set_len(4096 * 3).unwrap();
            },
            "DIR/truncated: the database is damaged: restore it from a backup (keep this file; `sqlite3 FILE .recover` may save rows)",
        ),
        (
            "foreign",
            |_, path| rusqlite::Connection::open(path).unwrap().execute_batch("CREATE TABLE t (x)").unwrap(),
            "DIR/foreign: not a vault of ClawCoil (it is the SQLite database of another program): name the right file, or restore it from a backup",
        ),
        (
            "newer",
            |f, path| {
                f.intruder().execute("VACUUM INTO ?1", [path.to_str()]).unwrap();
                rusqlite::Connection::open(path).unwrap().execute_batch("PRAGMA user_version = 99").unwrap();
            },
            "DIR/newer: the vault has schema 99, and this program knows up to 2: use the newer version that wrote it",
        ),
        (
            "no-vault",
            |f, path| {
                f.intruder().execute("VACUUM INTO ?1", [path.to_str()]).unwrap();
                rusqlite::Connection::open(path).unwrap().execute_batch("DELETE FROM seals").unwrap();
            },
            "DIR/no-vault: not a vault of ClawCoil (it holds no vault): name the right file, or restore it from a backup",
        ),
        (
            "seal",
            |f, path| {
                f.intruder().execute("VACUUM INTO ?1", [path.to_str()]).unwrap();
                rusqlite::Connection::open(path).unwrap().execute_batch("UPDATE seals SET wrapped = x'01'").unwrap();
            },
            "DIR/seal: the root key of the vault can't be unwrapped for AGENT: restore the database from a backup, or use the recovery key",
        ),
        (
            "check",
            |f, path| {
                f.intruder().execute("VACUUM INTO ?1", [path.to_str()]).unwrap();
                rusqlite::Connection::open(path)
                    .unwrap()
                    .execute_batch("UPDATE vaults SET check_record = x'43'")
                    .unwrap();
            },
            "DIR/check: the root key does not fit this vault's check record: its rows come from different databases, or were edited: restore it from a backup",
        ),
        (
            "no-table",
            |f, path| {
                f.intruder().execute("VACUUM INTO ?1", [path.to_str()]).unwrap();
                rusqlite::Connection::open(path).unwrap().execute_batch("DROP TABLE keys").unwrap();
            },
            "DIR/no-table: can't read a key: the database refused it",
        ),
    ];
    let f = Fixture::new().await;
    f.connect("alice", "google").await;
    for (name, break_it, expected) in table {
        let path = f.folder.path().join(name);
        break_it(&f, &path);
        let error = Vault::open(&path, &f.identity, Arc::new(f.clock.clone())).await.unwrap_err();
        let text = shown(&error, f.folder.path()).replace(&f.identity.agent_id().to_string(), "AGENT");
        assert_eq!(text, expected, "{name}");
    }
}

#[tokio::test]
async fn a_value_that_was_edited_is_named() {
    let f = Fixture::new().await;
    let c = f.connect("alice", "google").await;
    let end = "was edited or damaged: restore it from a backup, or disconnect and connect again";
    for (set, column) in [
        ("provider = 'Not A Name'", "provider"),
        ("account = ''", "account"),
        ("kind = 'magic'", "kind"),
        ("scopes = 'a\"b'", "scopes"),
        ("api_origin = 'nowhere'", "api_origin"),
        ("state = 'asleep'", "state"),
        ("generation = -1", "generation"),
        ("created_at = 9223372036854775807", "created_at"),
    ] {
        let copy = f.folder.path().join(format!("{column}.db"));
        f.intruder().execute("VACUUM INTO ?1", [copy.to_str()]).unwrap();
        rusqlite::Connection::open(&copy).unwrap().execute_batch(&format!("UPDATE connections SET {set}")).unwrap();
        let vault = Vault::open(&copy, &f.identity, Arc::new(f.clock.clone())).await.unwrap();
        let error = vault.connections(Some(&user("alice"))).unwrap_err().to_string();
        assert_eq!(
            error,
            format!("the database has a {column} in table connections that is not valid: connection {} {end}", c.id)
        );
    }
}

#[tokio::test]
async fn any_truncation_or_stamped_page_of_the_file_is_an_error_or_the_right_token() {
    let f = Fixture::new().await;
    let c = f.connect("alice", "google").await;
    let copy = f.folder.path().join("copy.db");
    f.intruder().execute("VACUUM INTO ?1", [copy.to_str()]).unwrap();
    let whole = std::fs::read(&copy).unwrap();
    std::fs::remove_file(&copy).unwrap();
    let try_it = async |name: String, bytes: &[u8]| {
        let path = f.folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let Ok(vault) = Vault::open(&path, &f.identity, Arc::new(f.clock.clone())).await else { return };
        if let Ok(token) = read(&vault, "alice", "google", c.id) {
            assert_eq!(token, "access-alice-google");
        }
    };
    for length in (0..whole.len()).step_by(1531) {
        try_it(format!("cut-{length}"), &whole[..length]).await;
    }
    for at in (0..whole.len()).step_by(509) {
        let mut bad = whole.clone();
        let end = (at + 16).min(bad.len());
        bad[at..end].fill(0xa5);
        try_it(format!("stamp-{at}"), &bad).await;
    }
}

#[tokio::test]
async fn the_files_are_for_their_owner_only() {
    let folder = tempfile::tempdir().unwrap();
    let identity = new_identity(folder.path(), "agent");
    let path = folder.path().join("deep/er/vault.db");
    let vault = Vault::create(&path, &identity, &Recovery::none(), Arc::new(SystemClock::new())).await.unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    for entry in std::fs::read_dir(path.parent().unwrap()).unwrap() {
        let entry = entry.unwrap().path();
        assert_eq!(mode(&entry), 0o600, "{}", entry.display());
    }
    drop(vault);
}
