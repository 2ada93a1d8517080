//! What is linked: the harmless part of WASI always, everything else only where it was granted.

use std::fmt;

use wasmtime::component::{HasData, Linker, ResourceTable};
use wasmtime_wasi::cli::{WasiCli, WasiCliView as _};
use wasmtime_wasi::clocks::{WasiClocks, WasiClocksView as _};
use wasmtime_wasi::filesystem::{WasiFilesystem, WasiFilesystemView as _};
use wasmtime_wasi::p2::bindings::{cli, clocks, filesystem, random};
use wasmtime_wasi::random::WasiRandom;

use super::bindings::clawcoil::skill::{reveal, tokens, types};
use super::state::State;
use super::tokens::HasTokens;
use crate::policy::Linked;

/// How many sets of linked interfaces there are.
pub(super) const SETS: usize = 8;

/// The place of a set among all of them.
pub(super) fn index(linked: Linked) -> usize {
    usize::from(linked.tokens) | usize::from(linked.reveal) << 1 | usize::from(linked.http) << 2
}

/// Why an import has nothing to link to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotLinked {
    /// The grants of this call don't include `use = "reveal"`.
    RevealNotGranted,
    /// No service of the manifest is granted for this call.
    NoServiceGranted,
    /// The manifest declares no address for requests.
    NoRequestDeclared,
    /// Files and sockets are linked for nobody.
    Never,
    /// An interface of this host in a version that it doesn't have.
    Version,
    /// Nothing that this host knows.
    Unknown,
}

impl fmt::Display for NotLinked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RevealNotGranted => {
                "it would show the skill the access token itself, which takes a grant with use = \"reveal\" \
                 from the operator"
            }
            Self::NoServiceGranted => {
                "no service that its manifest declares is granted for this caller; the operator grants services"
            }
            Self::NoRequestDeclared => {
                "its manifest declares no address that it sends requests to; its author adds a [[request]] to skill.toml"
            }
            Self::Never => "skills have no files and no sockets; requests go through wasi:http",
            Self::Version => "this host has clawcoil:skill@0.1.0 and WASI 0.2; build the skill against these",
            Self::Unknown => "this host has no such interface",
        })
    }
}

/// WASI that needs no grant. Files are there for the standard libraries' sake: no folder is ever opened for a skill.
const ALWAYS: [&str; 16] = [
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:clocks/wall-clock",
    "wasi:clocks/monotonic-clock",
    "wasi:random/random",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/stderr",
    "wasi:filesystem/types",
    "wasi:filesystem/preopens",
    "clawcoil:skill/types",
];

/// Judges an import by its name.
pub(super) fn judge(import: &str, linked: Linked) -> Result<(), NotLinked> {
    let (name, version) = import.split_once('@').unwrap_or((import, ""));
    let ours = match name {
        "clawcoil:skill/tokens" if !linked.tokens => return Err(NotLinked::NoServiceGranted),
        "clawcoil:skill/reveal" if !linked.reveal => return Err(NotLinked::RevealNotGranted),
        "wasi:http/types" | "wasi:http/outgoing-handler" if !linked.http => return Err(NotLinked::NoRequestDeclared),
        "clawcoil:skill/tokens" | "clawcoil:skill/reveal" | "wasi:http/types" | "wasi:http/outgoing-handler" => true,
        _ => ALWAYS.contains(&name) || name.starts_with("wasi:cli/terminal-"),
    };
    let family = if name.starts_with("clawcoil:") { "0.1." } else { "0.2." };
    if ours {
        return if version.starts_with(family) { Ok(()) } else { Err(NotLinked::Version) };
    }
    if name.starts_with("wasi:sockets/") || name.starts_with("wasi:filesystem/") {
        return Err(NotLinked::Never);
    }
    Err(NotLinked::Unknown)
}

struct HasTable;

impl HasData for HasTable {
    type Data<'a> = &'a mut ResourceTable;
}

/// A linker with exactly this set.
pub(super) fn linker(engine: &wasmtime::Engine, linked: Linked) -> wasmtime::Result<Linker<State>> {
    use wasmtime_wasi::p2::bindings::io;

    let mut made = Linker::new(engine);
    let l = &mut made;
    io::error::add_to_linker::<State, HasTable>(l, State::table)?;
    io::poll::add_to_linker::<State, HasTable>(l, State::table)?;
    io::streams::add_to_linker::<State, HasTable>(l, State::table)?;
    clocks::wall_clock::add_to_linker::<State, WasiClocks>(l, State::clocks)?;
    clocks::monotonic_clock::add_to_linker::<State, WasiClocks>(l, State::clocks)?;
    random::random::add_to_linker::<State, WasiRandom>(l, wasmtime_wasi::random::WasiRandomView::random)?;
    random::insecure::add_to_linker::<State, WasiRandom>(l, wasmtime_wasi::random::WasiRandomView::random)?;
    random::insecure_seed::add_to_linker::<State, WasiRandom>(l, wasmtime_wasi::random::WasiRandomView::random)?;
    cli::environment::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::exit::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::stdin::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::stdout::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::stderr::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::terminal_input::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::terminal_output::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::terminal_stdin::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::terminal_stdout::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::terminal_stderr::add_to_linker::<State, WasiCli>(l, State::cli)?;
    filesystem::types::add_to_linker::<State, WasiFilesystem>(l, State::filesystem)?;
    filesystem::preopens::add_to_linker::<State, WasiFilesystem>(l, State::filesystem)?;
    types::add_to_linker::<State, HasTokens>(l, State::tokens)?;
    if linked.tokens {
        tokens::add_to_linker::<State, HasTokens>(l, State::tokens)?;
    }
    if linked.reveal {
        reveal::add_to_linker::<State, HasTokens>(l, State::tokens)?;
    }
    if linked.http {
        wasmtime_wasi_http::p2::add_only_http_to_linker_async(l)?;
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imports_are_linked_only_as_granted() {
        let all = Linked { tokens: true, reveal: true, http: true };
        let none = Linked { tokens: false, reveal: false, http: false };
        for (import, with_all, with_none) in [
            ("wasi:cli/stdout@0.2.6", Ok(()), Ok(())),
            ("wasi:filesystem/preopens@0.2.0", Ok(()), Ok(())),
            ("wasi:http/types@0.2.3", Ok(()), Err(NotLinked::NoRequestDeclared)),
            ("clawcoil:skill/types@0.1.0", Ok(()), Ok(())),
            ("clawcoil:skill/tokens@0.1.0", Ok(()), Err(NotLinked::NoServiceGranted)),
            ("clawcoil:skill/reveal@0.1.0", Ok(()), Err(NotLinked::RevealNotGranted)),
            ("clawcoil:skill/reveal@1.0.0", Err(NotLinked::Version), Err(NotLinked::RevealNotGranted)),
            ("wasi:cli/stdout@0.3.0", Err(NotLinked::Version), Err(NotLinked::Version)),
            ("wasi:cli/stdout", Err(NotLinked::Version), Err(NotLinked::Version)),
            ("wasi:sockets/tcp@0.2.0", Err(NotLinked::Never), Err(NotLinked::Never)),
            ("wasi:filesystem/other@0.2.0", Err(NotLinked::Never), Err(NotLinked::Never)),
            ("acme:db/query@1.0.0", Err(NotLinked::Unknown), Err(NotLinked::Unknown)),
            ("wasi:http/incoming-handler@0.2.0", Err(NotLinked::Unknown), Err(NotLinked::Unknown)),
        ] {
            assert_eq!(judge(import, all), with_all, "{import}");
            assert_eq!(judge(import, none), with_none, "{import}");
        }
    }

    #[test]
    fn each_set_has_its_own_place() {
        let mut places = std::collections::BTreeSet::new();
        for bits in 0..SETS {
            let linked = Linked { tokens: bits & 1 != 0, reveal: bits & 2 != 0, http: bits & 4 != 0 };
            assert_eq!(index(linked), bits);
            places.insert(index(linked));
        }
        assert_eq!(places.len(), SETS);
    }
}
