//! The WebAssembly engine and the calling of skills.
//!
//! ```text
//! bytes ── compile ──> Component (tools, imports) ── call ──> Outcome (result, logs)
//!                                                     │
//!                                                     └── Authority: what this call may do in the world
//! ```
//!
//! A [`Component`] is compiled once. Each call has a store and an instance of its own, made from a pool and gone when the
//! call ends or is dropped. What the guest may import is decided before it is instantiated, by the call's [`Linked`] set;
//! how much it may use, by its [`Limits`].
//!
//! The runtime has no notion of users' connections, policy or credentials: it hands the guest's wishes to the [`Authority`]
//! that the call brought.

mod authority;
mod bindings;
mod cache;
mod call;
mod component;
mod convert;
mod engine;
mod gate;
mod http;
mod input;
mod limits;
mod linker;
mod log;
mod schema;
mod shape;
mod state;
mod tokens;
mod tools;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use serde_json::Value;

use crate::id::{Digest, UserId};
pub use crate::policy::Linked;

pub use authority::{
    ActionReason, AuthDenial, AuthError, Authority, Body, RevealedToken, SendError, Timeouts, TokenHandle, TokenInfo,
    TokenRequest,
};
pub use cache::CompileCache;
pub use call::{End, Outcome, TrapReason, Trapped};
pub use component::{CompileError, CompileSettings, Component, LinkError};
pub use convert::{Fault, Faults};
pub use engine::{EngineError, EngineReport, EngineSettings};
pub use gate::{Busy, BusyWith, GateSettings};
pub use input::{InputError, parse_input};
pub use limits::{LimitReached, Limits};
pub use linker::NotLinked;
pub use log::Logs;
pub use shape::NotJson;
pub use tools::{LeftOut, TooManyTools, Tool};

use state::State;

#[cfg(test)]
mod tests;

/// How a runtime is made.
#[derive(Debug, Default)]
pub struct Settings {
    /// The engine's size.
    pub engine: EngineSettings,
    /// What compiling may cost.
    pub compile: CompileSettings,
    /// How many calls one user may have.
    pub gate: GateSettings,
    /// Where compiled components are kept between starts; absent: nowhere.
    pub cache: Option<CompileCache>,
}

/// Runs skills. One for a process is enough; it is used through a shared reference or an [`Arc`].
pub struct Runtime {
    // The linkers and components hold the engine as well; its timer thread ends with this field.
    engine: engine::Engine,
    compile: CompileSettings,
    cache: Option<Arc<CompileCache>>,
    compiler_turns: Arc<tokio::sync::Semaphore>,
    linkers: [OnceLock<wasmtime::component::Linker<State>>; linker::SETS],
    gate: gate::Gate,
    compiled: Mutex<HashMap<Digest, Weak<Component>>>,
}

impl std::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runtime").field("engine", &self.engine.report()).finish_non_exhaustive()
    }
}

/// A call of a tool.
#[derive(Clone)]
pub struct Call<'a> {
    /// For whom; only counted, never told to the guest.
    pub user: &'a UserId,
    /// The tool's name.
    pub tool: &'a str,
    /// The arguments, an object with one member for each parameter.
    pub input: &'a Value,
    /// The interfaces that may be linked at all.
    pub linked: Linked,
    /// What the guest may do in the world.
    pub authority: Arc<dyn Authority>,
    /// How much it may use.
    pub limits: &'a Limits,
}

/// A call that did not start. The guest has not run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The skill has no such tool.
    #[error("the skill has no tool {tool:?}{hint}")]
    NoSuchTool {
        /// What was asked for.
        tool: String,
        /// What may have been meant, or all that there is.
        hint: String,
    },
    /// The arguments are not what the tool takes.
    #[error("the arguments of `{tool}` don't fit:\n{faults}")]
    Arguments {
        /// The tool.
        tool: String,
        /// All that is wrong.
        faults: Faults,
    },
    /// An import is not linked.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// Too much is going on.
    #[error(transparent)]
    Busy(#[from] Busy),
}

impl Runtime {
    /// A runtime with an engine of its own. Make it before the process makes itself non-dumpable: afterwards the engine may
    /// not be able to see which pages of its slots are in use, and is slower.
    pub fn new(settings: Settings) -> Result<Self, EngineError> {
        Ok(Self {
            engine: engine::Engine::new(&settings.engine)?,
            compile: settings.compile,
            cache: settings.cache.map(Arc::new),
            compiler_turns: Arc::new(tokio::sync::Semaphore::new(2)),
            linkers: Default::default(),
            gate: gate::Gate::new(settings.gate),
            compiled: Mutex::default(),
        })
    }

    /// The wasmtime engine, for who wants to run something of their own beside the skills.
    pub fn engine(&self) -> &wasmtime::Engine {
        self.engine.inner()
    }

    /// What the engine could be made of on this machine.
    pub fn report(&self) -> EngineReport {
        self.engine.report()
    }

    /// Whether the runtime can still end guests that don't end by themselves. For a health check.
    pub fn is_healthy(&self) -> bool {
        self.engine.is_ticking()
    }

    /// Compiles a component, unless the same bytes are compiled already.
    ///
    /// Needs a tokio runtime with its timer, as [`call`](Self::call) does.
    pub async fn compile(&self, bytes: impl Into<Arc<[u8]>>) -> Result<Arc<Component>, CompileError> {
        let bytes: Arc<[u8]> = bytes.into();
        if bytes.len() > self.compile.size {
            return Err(CompileError::TooLarge { size: bytes.len(), most: self.compile.size });
        }
        let digest = Digest::of(&bytes);
        let known = self.compiled.lock().unwrap_or_else(PoisonError::into_inner).get(&digest).and_then(Weak::upgrade);
        if let Some(known) = known {
            return Ok(known);
        }
        let cache = self.cache.clone();
        let made = component::compile(self.engine.inner(), bytes, &self.compile, cache, &self.compiler_turns).await?;
        let made = Arc::new(made);
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        compiled.retain(|_, component| component.strong_count() > 0);
        // Two may have compiled the same at the same time: the first stays, so that there is one.
        if let Some(first) = compiled.get(&digest).and_then(Weak::upgrade) {
            return Ok(first);
        }
        compiled.insert(digest, Arc::downgrade(&made));
        Ok(made)
    }

    /// Calls a tool and waits for its end. A call that is dropped ends at once and frees everything.
    pub async fn call(&self, component: &Component, call: Call<'_>) -> Result<Outcome, CallError> {
        let tool = component.tool(call.tool).ok_or_else(|| no_such_tool(component, call.tool))?;
        let ready = component.ready(call.linked, || self.linker(call.linked)?.instantiate_pre(component.inner()))?;
        let params = convert::arguments(tool.params(), call.input, call.limits.input)
            .map_err(|faults| CallError::Arguments { tool: tool.name().to_owned(), faults })?;
        let _place = self.gate.enter(call.user).await?;
        let start = call::Start { ready, tool, params, authority: call.authority, limits: call.limits };
        Ok(call::run(start).await?)
    }

    fn linker(&self, linked: Linked) -> wasmtime::Result<&wasmtime::component::Linker<State>> {
        let place = self.linkers.get(linker::index(linked)).ok_or_else(|| wasmtime::Error::msg("no such set"))?;
        if let Some(linker) = place.get() {
            return Ok(linker);
        }
        let made = linker::linker(self.engine.inner(), linked)?;
        Ok(place.get_or_init(|| made))
    }
}

fn no_such_tool(component: &Component, tool: &str) -> CallError {
    let names = || component.tools().iter().map(Tool::name);
    let mut hint = convert::closest(tool, names());
    if hint.is_empty() {
        let shown: Vec<_> = names().take(10).collect();
        hint = match shown.as_slice() {
            [] => ": it exports no function that can be called".to_owned(),
            shown => format!("; it has {}", shown.join(", ")),
        };
    }
    CallError::NoSuchTool { tool: tool.chars().take(64).collect(), hint }
}
