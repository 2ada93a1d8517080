//! Compiling a skill's component: once, bounded, away from the async threads.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use wasmtime::component::InstancePre;

use super::cache::CompileCache;
use super::linker::{self, NotLinked};
use super::state::State;
use super::tools::{self, LeftOut, Tool};
use crate::id::Digest;
use crate::policy::Linked;

/// What compiling a component may cost.
#[derive(Debug, Clone)]
pub struct CompileSettings {
    /// The largest component, in bytes. Default 64 MiB.
    pub size: usize,
    /// The longest time. Default 60 s.
    pub time: Duration,
}

impl Default for CompileSettings {
    fn default() -> Self {
        Self { size: 64 << 20, time: Duration::from_mins(1) }
    }
}

/// A skill's code, compiled and ready to be instantiated for a call.
pub struct Component {
    digest: Digest,
    inner: wasmtime::component::Component,
    imports: Vec<String>,
    tools: Vec<Tool>,
    left_out: Vec<LeftOut>,
    ready: [OnceLock<Arc<InstancePre<State>>>; linker::SETS],
}

impl fmt::Debug for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Component")
            .field("digest", &self.digest)
            .field("tools", &self.tools.len())
            .finish_non_exhaustive()
    }
}

/// Why a file is not a skill that can be run.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// Larger than allowed.
    #[error(
        "the component has {size} bytes, more than the {most} that are allowed: build it with `--release`, or raise the limit"
    )]
    TooLarge {
        /// Its size.
        size: usize,
        /// The limit.
        most: usize,
    },
    /// A module, not a component.
    #[error("this is a core module, not a component: build it with `--target wasm32-wasip2`")]
    CoreModule,
    /// A component of another version of the format.
    #[error(
        "this is a component in version {0} of the format, which this host does not know: build it with newer or older tools"
    )]
    FormatVersion(u16),
    /// The text format.
    #[error("this is WebAssembly as text: turn it into a component with `wasm-tools parse`")]
    Text,
    /// No WebAssembly.
    #[error("this is not WebAssembly: a component begins with the bytes 00 61 73 6d, this begins with {0}")]
    NotWasm(String),
    /// Nothing.
    #[error("the file is empty: build the component again")]
    Empty,
    /// It needs a part of WebAssembly that the engine leaves out.
    #[error("the component needs a part of WebAssembly that is switched off here: {0}; build it without that part")]
    SwitchedOff(String),
    /// Broken.
    #[error("the component is not valid: {0}; build it again with the current tools, and look for a broken download")]
    Invalid(String),
    /// Too many exports.
    #[error("the component is no skill that can be listed: {0}")]
    Exports(#[from] tools::TooManyTools),
    /// It took too long.
    #[error(
        "compiling took longer than {0:?}, which is all the time that is allowed: split the component, or raise the limit"
    )]
    TooSlow(Duration),
    /// The thread that compiles could not be started, or came to harm.
    #[error("compiling failed for a reason of the host's: {0}")]
    Host(String),
}

/// An import that has nothing to link to. Nothing of the component has run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// It is not linked for this call.
    #[error("the skill imports `{import}`, which is not linked: {why}")]
    NotLinked {
        /// The import.
        import: String,
        /// Why.
        why: NotLinked,
    },
    /// It is linked, and the component sees it in another form.
    #[error(
        "the skill imports an interface in a form that this host does not have: {0}; build it against this host's wit/"
    )]
    Mismatch(String),
}

impl Component {
    /// The digest of the file.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The functions that can be called, in the order of the component.
    pub fn tools(&self) -> &[Tool] {
        &self.tools
    }

    /// A tool by its name.
    pub fn tool(&self, name: &str) -> Option<&Tool> {
        self.tools.iter().find(|tool| tool.name() == name)
    }

    /// The exports that are no tools, and why.
    pub fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }

    /// The interfaces that it imports, with their versions.
    pub fn imports(&self) -> &[String] {
        &self.imports
    }

    /// Whether everything that it imports would be linked with this set; the first import that would not.
    pub fn check_imports(&self, linked: Linked) -> Result<(), LinkError> {
        for import in &self.imports {
            linker::judge(import, linked)
                .map_err(|why| LinkError::NotLinked { import: import.chars().take(128).collect(), why })?;
        }
        Ok(())
    }

    /// The component with its imports resolved to exactly this set.
    pub(super) fn ready(
        &self,
        linked: Linked,
        resolve: impl FnOnce() -> wasmtime::Result<InstancePre<State>>,
    ) -> Result<&Arc<InstancePre<State>>, LinkError> {
        let Some(place) = self.ready.get(linker::index(linked)) else {
            return Err(LinkError::Mismatch("no such set of interfaces".to_owned()));
        };
        if let Some(ready) = place.get() {
            return Ok(ready);
        }
        self.check_imports(linked)?;
        let made = resolve().map_err(|error| LinkError::Mismatch(one_line(&error)))?;
        Ok(place.get_or_init(|| Arc::new(made)))
    }

    pub(super) fn inner(&self) -> &wasmtime::component::Component {
        &self.inner
    }
}

/// Compiles, or takes from the cache; on a thread of its own, for as long as it may take.
pub(super) async fn compile(
    engine: &wasmtime::Engine,
    bytes: Arc<[u8]>,
    settings: &CompileSettings,
    cache: Option<Arc<CompileCache>>,
    turns: &Arc<tokio::sync::Semaphore>,
) -> Result<Component, CompileError> {
    if bytes.len() > settings.size {
        return Err(CompileError::TooLarge { size: bytes.len(), most: settings.size });
    }
    sniff(&bytes)?;
    let compiling = async {
        // A thread that is over its time can't be stopped: it keeps its turn until it ends, so that slow components
        // can't pile up.
        let turn = Arc::clone(turns).acquire_owned().await.map_err(|error| CompileError::Host(error.to_string()))?;
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let engine = engine.clone();
        std::thread::Builder::new()
            .name("skill-compiler".into())
            .stack_size(8 << 20)
            .spawn(move || {
                let _turn = turn;
                // The caller may have given up waiting.
                let _unheard = sender.send(compile_here(&engine, &bytes, cache.as_deref()));
            })
            .map_err(|error| CompileError::Host(error.to_string()))?;
        receiver.await.map_err(|_| CompileError::Host("the compiler thread ended early".to_owned()))?
    };
    tokio::time::timeout(settings.time, compiling).await.map_err(|_| CompileError::TooSlow(settings.time))?
}

fn compile_here(
    engine: &wasmtime::Engine,
    bytes: &[u8],
    cache: Option<&CompileCache>,
) -> Result<Component, CompileError> {
    let digest = Digest::of(bytes);
    let inner = if let Some(inner) = cache.and_then(|cache| cache.load(engine, digest)) {
        inner
    } else {
        let inner = wasmtime::component::Component::from_binary(engine, bytes).map_err(|error| invalid(&error))?;
        if let Some(cache) = cache {
            cache.store(&inner, digest);
        }
        inner
    };
    let imports = inner.component_type().imports(engine).map(|(name, _)| name.to_owned()).collect();
    let (tools, left_out) = tools::read(&inner)?;
    Ok(Component { digest, inner, imports, tools, left_out, ready: Default::default() })
}

/// Tells apart what people bring by mistake.
fn sniff(bytes: &[u8]) -> Result<(), CompileError> {
    match bytes {
        [] => Err(CompileError::Empty),
        [0, b'a', b's', b'm', 0x0d, 0, 1, 0, ..] => Ok(()),
        [0, b'a', b's', b'm', _, _, 0, 0, ..] => Err(CompileError::CoreModule),
        [0, b'a', b's', b'm', low, high, 1, 0, ..] => {
            Err(CompileError::FormatVersion(u16::from_le_bytes([*low, *high])))
        }
        [0, b'a', b's', b'm', rest @ ..] if rest.len() < 4 => {
            Err(CompileError::Invalid("it ends after its first bytes".to_owned()))
        }
        _ if bytes.trim_ascii_start().starts_with(b"(component")
            || bytes.trim_ascii_start().starts_with(b"(module") =>
        {
            Err(CompileError::Text)
        }
        _ => {
            let first: Vec<String> = bytes.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
            Err(CompileError::NotWasm(first.join(" ")))
        }
    }
}

fn invalid(error: &wasmtime::Error) -> CompileError {
    let words = one_line(error);
    // The sentence around it says that already.
    let words = words.strip_prefix("failed to parse WebAssembly module: ").map(str::to_owned).unwrap_or(words);
    if is_switched_off(&words) { CompileError::SwitchedOff(words) } else { CompileError::Invalid(words) }
}

/// Whether the engine says that a part of WebAssembly, which it names, is off. Names out of the component stand in backticks.
fn is_switched_off(words: &str) -> bool {
    let says = |what: &str| words.split('`').step_by(2).any(|part| part.contains(what));
    says(" must be enabled")
        || says(" not enabled")
        || says(" to be enabled")
        || (says(" require") && (says(" proposal") || says(" feature")))
}

/// An engine's error and its causes in one bounded line. What stands in it may come from the component.
pub(super) fn one_line(error: &wasmtime::Error) -> String {
    let mut text = format!("{error:#}");
    text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    text.chars().filter(|c| !c.is_control()).take(500).collect()
}
