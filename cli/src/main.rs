//! The `clawcoil` command.

mod api;
mod browser;
mod callers;
mod commands;
mod connecting;
mod console;
mod exit;
mod logging;
mod mcp;
mod output;
mod receipt;
mod sandbox;
mod serve;
mod settings;
mod upgrades;

use std::process::ExitCode;
use std::sync::PoisonError;
use std::time::Duration;

use clap::Parser as _;

use commands::{Cli, Command};
use exit::{Code, Failure};
use output::Output;
use settings::Settings;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long a refresh may take that was begun before the command ended: the call to the provider, and the requests that it
/// waits for.
const REFRESH: Duration = Duration::from_secs(45);

/// How long threads have to end once the command is done.
const GRACE: Duration = Duration::from_millis(200);

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(message) => {
            // Nobody is left to tell if this fails.
            let _ = message.print();
            // Help and version are no errors; everything else is a misuse.
            if !message.use_stderr() {
                return ExitCode::SUCCESS;
            }
            // Where no arguments were understood, the words themselves say whether a program reads.
            if std::env::args_os().skip(1).take_while(|word| word != "--").any(|word| word == "--json") {
                output::misuse(&message);
            }
            return Code::Usage.into();
        }
    };
    let settings = cli.settings.resolve();
    let output = Output::new(&settings);
    // A server begins by itself, when it knows where traces go.
    if !matches!(cli.command, Command::Serve(_)) {
        logging::start(&settings);
    }
    let done = tokio::runtime::Runtime::new()
        .map_err(|error| Failure::error(format!("the program can't start its threads: {error}")))
        .and_then(|runtime| {
            let done = runtime.block_on(async {
                let done = run(cli.command, &settings, &output).await;
                settle(&settings).await;
                done
            });
            // A thread that waits for a person to type never ends by itself; others get the time to tidy up.
            runtime.shutdown_timeout(GRACE);
            done
        });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.is_quiet() {
                output.failure(&failure);
            }
            failure.exit_code()
        }
    }
}

/// Waits for the refreshes that are under way: a provider may have replaced a token already, and its answer is the only place
/// where the new one stands. Also for tokens that are being ended, which the vault has let go of. Another Ctrl-C or
/// SIGTERM gives up on that.
async fn settle(settings: &Settings) {
    let under_way = std::mem::take(&mut *settings.under_way.lock().unwrap_or_else(PoisonError::into_inner));
    for (broker, connector) in under_way {
        tokio::select! {
            ((), ()) = async { tokio::join!(broker.settle(), connector.settle()) } => {}
            () = told_to_end() => return,
            () = tokio::time::sleep(REFRESH) => return,
        }
    }
}

/// Waits for Ctrl-C or SIGTERM.
async fn told_to_end() {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).ok();
    let terminated = async {
        match &mut terminate {
            Some(terminate) => terminate.recv().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminated => {}
    }
}

/// Runs the command until it is done or interrupted.
async fn run(command: Command, settings: &Settings, output: &Output) -> Result<(), Failure> {
    let interruptible = command.is_interruptible();
    tokio::select! {
        done = command.run(settings, output) => done,
        // What was begun is dropped here, which undoes it or leaves it whole: nothing is half-written.
        interrupted = tokio::signal::ctrl_c(), if interruptible => Err(interrupted.map_or_else(
            |error| Failure::error(format!("Ctrl-C can't be listened for: {error}")),
            |()| Failure::new(Code::Interrupted, "interrupted"),
        )),
    }
}
