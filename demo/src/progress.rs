//! Progress on stderr, and the watchdog that ends a demonstration that hangs.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::output;

/// The phases, each printed as two lines on stderr: one when it begins and one when it has ended.
pub(super) struct Progress {
    phase: Phase,
    began: Instant,
}

/// Name of the phase that is under way. Shared with the watchdog's thread.
type Phase = Arc<Mutex<&'static str>>;

impl Progress {
    pub(super) fn new() -> Self {
        Self { phase: Arc::new(Mutex::new("reading files")), began: Instant::now() }
    }

    /// Begins a phase of `steps` steps.
    pub(super) fn begin(&mut self, phase: &'static str, steps: usize) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
        self.began = Instant::now();
        output::note(format_args!("{phase} ({steps}) ..."));
    }

    /// Ends the phase and prints its result.
    pub(super) fn end(&self, result: fmt::Arguments<'_>) {
        let phase = *self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        output::note(format_args!("{phase}: {result}, {:.2} s", self.began.elapsed().as_secs_f64()));
    }
}

/// Ends the process with exit code 1 when a time has passed, unless dropped before. It is a thread of its own, because
/// the runtime may be what hangs.
#[derive(Debug)]
pub(super) struct Watchdog {
    /// Dropped with the watchdog, which ends its thread.
    _alive: mpsc::Sender<()>,
    /// Set by the first of two events: the watchdog is dropped, or its time has passed.
    over: Arc<AtomicBool>,
}

impl Watchdog {
    pub(super) fn start(limit: Duration, progress: &Progress, json: bool) -> Self {
        let (alive, ended) = mpsc::channel();
        let phase = Arc::clone(&progress.phase);
        let over = Arc::new(AtomicBool::new(false));
        let watchdog = Self { _alive: alive, over: Arc::clone(&over) };
        thread::spawn(move || {
            let expired = ended.recv_timeout(limit) == Err(RecvTimeoutError::Timeout);
            if !expired || over.swap(true, Ordering::SeqCst) {
                return;
            }
            let phase = *phase.lock().unwrap_or_else(PoisonError::into_inner);
            let error = format!("demonstration did not end within {limit:?}: phase `{phase}` is still under way");
            output::note(format_args!("error: {error}"));
            if json {
                let _unwritable =
                    output::json(&json!({ "ok": false, "reason": "failure", "phase": phase, "error": error }));
            }
            std::process::exit(1);
        });
        watchdog
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        if self.over.swap(true, Ordering::SeqCst) {
            // The watchdog has reported and is ending the process. A second report would contradict the first.
            loop {
                thread::park();
            }
        }
    }
}
