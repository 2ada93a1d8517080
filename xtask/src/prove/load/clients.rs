//! Clients that call as fast as they are answered, and clients that don't get to the point.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};

use super::awake;

/// How long an answer may take before it counts as an error.
const LONGEST: Duration = Duration::from_secs(30);

/// Clients, each with a connection of its own and a request that it sends again and again.
pub(super) struct Clients {
    address: SocketAddr,
    requests: Vec<Vec<u8>>,
}

/// What came of a run.
pub(super) struct Run {
    pub(super) answers: u64,
    pub(super) errors: u64,
    pub(super) took: Duration,
    /// Sorted.
    pub(super) times: Vec<Duration>,
}

impl Run {
    #[expect(clippy::cast_precision_loss, reason = "there are less than 2^52 calls")]
    pub(super) fn per_second(&self) -> f64 {
        self.answers as f64 / self.took.as_secs_f64()
    }

    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a place in a list"
    )]
    pub(super) fn quantile(&self, quantile: f64) -> Duration {
        let place = (self.times.len() as f64 * quantile) as usize;
        self.times.get(place.min(self.times.len().saturating_sub(1))).copied().unwrap_or_default()
    }
}

impl Clients {
    /// As many as there are requests.
    pub(super) fn new(address: SocketAddr, requests: Vec<Vec<u8>>) -> Self {
        Self { address, requests }
    }

    /// Lets them call for so long, without ever sleeping.
    pub(super) fn run_awake(&self, time: Duration) -> Result<Run> {
        awake::run(self.address, &self.requests, time)
    }

    /// Lets them call for so long.
    #[expect(clippy::disallowed_methods, reason = "what is measured is time itself")]
    pub(super) fn run(&self, time: Duration) -> Result<Run> {
        let over = AtomicBool::new(false);
        let begun = Instant::now();
        let (counts, took) = thread::scope(|scope| {
            let clients: Vec<_> =
                self.requests.iter().map(|request| scope.spawn(|| client(self.address, request, &over))).collect();
            thread::sleep(time);
            over.store(true, Ordering::Relaxed);
            let counts: Vec<_> = clients.into_iter().map(thread::ScopedJoinHandle::join).collect();
            (counts, begun.elapsed())
        });
        let mut run = Run { answers: 0, errors: 0, took, times: Vec::new() };
        for count in counts {
            let (times, errors) = count.map_err(|_| anyhow!("a client has panicked"))?;
            run.answers += times.len() as u64;
            run.errors += errors.len() as u64;
            if let Some(first) = errors.first().filter(|_| run.errors == errors.len() as u64) {
                eprintln!("the first error: {first:#}");
            }
            run.times.extend(times);
        }
        run.times.sort_unstable();
        Ok(run)
    }
}

#[expect(clippy::disallowed_methods, reason = "what is measured is time itself")]
fn client(address: SocketAddr, request: &[u8], over: &AtomicBool) -> (Vec<Duration>, Vec<anyhow::Error>) {
    let (mut times, mut errors) = (Vec::new(), Vec::new());
    let mut connection = None;
    while !over.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let answered = (|| {
            let mut open = connection.take().map_or_else(|| Connection::open(address), Ok)?;
            let status = open.ask(request)?;
            if status != 200 {
                bail!("the status is {status}");
            }
            connection = Some(open);
            Ok(())
        })();
        match answered {
            Ok(()) => times.push(begun.elapsed()),
            Err(error) => errors.push(error),
        }
    }
    (times, errors)
}

/// A connection that is used again.
pub(super) struct Connection(BufReader<TcpStream>);

impl Connection {
    pub(super) fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).context("the server takes no connection")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LONGEST))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Sends a request, and gives the status and the headers of its answer.
    pub(super) fn head(&mut self, request: &[u8]) -> Result<(u16, Vec<(String, String)>)> {
        self.0.get_mut().write_all(request)?;
        let status = self.line()?.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no status line")?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(':') else { return Ok((status, headers)) };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    /// Sends a request and reads the whole answer.
    fn ask(&mut self, request: &[u8]) -> Result<u16> {
        let (status, headers) = self.head(request)?;
        let header = |name: &str| headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        let length = header("content-length").and_then(|length| length.parse().ok());
        match length {
            Some(length) => self.skip(length)?,
            None if header("transfer-encoding") == Some("chunked") => loop {
                let size = u64::from_str_radix(self.line()?.trim(), 16).context("no size of a chunk")?;
                self.skip(size + 2)?;
                if size == 0 {
                    break;
                }
            },
            None => bail!("the answer has no length"),
        }
        Ok(status)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            bail!("the server has closed the connection");
        }
        line.truncate(line.trim_end().len());
        Ok(line)
    }

    fn skip(&mut self, length: u64) -> Result<()> {
        let skipped = std::io::copy(&mut self.0.by_ref().take(length), &mut std::io::sink())?;
        if skipped == length { Ok(()) } else { bail!("the answer is cut off") }
    }

    /// Whether the other end has not closed it.
    pub(super) fn is_open(&mut self) -> Result<bool> {
        let stream = self.0.get_mut();
        stream.set_nonblocking(true)?;
        let open = match stream.peek(&mut [0]) {
            Ok(read) => read > 0,
            Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
        };
        stream.set_nonblocking(false)?;
        Ok(open)
    }
}

/// Clients that have sent half of a request's head and say no more.
pub(super) struct Slow {
    _clients: Vec<TcpStream>,
}

impl Slow {
    pub(super) fn open(address: SocketAddr, count: usize) -> Result<Self> {
        let mut clients = Vec::with_capacity(count);
        for _ in 0..count {
            let mut stream = TcpStream::connect(address).context("the server takes no slow client")?;
            stream.write_all(b"POST /v1/invocations HTTP/1.1\r\nx-slow: ")?;
            clients.push(stream);
        }
        Ok(Self { _clients: clients })
    }
}
