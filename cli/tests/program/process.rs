//! Child processes with a deadline that never outlive their test.

#![expect(clippy::expect_used, clippy::panic, reason = "a failure in a helper fails the test")]

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader, Read, Write},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

/// Deadline of anything that a child does. Far above what a busy computer needs without optimisation, so that a child
/// that reaches it hangs.
const LIMIT: Duration = Duration::from_secs(330);

/// A running `kadence`. Killed when it is dropped.
pub(crate) struct Running {
    child: Child,
    stdout: Receiver<Vec<u8>>,
    stderr: Receiver<Vec<u8>>,
}

/// Exit code and output of an ended child.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

/// Runs `kadence` to its end, without input.
pub(crate) fn run<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Ended {
    run_with_input(args, b"")
}

/// Runs `kadence` to its end, with input on stdin.
pub(crate) fn run_with_input<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>, input: &[u8]) -> Ended {
    let mut running = Running::start_with(args, Stdio::piped());
    let mut stdin = running.child.stdin.take().expect("it is piped");
    let input = input.to_vec();
    // A thread, because a child that does not read its input would block this one. The child may also have ended.
    thread::spawn(move || stdin.write_all(&input).ok());
    running.end()
}

impl Running {
    pub(crate) fn start<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Self {
        Self::start_with(args, Stdio::null())
    }

    fn start_with<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>, stdin: Stdio) -> Self {
        Self::spawn(Command::new(env!("CARGO_BIN_EXE_kadence")).args(args).stdin(stdin))
    }

    /// Runs any command, with its output piped.
    pub(crate) fn spawn(command: &mut Command) -> Self {
        command.env_remove("RUST_LOG").stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program is there");
        let stdout = lines(child.stdout.take().expect("it is piped"));
        let stderr = lines(child.stderr.take().expect("it is piped"));
        Self { child, stdout, stderr }
    }

    /// Returns the next line on stdout.
    pub(crate) fn line(&mut self) -> String {
        let line = self.stdout.recv_timeout(LIMIT);
        let line = line.unwrap_or_else(|_| panic!("no further line on stdout; stderr: {}", self.stderr_so_far()));
        String::from_utf8(line).expect("text").trim_end().to_owned()
    }

    /// Closes stdout on the side of the reader.
    pub(crate) fn hang_up(&mut self) {
        self.stdout = mpsc::channel().1;
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) -> Ended {
        let deadline = Instant::now() + LIMIT;
        let stdout = rest(&self.stdout, deadline)
            .unwrap_or_else(|| panic!("the child did not end; stderr: {}", self.stderr_so_far()));
        let stderr = rest(&self.stderr, deadline).expect("it ends with stdout");
        // Both pipes are closed, so the child is ending or has ended.
        let status = self.child.wait().expect("it is our child");
        Ended { code: status.code(), stdout, stderr: String::from_utf8(stderr).expect("text") }
    }

    #[cfg(unix)]
    pub(crate) fn terminate(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
    }

    fn stderr_so_far(&self) -> String {
        String::from_utf8_lossy(&self.stderr.try_iter().flatten().collect::<Vec<u8>>()).into_owned()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Errors mean that it has already ended.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Ended {
    /// Returns the output as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).expect("text")
    }

    /// Returns the last line of the output, which is a JSON object.
    pub(crate) fn json(&self) -> serde_json::Value {
        let last = self.text().lines().last().unwrap_or_else(|| panic!("no output; stderr: {}", self.stderr));
        serde_json::from_str(last).expect("JSON")
    }

    /// Returns the only line of the output, which is a JSON object.
    pub(crate) fn only_object(&self) -> serde_json::Value {
        assert_eq!(self.text().lines().count(), 1, "stdout: {}", self.text());
        let value = self.json();
        assert!(value.is_object(), "{value}");
        value
    }

    /// Checks the exit code.
    pub(crate) fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout: {}\nstderr: {}", self.stdout.escape_ascii(), self.stderr);
        self
    }
}

fn lines(pipe: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        while pipe.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            // The receiver was dropped: close the pipe.
            if sender.send(std::mem::take(&mut line)).is_err() {
                break;
            }
        }
    });
    receiver
}

/// Returns all lines up to the end, or `None` if the end does not come before the deadline.
fn rest(lines: &Receiver<Vec<u8>>, deadline: Instant) -> Option<Vec<u8>> {
    let mut rest = Vec::new();
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => rest.extend(line),
            Err(RecvTimeoutError::Disconnected) => return Some(rest),
            Err(RecvTimeoutError::Timeout) => return None,
        }
    }
}
