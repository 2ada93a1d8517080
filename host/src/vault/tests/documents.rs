//! The rules of documents.

use std::time::Duration;

use super::*;
use crate::vault::Document;

const KIND: &str = "session";

fn document(f: &Fixture, name: &str, owner: Owner) -> Document {
    Document {
        kind: KIND,
        lookup: f.vault.lookup_of(KIND, name),
        owner,
        expires_at: Some(f.clock.now() + Duration::from_mins(10)),
        contents: format!("what {name} says").into(),
        revision: Generation(0),
    }
}

#[tokio::test]
async fn a_document_comes_back_until_it_is_taken_or_expires() {
    let f = Fixture::new().await;
    let one = document(&f, "one", user("alice"));
    f.vault.put_document(&one).await.unwrap();
    assert!(matches!(f.vault.put_document(&one).await, Err(VaultError::DocumentExists)));
    f.vault.put_document(&document(&f, "two", Owner::Agent)).await.unwrap();
    assert_eq!(*f.vault.document(KIND, &one.lookup).unwrap().unwrap().contents, "what one says");
    assert!(f.vault.document("other", &one.lookup).unwrap().is_none());
    assert_eq!(f.vault.documents(KIND, None).unwrap().len(), 2);
    assert_eq!(f.vault.documents(KIND, Some(&user("alice"))).unwrap().len(), 1);
    assert!(f.vault.take_document(KIND, &one.lookup).await.unwrap().is_some());
    assert!(f.vault.take_document(KIND, &one.lookup).await.unwrap().is_none());
    f.clock.advance(Duration::from_mins(10));
    assert!(f.vault.documents(KIND, None).unwrap().is_empty());
}

#[tokio::test]
async fn of_two_who_replace_a_document_that_both_have_read_one_does() {
    let f = Fixture::new().await;
    f.vault.put_document(&document(&f, "one", user("alice"))).await.unwrap();
    let lookup = f.vault.lookup_of(KIND, "one");
    let mut first = f.vault.document(KIND, &lookup).unwrap().unwrap();
    let mut second = first.clone();
    first.contents = "first".to_owned().into();
    second.contents = "second".to_owned().into();
    assert!(f.vault.replace_document(&first).await.unwrap());
    assert!(!f.vault.replace_document(&second).await.unwrap());
    assert_eq!(*f.vault.document(KIND, &lookup).unwrap().unwrap().contents, "first");
}

#[tokio::test]
async fn each_edited_column_of_a_document_makes_it_an_error() {
    let f = Fixture::new().await;
    f.connect("bob", "google").await;
    f.vault.put_document(&document(&f, "other", user("bob"))).await.unwrap();
    for edit in [
        "owner = 'user bob'",
        "owner = 'agent'",
        "kind = 'session2'",
        "lookup = zeroblob(32)",
        "revision = 1",
        "record = (SELECT record FROM documents WHERE owner = 'user bob')",
        "record = zeroblob(200)",
    ] {
        let one = document(&f, "one", user("alice"));
        f.vault.put_document(&one).await.unwrap();
        f.intruder().execute(&format!("UPDATE documents SET {edit} WHERE owner = 'user alice'"), []).unwrap();
        let read = match edit {
            "kind = 'session2'" => f.vault.document("session2", &one.lookup),
            "lookup = zeroblob(32)" => f.vault.document(KIND, &[0; 32]),
            _ => f.vault.document(KIND, &one.lookup),
        };
        assert!(matches!(read, Err(VaultError::Record { .. } | VaultError::NoKey { .. })), "{edit}: {read:?}");
        f.intruder().execute("DELETE FROM documents WHERE record != (SELECT record FROM documents WHERE owner = 'user bob' AND revision = 0 ORDER BY rowid LIMIT 1) OR rowid > 1", []).unwrap();
    }
    // A later end in the column doesn't make it live longer.
    let one = document(&f, "one", user("alice"));
    f.vault.put_document(&one).await.unwrap();
    f.intruder().execute("UPDATE documents SET expires_at = expires_at + 1000000000", []).unwrap();
    f.clock.advance(Duration::from_mins(10));
    assert!(f.vault.document(KIND, &one.lookup).unwrap().is_none());
}

#[tokio::test]
async fn shredding_a_user_removes_the_users_documents() {
    let f = Fixture::new().await;
    f.vault.put_document(&document(&f, "one", user("alice"))).await.unwrap();
    f.vault.put_document(&document(&f, "two", user("bob"))).await.unwrap();
    f.vault.shred(&"alice".parse().unwrap(), &f.identity).await.unwrap();
    let left = f.vault.documents(KIND, None).unwrap();
    assert_eq!(left.iter().map(|document| document.owner.clone()).collect::<Vec<_>>(), [user("bob")]);
}

#[tokio::test]
async fn what_finds_a_document_says_nothing_without_the_vault() {
    let (one, other) = (Fixture::new().await, Fixture::new().await);
    assert_ne!(one.vault.lookup_of(KIND, "secret"), other.vault.lookup_of(KIND, "secret"));
    assert_ne!(one.vault.lookup_of(KIND, "secret"), one.vault.lookup_of("sess", "ionsecret"));
}
