//! Files that are damaged anywhere. What is said about them is held by the golden texts.

use std::os::unix::fs::PermissionsExt;

use super::*;

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
