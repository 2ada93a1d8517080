//! What happened, in a hash-chained log.
//!
//! Each entry is one line of JSON. It carries its number, the hash of the entry before it, and at its end `hash`, the
//! SHA-256 over the previous hash and the line, and `mac`, a keyed code over that hash. Who has no key can check the chain;
//! who has no key can't write a chain that checks.
//!
//! A file under the log's folder is one chain, and has one writing process at a time. A process that starts writes an
//! `opened` entry which names the heads of all other chains, so that a file which was cut or deleted later is noticed by
//! [`verify`].
//!
//! Every so many entries, and when a process ends, a signed [`Checkpoint`] says how far the chain has come: the size and the
//! root hash of a Merkle tree (RFC 6962) over the entries' hashes, in the form of C2SP tlog-checkpoint and signed-note, with an
//! Ed25519 key that is derived from the vault's. They stand in a file beside the chain, and in every other place that
//! [`Settings`] names. Against one that lies out of reach of whoever cuts the log, [`verify_with`] notices the cut. There are no
//! inclusion or consistency proofs: who checks a checkpoint reads the whole chain. A place that hangs holds up nothing but the
//! release of tokens.
//!
//! [`AuditLog::append`] returns when the entry has been handed to the operating system, so it survives the death of the
//! process; a thread makes it durable within a second. [`AuditLog::append_for_release`] waits besides for every other sink that
//! is configured, and in strict mode for the disk. A sink that fails, or hangs for two seconds, makes it an error, and whoever
//! wanted to release a token must not; what takes something away uses `append`, or [`AuditLog::append_aside`] and
//! [`AuditLog::tell`], and goes on.
//!
//! Where the log's own file hangs, nobody waits for longer than two seconds, and afterwards nobody waits at all until it answers
//! again: what may hang is done on two threads of the log's own, one for entries and one for changes of tokens, and no more than
//! these are lost to it. On a disk of this machine entries are written by whoever makes them, as that is some microseconds
//! faster: if such a disk hangs, the thread that writes is lost to it too. Entries of calls that end at about the same time share
//! one write.
//!
//! The entries of a chain stand in the order in which they were written. Where the clock was set back, this and each later entry
//! of the chain says besides, as `after`, what the latest time before it was: so the files can be read from any moment on
//! ([`newest()`]) without a look at all of them, and no entry hides behind a wrong time.
//!
//! Users are written as keyed tags: the log alone doesn't tell who they are.

mod aside;
mod call;
mod chain;
mod checkpoint;
mod durable;
mod elsewhere;
mod event;
mod folder;
mod health;
mod log;
mod newest;
mod read;
mod settings;
mod sink;
mod stream;
mod together;
mod told;
mod tree;
mod verify;
mod witness;

pub use call::{MOST_FOR_A_CALL, OfCall, of_call};
pub use checkpoint::{BadCheckpoint, Checkpoint};
pub use event::{Decision, Event, EventKind};
pub use log::{AuditError, AuditLog, Opening, Position};
pub use newest::{Mark, Newest, newest, page};
pub use read::{Entries, Entry, Filter, entries, read, tail, user_tag};
pub use settings::{Destination, Settings};
pub use sink::{FileSink, Sink};
pub use told::{Change, Told};
pub use verify::{Fault, FirstBad, Summary, VerifyError, checkpoints, verify, verify_with};

#[cfg(test)]
mod tests;
