//! What happened, in a hash-chained log.
//!
//! Each entry is one line of JSON. It carries its number, the hash of the entry before it, and at its end `hash`, the
//! SHA-256 over the previous hash and the line, and `mac`, a keyed code over that hash. Who has no key can check the chain;
//! who has no key can't write a chain that checks.
//!
//! A file under the log's folder is one chain, and has one writing process at a time. A process that starts writes an
//! `opened` entry which names the heads of all other chains, so that a file which was cut or deleted later is noticed by
//! [`verify`]. The very last entries of the youngest chain have no such witness: cutting exactly at a line's end there is
//! noticed only while the process that wrote them still runs.
//!
//! [`AuditLog::append`] returns when the entry has been handed to the operating system, so it survives the death of the
//! process; a thread makes it durable within a second. A sink that fails, or hangs for two seconds, makes every further
//! `append` an error, and whoever wanted to release a token must not.
//!
//! Users are written as keyed tags: the log alone doesn't tell who they are.

mod chain;
mod event;
mod folder;
mod log;
mod read;
mod sink;
mod verify;

pub use event::{Decision, Event, EventKind};
pub use log::{AuditError, AuditLog, Opening, Position};
pub use read::{Entries, Entry, Filter, entries, read, tail};
pub use sink::{FileSink, Sink};
pub use verify::{Fault, FirstBad, Summary, VerifyError, verify};

#[cfg(test)]
mod tests;
