//! Keeping the memory of this process to itself.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// A protection that the system did not grant.
#[derive(Debug, thiserror::Error)]
#[error(
    "the process can't be protected ({what}): the system refused; the memory of this process could end in a core dump"
)]
pub struct HardenError {
    what: &'static str,
    #[source]
    source: std::io::Error,
}

/// No core dumps of this process, and on Linux no other process of the same user reads its memory.
///
/// Call it after the engine is built: a process that is not root and not dumpable can't open `/proc/self/pagemap`, which
/// the engine asks for once. It can't be undone for the core limit.
///
/// Not guaranteed: root, the kernel's own crash dumps, swap and hibernation still see the memory.
pub fn harden_process() -> Result<(), HardenError> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none).map_err(|e| HardenError { what: "core limit", source: e.into() })?;
    let set = getrlimit(Resource::Core);
    if set.current != Some(0) || set.maximum != Some(0) {
        let source = std::io::Error::other("the core limit is not zero after it was set to zero");
        return Err(HardenError { what: "core limit", source });
    }
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .map_err(|e| HardenError { what: "dumpable", source: e.into() })?;
    Ok(())
}
