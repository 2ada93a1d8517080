//! `clawcoil serve`

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use clawcoil::host::{Home, Host};
use clawcoil::runtime;
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use url::Url;

use super::{address, agent};
use crate::exit::Failure;
use crate::logging;
use crate::output::Output;
use crate::serve::config::is_origin;
use crate::serve::{self, App, Config, Counting, Listening, Metrics, Origins, Place, Traces};
use crate::settings::Settings;

/// Where it listens if nobody says otherwise.
const DEFAULT: Place = Place::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8418));

/// How often what nobody confirmed is looked for.
const TIDY: Duration = Duration::from_mins(1);

/// Serve skills to programs over HTTP
///
/// Tokens are refreshed before they expire as long as it runs. Changed permissions come into force by themselves, and at SIGHUP;
/// where they have errors, those before stay. SIGTERM and Ctrl-C let the calls under way finish, as long as `drain_seconds` of
/// serve.toml; a second one ends them at once.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  clawcoil serve                                        on this machine only
  clawcoil serve --listen unix:/run/clawcoil.sock       for local programs
  clawcoil serve --public-url https://skills.example.com    behind a proxy that ends TLS")]
pub(crate) struct Serve {
    /// Where to listen: an address and a port, or unix: and a file
    ///
    /// Default: `listen` of serve.toml, or 127.0.0.1:8418.
    #[arg(long, value_name = "PLACE")]
    listen: Option<Place>,

    /// How browsers and programs reach it; default: where it listens
    #[arg(long, value_name = "URL", value_parser = address)]
    public_url: Option<Url>,

    /// Log a line for each request: method, route, status, milliseconds, the program, the request's id
    ///
    /// Never what stands in an address, nor a user. With `RUST_LOG` the lines have the target `clawcoil::access`; with `-v` they are
    /// there as well.
    #[arg(long)]
    access_log: bool,
}

impl Serve {
    pub(crate) async fn run(self, settings: &Settings, output: &Output) -> Result<(), Failure> {
        let home = agent::existing_home(settings)?;
        let config = Config::of(&home)?;
        let traces = Traces::chosen(settings.collector.as_deref(), config.collector.as_ref())?;
        logging::start_serving(settings, self.access_log, traces.as_ref());
        let metrics = Metrics::start()?;
        let builder = Host::builder(home).runtime(runtime::Settings::default()).observer(Arc::new(Counting::default()));
        let host = Arc::new(builder.open().await?);
        agent::opened(settings, &host);
        let asked = self.listen.or_else(|| config.listen.clone()).unwrap_or(DEFAULT);
        let listening = Listening::at(&asked).await.map_err(|error| {
            Failure::error(format!("{asked} can't be listened at: {error}; choose another place with --listen"))
        })?;
        let place = listening.place(&asked).map_err(|error| Failure::error(error.to_string()))?;
        let origins = origins(self.public_url.or_else(|| config.public_url.clone()), &place)?;
        let app = Arc::new(App::new(Arc::clone(&host), origins, config).with_metrics(metrics));
        let schedule = host.start_schedule();
        let watching = app.changes.watch(Arc::clone(&host));
        let tidying = tokio::spawn(tidy(Arc::clone(&app)));
        let mut signals = Signals::new()?;
        let object = json!({ "listening": place.to_string(), "public_url": app.origins.origin() });
        output.answer(object, || format!("ClawCoil listens at {place}. Ctrl-C stops it."))?;
        let closing = CancellationToken::new();
        let limits = app.config.limits;
        let serving = listening.serve(serve::router(Arc::clone(&app)), limits.connections, &closing);
        let ending = async {
            let ended = tokio::select! {
                () = signals.next() => Ok(()),
                // Who was let in by what is open may have been shut out in what stands there now: nothing may finish.
                () = app.changes.vault_replaced() => Err(replaced(host.home())),
            };
            let drain = if ended.is_ok() { limits.drain } else { Duration::ZERO };
            app.stop(drain, signals.next()).await;
            closing.cancel();
            ended
        };
        let ended = tokio::select! {
            ((), ended) = async { tokio::join!(serving, ending) } => ended,
            () = app.keep_metrics() => Ok(()),
        };
        watching.abort();
        tidying.abort();
        // Nothing is claimed any more; what is being refreshed is waited for at the program's end.
        schedule.stop().await;
        if let Some(traces) = traces {
            traces.end().await;
        }
        ended
    }
}

fn replaced(home: &Home) -> Failure {
    let database = home.database();
    Failure::error(format!(
        "{} was replaced or taken away while it was served, so nothing more is done with the one that was open: put the right file \
         in place and start the server again",
        database.display()
    ))
}

/// What tells a server to stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let handle =
            |kind| signal(kind).map_err(|error| Failure::error(format!("signals can't be listened for: {error}")));
        Ok(Self { terminate: handle(SignalKind::terminate())?, interrupt: handle(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Ends from time to time what people have begun and not confirmed.
async fn tidy(app: Arc<App>) {
    loop {
        app.host.clock().sleep(TIDY).await;
        app.sessions.tidy(&app).await;
    }
}

/// How browsers will reach this agent's server, as far as its files say.
pub(super) fn expected_origins(home: &Home) -> Result<Origins, Failure> {
    let config = Config::of(home)?;
    origins(config.public_url, &config.listen.unwrap_or(DEFAULT))
}

fn origins(public: Option<Url>, place: &Place) -> Result<Origins, Failure> {
    let local = match place {
        Place::Tcp(address) => vec![address.to_string(), format!("localhost:{}", address.port())],
        // What a client calls the other end of a socket file is its own business.
        Place::Unix(_) => vec!["localhost".to_owned()],
    };
    let public = match (public, place) {
        (Some(url), _) if is_origin(&url) => url,
        (Some(url), _) => {
            return Err(Failure::usage(format!("{url} can't be the public address: write http(s)://host[:port]")));
        }
        (None, Place::Tcp(address)) if address.ip().is_loopback() => {
            format!("http://{address}").parse().map_err(|_| Failure::error("the address is no part of a URL"))?
        }
        (None, Place::Tcp(_)) => {
            return Err(Failure::usage(
                "others can reach this address: say with --public-url how, so that requests for other names are refused",
            ));
        }
        (None, Place::Unix(_)) => {
            "http://localhost".parse().map_err(|_| Failure::error("the address is no part of a URL"))?
        }
    };
    Ok(Origins::new(public, local))
}
