//! Errors of the program: one line for people, an exit code and, if asked for, a JSON object for scripts.

use std::{io, process::ExitCode, time::Duration};

use kadence_tokio::kadence::{
    DriverClosedError, GetClosestPeersError, GetProvidersError, GetRecordError, PutRecordError, RequestError,
    StartProvidingError,
    node::{NodeError, ReadyError},
};
use serde_json::json;

use kadence_demo::output::chain;

use crate::output;

/// Error of a command, with its exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    reason: Reason,
    error: anyhow::Error,
}

/// Kinds of failure that have an exit code of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Exit code 1: any other failure.
    Failure,
    /// Exit code 3: the record, the provider or the package does not exist.
    NotFound,
    /// Exit code 4: the timeout passed.
    Timeout,
    /// Exit code 5: no peer of the network was reached, or none answered.
    NoPeer,
}

impl Reason {
    /// Returns the exit code. Code 2, wrong usage, comes from clap.
    fn code(self) -> u8 {
        match self {
            Self::Failure => 1,
            Self::NotFound => 3,
            Self::Timeout => 4,
            Self::NoPeer => 5,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Failure => "failure",
            Self::NotFound => "not_found",
            Self::Timeout => "timeout",
            Self::NoPeer => "no_peer",
        }
    }
}

impl Failure {
    pub(crate) fn new(reason: Reason, error: impl Into<anyhow::Error>) -> Self {
        Self { reason, error: error.into() }
    }

    pub(crate) fn not_found(error: anyhow::Error) -> Self {
        Self::new(Reason::NotFound, error)
    }

    pub(crate) fn timeout(after: Duration) -> Self {
        Self::new(
            Reason::Timeout,
            anyhow::anyhow!(
                "command did not finish within {}: try a longer --timeout",
                humantime::format_duration(after)
            ),
        )
    }

    #[cfg(test)]
    pub(crate) fn reason_name(&self) -> &'static str {
        self.reason.name()
    }

    /// Prints the error on stderr and, if `json`, as a JSON object on stdout. Returns the exit code.
    pub(crate) fn report(&self, json: bool) -> ExitCode {
        let text = chain(self.error.as_ref());
        output::note(format_args!("error: {text}"));
        // The report of a demonstration whose checks failed is itself the JSON object.
        if json && !self.error.is::<kadence_demo::ChecksFailedError>() {
            // There is nowhere else to report that stdout cannot be written.
            let _unwritable = output::json(&json!({ "ok": false, "reason": self.reason.name(), "error": text }));
        }
        ExitCode::from(self.reason.code())
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(Reason::Failure, error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::new(Reason::Failure, error)
    }
}

impl From<NodeError> for Failure {
    fn from(error: NodeError) -> Self {
        Self::new(Reason::Failure, error)
    }
}

impl From<DriverClosedError> for Failure {
    fn from(error: DriverClosedError) -> Self {
        Self::new(Reason::Failure, error)
    }
}

impl From<ReadyError> for Failure {
    fn from(error: ReadyError) -> Self {
        let reason = match &error {
            ReadyError::NoPeer { timeout: _, last_dial_error: _ } => Reason::NoPeer,
            _ => Reason::Failure,
        };
        Self::new(reason, error)
    }
}

impl From<GetRecordError> for Failure {
    fn from(error: GetRecordError) -> Self {
        let reason = match &error {
            GetRecordError::NotFound { .. } => Reason::NotFound,
            GetRecordError::Timeout { .. } => Reason::Timeout,
            GetRecordError::NoResponse { .. } | GetRecordError::NoKnownPeers => Reason::NoPeer,
            GetRecordError::Request(error) => of_request(error),
            // A quorum that was not reached.
            _ => Reason::Failure,
        };
        Self::new(reason, error)
    }
}

impl From<PutRecordError> for Failure {
    fn from(error: PutRecordError) -> Self {
        let reason = match &error {
            PutRecordError::Timeout { .. } => Reason::Timeout,
            PutRecordError::NoResponse { .. } | PutRecordError::NoKnownPeers => Reason::NoPeer,
            PutRecordError::Request(error) => of_request(error),
            // A quorum that was not reached, or the local store.
            _ => Reason::Failure,
        };
        Self::new(reason, error)
    }
}

impl From<GetProvidersError> for Failure {
    fn from(error: GetProvidersError) -> Self {
        let reason = match &error {
            GetProvidersError::NotFound { .. } => Reason::NotFound,
            GetProvidersError::Timeout { .. } => Reason::Timeout,
            GetProvidersError::NoResponse { .. } | GetProvidersError::NoKnownPeers => Reason::NoPeer,
            GetProvidersError::Request(error) => of_request(error),
            _ => Reason::Failure,
        };
        Self::new(reason, error)
    }
}

impl From<StartProvidingError> for Failure {
    fn from(error: StartProvidingError) -> Self {
        let reason = match &error {
            StartProvidingError::NoResponse { .. } | StartProvidingError::NoKnownPeers => Reason::NoPeer,
            StartProvidingError::Timeout { .. } => Reason::Timeout,
            StartProvidingError::Request(error) => of_request(error),
            // The local store.
            _ => Reason::Failure,
        };
        Self::new(reason, error)
    }
}

impl From<GetClosestPeersError> for Failure {
    fn from(error: GetClosestPeersError) -> Self {
        let reason = match &error {
            GetClosestPeersError::NoResponse { .. } | GetClosestPeersError::NoKnownPeers => Reason::NoPeer,
            GetClosestPeersError::Timeout { .. } => Reason::Timeout,
            GetClosestPeersError::Request(error) => of_request(error),
            _ => Reason::Failure,
        };
        Self::new(reason, error)
    }
}

fn of_request(error: &RequestError) -> Reason {
    match error {
        RequestError::ExpiredInQueue => Reason::Timeout,
        _ => Reason::Failure,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kadence_tokio::kadence::{Certainty, InvalidRequestError, Progress};

    use super::*;

    #[test]
    fn an_error_and_its_sources_are_one_line() {
        let error = anyhow::anyhow!("connection refused\nby the peer").context("cannot dial").context("no peer");
        assert_eq!(chain(error.as_ref()), "no peer: cannot dial: connection refused by the peer");
    }

    #[test]
    fn a_source_that_its_error_quotes_is_not_repeated() {
        let error = anyhow::anyhow!("in use").context("cannot listen: in use");
        assert_eq!(chain(error.as_ref()), "cannot listen: in use");
        let invalid = InvalidRequestError::ValueTooLong { len: 9, max: 8 };
        let error = PutRecordError::Request(RequestError::Invalid(invalid));
        assert_eq!(
            chain(&error),
            "invalid request: value of 9 bytes is too long: at most 8 are allowed under this key"
        );
    }

    #[test]
    fn each_reason_has_an_exit_code_of_its_own() {
        let progress = Progress::default();
        let not_found = Failure::from(GetRecordError::NotFound {
            closest_peers: Arc::default(),
            certainty: Certainty::Inconclusive,
            rejected: 0,
            progress,
        });
        assert_eq!(not_found.reason.code(), 3);
        assert_eq!(Failure::from(GetRecordError::Timeout { found: Arc::default(), progress }).reason.code(), 4);
        assert_eq!(Failure::from(GetRecordError::from(RequestError::ExpiredInQueue)).reason.code(), 4);
        assert_eq!(Failure::from(PutRecordError::NoKnownPeers).reason.code(), 5);
        assert_eq!(Failure::from(GetRecordError::from(RequestError::Shutdown)).reason.code(), 1);
    }
}
