//! Who can write the database gets nothing that was not theirs.

use super::*;

const COLUMNS: [&str; 21] = [
    "id",
    "owner",
    "provider",
    "account",
    "kind",
    "scopes",
    "api_origin",
    "account_label",
    "token_type",
    "state",
    "reason",
    "since",
    "generation",
    "created_at",
    "last_used_at",
    "expires_at",
    "refresh_at",
    "grant_ends_at",
    "access",
    "refresh",
    "previous",
];

/// What is only shown, or only says when something is due: an edit of it opens nothing and can't be noticed.
const SHOWN: [&str; 8] =
    ["reason", "since", "created_at", "last_used_at", "expires_at", "refresh_at", "grant_ends_at", "state"];

/// Two users' connections that differ in every column.
async fn two_users() -> (Fixture, Arc<Connection>, Arc<Connection>) {
    let f = Fixture::new().await;
    let alice = f.connect("alice", "google").await;
    let new = NewConnection {
        account: "work".parse().unwrap(),
        kind: Kind::StaticBearer,
        scopes: ["admin".parse().unwrap()].into(),
        ..new_connection("bob", "github")
    };
    let tokens = TokenSet {
        token_type: "token".to_owned(),
        api_origin: Some("https://api.example.com".parse().unwrap()),
        account_label: Some("bob@example.com".to_owned()),
        ..f.tokens("access-bob", Some("refresh-bob"))
    };
    let (bob, _) = f.vault.connect(new, tokens, true).await.unwrap();
    let ClaimOutcome::Claimed(claim) = f.vault.claim(bob.id, bob.generation).await.unwrap() else {
        panic!("not claimed")
    };
    let tokens = TokenSet { token_type: "token".to_owned(), ..f.tokens("access-bob", Some("refresh-bob-2")) };
    let bob = f.vault.commit(claim, tokens).await.unwrap();
    (f, alice, bob)
}

/// All plaintexts that this owner can get out of the vault, and all errors on the way.
async fn everything(f: &Fixture, owner: &str) -> (Vec<String>, Vec<String>) {
    let (mut secrets, mut errors) = (Vec::new(), Vec::new());
    let vault = f.open().await.unwrap();
    let connections = match vault.connections(Some(&user(owner))) {
        Ok(connections) => connections,
        Err(error) => return (secrets, vec![error.to_string()]),
    };
    for c in connections {
        match vault.open_access(&user(owner), &c.provider, None, &c.id) {
            Ok(access) => secrets.push(access.token.expose().to_owned()),
            Err(error) => errors.push(error.to_string()),
        }
        let claim = Claim { connection: Arc::clone(&c), fence: 0, until: f.clock.now(), after_unknown: false };
        match vault.refresh_token(&claim) {
            Ok(token) => secrets.push(token.expose().to_owned()),
            Err(error) => errors.push(error.to_string()),
        }
        match vault.previous_refresh_token(&claim) {
            Ok(token) => secrets.extend(token.map(|token| token.expose().to_owned())),
            Err(error) => errors.push(error.to_string()),
        }
    }
    (secrets, errors)
}

#[tokio::test]
async fn no_swap_of_columns_between_two_users_rows_opens_anything_foreign() {
    let (f, ..) = two_users().await;
    let sql = f.intruder();
    sql.execute_batch("CREATE TEMP TABLE saved AS SELECT rowid AS n, * FROM connections").unwrap();
    let restore = || {
        let sets = COLUMNS.map(|c| format!("{c} = (SELECT {c} FROM saved WHERE n = connections.rowid)")).join(", ");
        // Unique columns pass through values that nobody has.
        sql.execute_batch(&format!(
            "UPDATE connections SET id = randomblob(16), owner = 'user ' || rowid; UPDATE connections SET {sets}"
        ))
        .unwrap();
    };
    for first in COLUMNS {
        for second in COLUMNS {
            // `second` of the one row goes into `first` of the other and the other way round; equal names: a plain swap.
            let set =
                format!("UPDATE connections SET {first} = (SELECT {second} FROM saved WHERE n != connections.rowid)");
            let swapped = if ["id", "owner"].contains(&first) {
                sql.execute(&format!("UPDATE connections SET {first} = 'user ' || rowid || randomblob(2)"), []).ok();
                sql.execute(&set, [])
            } else {
                sql.execute(&set, [])
            };
            if swapped.is_err() {
                // The schema itself refuses it: a text for a number, a null where there must be something.
                restore();
                continue;
            }
            for (owner, other) in [("alice", "bob"), ("bob", "alice")] {
                let (secrets, errors) = everything(&f, owner).await;
                for secret in &secrets {
                    assert!(
                        secret.contains(owner) && !secret.contains(other),
                        "{first} from {second}: {owner} got {secret}"
                    );
                }
                if !SHOWN.contains(&first) && first == second && first != "previous" {
                    assert!(!errors.is_empty() || secrets.is_empty(), "{first} from {second}: {owner} saw no error");
                }
            }
            restore();
        }
    }
    let (secrets, errors) = everything(&f, "bob").await;
    assert_eq!((secrets.len(), errors.len()), (3, 0), "{errors:?}");
}

#[tokio::test]
async fn no_swap_of_the_fields_of_one_row_opens_as_another_field() {
    let (f, _, bob) = two_users().await;
    let sql = f.intruder();
    let fields = ["access", "refresh", "previous"];
    for first in fields {
        for second in fields.into_iter().filter(|second| *second != first) {
            let swap =
                format!("UPDATE connections SET {first} = {second}, {second} = {first} WHERE previous IS NOT NULL");
            assert_eq!(sql.execute(&swap, []).unwrap(), 1);
            let (secrets, errors) = everything(&f, "bob").await;
            assert_eq!((secrets.len(), errors.len()), (1, 2), "{first} and {second}");
            for error in errors {
                let end = format!(
                    "of connection {} (user bob, provider github, generation 2, {}) can't be opened: \
                     it was sealed for another place, or what it is bound to was changed: \
                     restore the database from a backup, or disconnect and connect again (for a client: `clawcoil provider add` again)",
                    bob.id,
                    f.vault.id()
                );
                assert!(error.ends_with(&end), "{error}");
            }
            sql.execute(&swap, []).unwrap();
        }
    }
}

#[tokio::test]
async fn no_swap_of_keys_opens_anything() {
    let (f, ..) = two_users().await;
    let sql = f.intruder();
    for column in ["namespace", "id", "wrapped"] {
        let value = |name: &str| -> rusqlite::types::Value {
            sql.query_row(&format!("SELECT {column} FROM keys WHERE rowid = ?1"), [name], |row| row.get(0)).unwrap()
        };
        let row = |name: &str| -> String {
            sql.query_row("SELECT rowid FROM keys WHERE namespace = ?1", [name], |row| row.get::<_, i64>(0))
                .unwrap()
                .to_string()
        };
        let (a, b) = (row("user alice"), row("user bob"));
        let (at_a, at_b) = (value(&a), value(&b));
        let set = |value: &rusqlite::types::Value, row: &str| {
            sql.execute(&format!("UPDATE keys SET {column} = ?1 WHERE rowid = ?2"), rusqlite::params![value, row])
                .unwrap()
        };
        let swap = |left: &rusqlite::types::Value, right: &rusqlite::types::Value| {
            if column == "namespace" {
                set(&rusqlite::types::Value::Text("user zed".to_owned()), &a);
            }
            set(left, &b);
            set(right, &a);
        };
        swap(&at_a, &at_b);
        for owner in ["alice", "bob"] {
            let (secrets, errors) = everything(&f, owner).await;
            assert_eq!(secrets, Vec::<String>::new(), "{column}");
            assert!(!errors.is_empty(), "{column}");
        }
        swap(&at_b, &at_a);
        assert_eq!(everything(&f, "alice").await.0.len(), 2);
    }
}

#[tokio::test]
async fn each_flipped_bit_of_a_stored_record_is_an_error_that_names_the_place() {
    let f = Fixture::new().await;
    let c = f.connect("alice", "google").await;
    let sql = f.intruder();
    let record: Vec<u8> = sql.query_row("SELECT access FROM connections", [], |row| row.get(0)).unwrap();
    for bit in 0..record.len() * 8 {
        let mut bad = record.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        sql.execute("UPDATE connections SET access = ?1", [&bad]).unwrap();
        let error = read(&f.vault, "alice", "google", c.id).unwrap_err().to_string();
        let place = format!(
            "the access token of connection {} (user alice, provider google, generation 1, {}) can't be opened: ",
            c.id,
            f.vault.id()
        );
        assert!(error.starts_with(&place), "bit {bit}: {error}");
    }
    for length in 0..record.len() {
        sql.execute("UPDATE connections SET access = ?1", [&record[..length]]).unwrap();
        assert!(read(&f.vault, "alice", "google", c.id).is_err(), "length {length}");
    }
    sql.execute("UPDATE connections SET access = ?1", [&record]).unwrap();
    assert_eq!(read(&f.vault, "alice", "google", c.id).unwrap(), "access-alice-google");
}

#[tokio::test]
async fn an_older_record_put_back_does_not_open_at_the_newer_generation() {
    let f = Fixture::new().await;
    let c = f.connect("alice", "google").await;
    let sql = f.intruder();
    let old: Vec<u8> = sql.query_row("SELECT access FROM connections", [], |row| row.get(0)).unwrap();
    let ClaimOutcome::Claimed(claim) = f.vault.claim(c.id, c.generation).await.unwrap() else { panic!("not claimed") };
    f.vault.commit(claim, f.tokens("second", None)).await.unwrap();
    sql.execute("UPDATE connections SET access = ?1", [&old]).unwrap();
    let error = read(&f.vault, "alice", "google", c.id).unwrap_err();
    assert!(matches!(error, VaultError::Record { fault: Fault::Misplaced, .. }), "{error}");
}

#[tokio::test]
async fn a_vault_whose_keys_were_replaced_behind_its_back_does_not_pass_its_check() {
    let f = Fixture::new().await;
    f.vault.check().unwrap();
    let sql = rusqlite::Connection::open(f.path()).unwrap();
    sql.execute("UPDATE keys SET wrapped = zeroblob(length(wrapped))", []).unwrap();
    assert!(f.vault.check().is_err());
    sql.execute("DELETE FROM keys", []).unwrap();
    assert!(f.vault.check().is_err());
}
