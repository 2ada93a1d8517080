//! Small sealed documents of whoever embeds the vault: a program's credentials, a browser's session, a link that was given out.
//!
//! Each is found by the keyed digest of a secret that only its bearer has, or by a name; the digest can't be computed without
//! the vault, so a stolen database tells nobody which secret opens what. A document opens only under its kind, its lookup key
//! and its owner: who can write the database can remove one, but can't make one, lend it to another user or let it live longer.

use zeroize::Zeroizing;

use super::contents::{decode, encode};
use super::datastore::DocumentRow;
use super::envelope::{Fault, Field, Item, Place};
use super::error::VaultError;
use super::vault::Vault;
use crate::clock::{Timestamp, from_milliseconds};
use crate::id::{Generation, Owner};

/// What finds a document: 32 bytes, from [`Vault::lookup_of`].
pub type Lookup = [u8; 32];

/// The largest contents, in bytes.
const MAX: usize = 1 << 20;

/// A sealed document.
#[derive(Debug, Clone)]
pub struct Document {
    /// What it is, in the words of who stores it: lower-case letters and hyphens.
    pub kind: &'static str,
    /// What finds it.
    pub lookup: Lookup,
    /// Whose it is, and with whose key it is sealed. Shredding the user removes it.
    pub owner: Owner,
    /// From then on it is not found any more.
    pub expires_at: Option<Timestamp>,
    /// What it says.
    pub contents: Zeroizing<String>,
    /// Counts its replacements.
    pub revision: Generation,
}

impl Vault {
    /// The lookup key for a secret or a name: a keyed digest of it, the same for the life of the vault.
    pub fn lookup_of(&self, kind: &str, text: &str) -> Lookup {
        use hmac::Mac as _;
        let mac = self.lookups.clone().chain_update((kind.len() as u64).to_be_bytes()).chain_update(kind);
        mac.chain_update(text).finalize().into_bytes().into()
    }

    /// Stores a new document. One of the same kind and lookup key is an error ([`VaultError::DocumentExists`]). Those that have
    /// expired are removed.
    pub async fn put_document(&self, document: &Document) -> Result<(), VaultError> {
        let row = self.document_row(document, Generation(0)).await?;
        if self.store.put_document(row, self.clock.now()).await? { Ok(()) } else { Err(VaultError::DocumentExists) }
    }

    /// Puts new contents in the place of those that were read, unless somebody was faster: then nothing changes, and the answer
    /// is `false`.
    pub async fn replace_document(&self, document: &Document) -> Result<bool, VaultError> {
        let row = self.document_row(document, Generation(document.revision.0 + 1)).await?;
        self.store.replace_document(row, document.revision).await
    }

    /// The document of this kind that is found so. `None`: there is none, or it has expired.
    pub fn document(&self, kind: &'static str, lookup: &Lookup) -> Result<Option<Document>, VaultError> {
        match self.store.document(kind, *lookup)? {
            Some(row) => self.open_document(row),
            None => Ok(None),
        }
    }

    /// Every document of this kind that has not expired, of one owner or of all.
    pub fn documents(&self, kind: &'static str, owner: Option<&Owner>) -> Result<Vec<Document>, VaultError> {
        let rows = self.store.documents(kind, owner)?;
        rows.into_iter().filter_map(|row| self.open_document(row).transpose()).collect()
    }

    /// Takes a document out: of several who try, one gets it.
    pub async fn take_document(&self, kind: &'static str, lookup: &Lookup) -> Result<Option<Document>, VaultError> {
        match self.store.take_document(kind, *lookup).await? {
            Some(row) => self.open_document(row),
            None => Ok(None),
        }
    }

    pub(super) async fn document_row(
        &self,
        document: &Document,
        revision: Generation,
    ) -> Result<DocumentRow, VaultError> {
        if document.contents.len() > MAX {
            return Err(VaultError::DocumentTooLarge { found: document.contents.len(), max: MAX });
        }
        let expires_at = document.expires_at.map_or_else(String::new, |at| at.as_millisecond().to_string());
        let parts = encode(&[expires_at.as_bytes(), document.contents.as_bytes()]);
        let place = self.document_place(document.kind, &document.lookup, &document.owner, revision);
        Ok(DocumentRow {
            kind: document.kind,
            lookup: document.lookup,
            owner: document.owner.clone(),
            expires_at: document.expires_at,
            revision,
            record: self.seal_record(&place, &parts).await?,
        })
    }

    pub(super) fn open_document(&self, row: DocumentRow) -> Result<Option<Document>, VaultError> {
        let place = self.document_place(row.kind, &row.lookup, &row.owner, row.revision);
        let opened = self.open_record(&place, &row.record)?;
        let wrong = || VaultError::record(&place, Fault::Contents);
        let [expires_at, contents] = decode(&opened).ok_or_else(wrong)?;
        // The moment in the record counts; the column is for finding what can be removed.
        let expires_at = if expires_at.is_empty() {
            None
        } else {
            let millis = expires_at.parse().ok().ok_or_else(wrong)?;
            Some(from_milliseconds(millis).ok_or_else(wrong)?)
        };
        if expires_at.is_some_and(|at| self.clock.now() >= at) {
            return Ok(None);
        }
        let contents = Zeroizing::new(contents.to_owned());
        let DocumentRow { kind, lookup, revision, .. } = row;
        Ok(Some(Document { kind, lookup, owner: row.owner, expires_at, contents, revision }))
    }

    fn document_place<'a>(
        &self,
        kind: &'static str,
        lookup: &'a Lookup,
        owner: &'a Owner,
        revision: Generation,
    ) -> Place<'a> {
        Place {
            vault: self.id,
            owner,
            provider: None,
            item: Item::Document(kind, lookup),
            field: Field::Document,
            generation: revision,
        }
    }
}
