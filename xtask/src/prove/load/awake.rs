//! Clients that never sleep: one thread looks at all of their connections by turns.
//!
//! A server that answers a client that sleeps pays for waking its core, which on a virtual machine takes as long as a call does.
//! That says something of the machine, and hides what the servers themselves take, so they are compared without it.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::clients::Run;

/// The most that an answer may be, in bytes.
const LARGEST: usize = 64 << 10;

/// A connection, and what has come of its answer.
struct Client<'a> {
    stream: TcpStream,
    request: &'a [u8],
    answer: Vec<u8>,
    asked: Instant,
}

/// Lets clients call for so long, one for each request, each as soon as it is answered. Whatever is no answer of status 200 is an error.
#[expect(clippy::disallowed_methods, reason = "what is measured is time itself")]
pub(super) fn run(address: SocketAddr, requests: &[Vec<u8>], time: Duration) -> Result<Run> {
    let begun = Instant::now();
    let mut clients = requests.iter().map(|request| Client::open(address, request)).collect::<Result<Vec<_>>>()?;
    let mut times = Vec::new();
    while begun.elapsed() < time {
        for client in &mut clients {
            times.extend(client.look()?);
        }
    }
    let took = begun.elapsed();
    times.sort_unstable();
    Ok(Run { answers: times.len() as u64, errors: 0, took, times })
}

impl<'a> Client<'a> {
    #[expect(clippy::disallowed_methods, reason = "what is measured is time itself")]
    fn open(address: SocketAddr, request: &'a [u8]) -> Result<Self> {
        let mut stream = TcpStream::connect(address).context("the server takes no connection")?;
        stream.set_nodelay(true)?;
        stream.write_all(request)?;
        stream.set_nonblocking(true)?;
        Ok(Self { stream, request, answer: Vec::with_capacity(LARGEST), asked: Instant::now() })
    }

    /// Looks whether the answer has come, and asks again where it has. Gives how long it took.
    #[expect(clippy::disallowed_methods, reason = "what is measured is time itself")]
    fn look(&mut self) -> Result<Option<Duration>> {
        let mut piece = [0; 8 << 10];
        let read = match self.stream.read(&mut piece) {
            Ok(0) => bail!("the server has closed the connection"),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        self.answer.extend_from_slice(piece.get(..read).unwrap_or_default());
        if !is_whole(&self.answer)? {
            return Ok(None);
        }
        let took = self.asked.elapsed();
        self.answer.clear();
        self.asked = Instant::now();
        // A request fits into what the system keeps for a connection.
        self.stream.write_all(self.request).context("a request could not be sent")?;
        Ok(Some(took))
    }
}

/// Whether this is a whole answer of status 200: with its length, or in pieces.
fn is_whole(answer: &[u8]) -> Result<bool> {
    ensure!(answer.len() <= LARGEST, "an answer is larger than {LARGEST} bytes");
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(false) };
    let (head, body) = answer.split_at(end + 4);
    let head = std::str::from_utf8(head).context("the head of an answer is no text")?;
    ensure!(head.starts_with("HTTP/1.1 200 "), "the answer is {:?}", head.lines().next().unwrap_or_default());
    let fields = head.lines().filter_map(|line| line.split_once(':'));
    for (name, value) in fields {
        if name.eq_ignore_ascii_case("content-length") {
            return Ok(body.len() >= value.trim().parse().context("the length of an answer is no number")?);
        }
        if name.eq_ignore_ascii_case("transfer-encoding") {
            return Ok(body.ends_with(b"0\r\n\r\n"));
        }
    }
    bail!("the answer has no length")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_with_its_last_byte_and_one_of_another_status_is_an_error() {
        let sized = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        let in_pieces = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
        for answer in [&sized[..], in_pieces] {
            for length in 0..answer.len() {
                assert!(!is_whole(&answer[..length]).unwrap(), "{length} of {}", answer.len());
            }
            assert!(is_whole(answer).unwrap());
        }
        assert!(is_whole(b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n").is_err());
    }
}
