//! Canaries: the secrets that tests plant, and the search for them in everything that a test run puts out.
//!
//! `cargo xtask test` names a folder in the environment. While it does, each process of the tests notes there which secrets it
//! plants or is given ([`plant`]), and writes there what it and the libraries under it trace ([`watch`]), what its children say
//! ([`keep`], [`lines`]) and what its servers print. At the end [`scan`](scan::scan) searches all of it for every secret in every form. Outside
//! of such a run nothing is written.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "what can't be noted or searched ends the test, with the reason"
)]

mod canaries;
mod forms;
mod outputs;
mod run;
pub mod scan;
mod search;
#[cfg(feature = "trace")]
mod trace;

pub use canaries::{Kind, plant, plant_key, plant_prefix, private_key};
pub use outputs::{copy, keep, lines, without_log};
pub use run::{RUN, is_on};
pub use search::{files_with, find, find_any};
#[cfg(feature = "trace")]
pub use trace::{FILTER, watch};
