//! The tracing of this process, written to the outputs of the run.

use std::sync::{Arc, Once};

use tracing_subscriber::EnvFilter;

use crate::run;

/// What is written, in the words of `RUST_LOG`: everything but how components are compiled and their types are told apart, which
/// is a hundred lines for each instruction, written where no secret is near.
pub const FILTER: &str = "trace,cranelift_codegen=info,cranelift_frontend=info,regalloc2=info,wasmtime_environ=info,\
                          wasmtime_internal_cranelift=info,wasmtime::runtime::type_registry=info";

/// Writes from now on what this process traces, unless it has something else that takes it. Does nothing outside of a run.
pub fn watch() {
    static WATCHED: Once = Once::new();
    WATCHED.call_once(|| {
        let Some(file) = run::output(&run::process_name()) else { return };
        let lines = tracing_subscriber::fmt().with_env_filter(EnvFilter::new(FILTER)).with_ansi(false);
        // A test that takes what is traced by itself keeps it by itself, too.
        let _ = lines.with_writer(Arc::new(file)).try_init();
    });
}
