//! What is kept of a test run: the words of child processes, and what servers print.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use crate::run;

/// Keeps what something of this name has put out.
pub fn keep(name: &str, output: &[u8]) {
    if !output.is_empty() {
        write(run::output(name).as_mut(), output);
    }
}

/// Reads all that something of this name puts out, on a thread of its own, so that it never waits for its reader; keeps it.
pub fn copy(name: &str, mut output: impl Read + Send + 'static) {
    let file = run::output(name);
    thread::spawn(move || match file {
        Some(mut file) => io::copy(&mut output, &mut file),
        None => io::copy(&mut output, &mut io::sink()),
    });
}

/// What a process says on its stderr, without the lines that it logs there. All of it is kept under this name.
pub fn without_log(name: &str, stderr: &[u8]) -> Vec<u8> {
    keep(name, stderr);
    stderr.split_inclusive(|byte| *byte == b'\n').filter(|line| !is_logged(line)).collect::<Vec<_>>().concat()
}

/// The same line by line while the process runs; a thread reads them, so that the process never waits for its reader.
pub fn lines(name: &str, stderr: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    let mut file = run::output(name);
    thread::spawn(move || {
        let mut stderr = BufReader::new(stderr);
        let mut line = Vec::new();
        while stderr.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            write(file.as_mut(), &line);
            if !is_logged(&line) {
                // A test that has read what it wanted does not listen any more.
                let _ = sender.send(String::from_utf8_lossy(&line).into_owned());
            }
            line.clear();
        }
    });
    receiver
}

fn write(file: Option<&mut File>, bytes: &[u8]) {
    if let Some(file) = file {
        file.write_all(bytes).expect("the folder of the test run can be written");
    }
}

/// Whether a line is as `tracing-subscriber` writes them: `2026-11-24T11:03:07.123456Z TRACE …`.
fn is_logged(line: &[u8]) -> bool {
    let Ok(line) = std::str::from_utf8(line) else { return false };
    let Some((time, rest)) = line.split_once('Z') else { return false };
    let levels = ["TRACE", "DEBUG", "INFO", "WARN", "ERROR"];
    time.len() >= "2026-11-24T11:03:07".len()
        && time.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'-' | b'T' | b':' | b'.'))
        && levels.iter().any(|level| rest.trim_start().strip_prefix(level).is_some_and(|rest| rest.starts_with(' ')))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "error: no\n2026-11-24T11:03:07.123456Z  WARN clawcoil: a refresh failed\nOpen http://x\n\
                        2026-11-24T11:03:07.123457Z TRACE log: http://y\n  2026 was a year\n";

    #[test]
    fn what_is_said_is_told_from_what_is_logged() {
        let said = without_log("a-test", SAID.as_bytes());
        assert_eq!(String::from_utf8(said).unwrap(), "error: no\nOpen http://x\n  2026 was a year\n");
        let lines: Vec<_> = lines("a-test", SAID.as_bytes()).into_iter().collect();
        assert_eq!(lines, ["error: no\n", "Open http://x\n", "  2026 was a year\n"]);
    }
}
