//! What a person sees while the demo runs, and what ends it if it hangs.

use std::{
    fmt,
    io::{self, IsTerminal},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::output;

/// The phases, as a bar on a terminal or as plain lines, on stderr.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    phase: Phase,
    began: Instant,
}

/// The phase that is under way, to be read from outside of the runtime.
type Phase = Arc<Mutex<&'static str>>;

impl Progress {
    pub(super) fn new() -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(0);
            if let Ok(style) = ProgressStyle::with_template("{prefix:>10} [{bar:30}] {pos}/{len} {elapsed}") {
                bar.set_style(style.progress_chars("=> "));
            }
            bar
        });
        Self { bar, phase: Arc::new(Mutex::new("reading the files")), began: Instant::now() }
    }

    /// A phase of so many steps begins.
    pub(super) fn begin(&mut self, phase: &'static str, steps: usize) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
        self.began = Instant::now();
        match &self.bar {
            Some(bar) => {
                bar.reset();
                bar.set_prefix(phase);
                bar.set_length(steps as u64);
            }
            None => output::note(format_args!("{phase} ({steps}) ...")),
        }
    }

    pub(super) fn step(&self) {
        if let Some(bar) = &self.bar {
            bar.inc(1);
        }
    }

    /// The phase has ended, with these results.
    pub(super) fn end(&self, result: fmt::Arguments<'_>) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let phase = *self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        output::note(format_args!("{phase}: {result}, {:.2} s", self.began.elapsed().as_secs_f64()));
    }
}

/// Ends the process when the demo takes too long: a thread, because what hangs may be the runtime.
#[derive(Debug)]
pub(super) struct Watchdog {
    /// Dropped with the watchdog, which ends its thread.
    _alive: mpsc::Sender<()>,
}

impl Watchdog {
    pub(super) fn start(limit: Duration, progress: &Progress, json: bool) -> Self {
        let (alive, ended) = mpsc::channel();
        let phase = Arc::clone(&progress.phase);
        thread::spawn(move || {
            if ended.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                let phase = *phase.lock().unwrap_or_else(PoisonError::into_inner);
                let error = format!("the demo did not end within {limit:?}; it hung in the phase `{phase}`");
                output::note(format_args!("\nerror: {error}"));
                if json {
                    let _lost = output::json(&json!({ "ok": false, "phase": phase, "error": error }));
                }
                std::process::exit(1);
            }
        });
        Self { _alive: alive }
    }
}
