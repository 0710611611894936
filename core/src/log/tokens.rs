//! Tokens of a line, and the plain types written as such.

use std::{fmt::Write as _, num::NonZeroUsize, sync::Arc, time::Duration};

use libp2p::{
    Multiaddr, PeerId,
    kad::{KBucketKey, RecordKey},
};
use web_time::Instant;

use super::{LogValues, Values};

/// Type that is written as tokens and read back.
pub(super) trait Field: Sized {
    fn put(&self, writer: &mut Writer);
    /// Reads a value. `None` if the tokens are malformed.
    fn take(tokens: &mut Tokens<'_>) -> Option<Self>;
}

pub(super) struct Writer {
    line: String,
    epoch: Instant,
    values: Values,
}

impl Writer {
    pub(super) fn new(epoch: Instant, values: Values) -> Self {
        Self { line: String::new(), epoch, values }
    }

    pub(super) fn word(&mut self, word: impl std::fmt::Display) {
        if !self.line.is_empty() {
            self.line.push(' ');
        }
        // Writing to a string does not fail.
        let _infallible = write!(self.line, "{word}");
    }

    /// Writes bytes other than a record's value: `x` and their digits.
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.word('x');
        self.digits(bytes);
    }

    /// Writes the value of a record.
    pub(super) fn value(&mut self, value: &[u8]) {
        let hash;
        let shown = match self.values {
            Values::Whole => return self.bytes(value),
            Values::Hashed => {
                hash = KBucketKey::new(value.to_vec());
                hash.hashed_bytes()
            }
            Values::StandIns => value,
        };
        self.word(format_args!("h{}:", value.len()));
        self.digits(shown.get(..STAND_IN.min(value.len())).unwrap_or(shown));
    }

    /// Writes a point in time, which may be before the epoch.
    pub(super) fn instant(&mut self, at: Instant) {
        match at.checked_duration_since(self.epoch) {
            Some(after) => self.word(format_args!("+{}", nanos(after))),
            None => self.word(format_args!("-{}", nanos(self.epoch.saturating_duration_since(at)))),
        }
    }

    pub(super) fn finish(self) -> String {
        self.line
    }

    fn digits(&mut self, bytes: &[u8]) {
        for byte in bytes {
            let _infallible = write!(self.line, "{byte:02x}");
        }
    }
}

/// Number of bytes of a hash that stand for a value. A stand-in repeats these bytes, so its beginning is the hash.
const STAND_IN: usize = 8;

/// Maximum length of a stand-in: several times a packet.
const LONGEST_STAND_IN: usize = 1024 * 1024;

pub(super) struct Tokens<'a> {
    rest: std::iter::Peekable<std::str::Split<'a, char>>,
    epoch: Instant,
    values: LogValues,
}

impl<'a> Tokens<'a> {
    pub(super) fn new(line: &'a str, epoch: Instant, values: LogValues) -> Self {
        Self { rest: line.split(' ').peekable(), epoch, values }
    }

    pub(super) fn next(&mut self) -> Option<&'a str> {
        self.rest.next()
    }

    pub(super) fn expect(&mut self, word: &str) -> Option<()> {
        (self.next()? == word).then_some(())
    }

    pub(super) fn is_empty(&mut self) -> bool {
        self.rest.peek().is_none()
    }

    pub(super) fn bytes(&mut self) -> Option<Vec<u8>> {
        digits(self.next()?.strip_prefix('x')?)
    }

    pub(super) fn value(&mut self) -> Option<Vec<u8>> {
        match self.values {
            LogValues::Whole => self.bytes(),
            LogValues::Hashed => {
                let (len, hash) = self.next()?.strip_prefix('h')?.split_once(':')?;
                let (len, hash) = (len.parse::<usize>().ok()?, digits(hash)?);
                if len > LONGEST_STAND_IN || hash.len() != STAND_IN.min(len) {
                    return None;
                }
                Some(hash.into_iter().cycle().take(len).collect())
            }
        }
    }

    pub(super) fn instant(&mut self) -> Option<Instant> {
        let token = self.next()?;
        let nanos = |digits: &str| digits.parse().ok().map(Duration::from_nanos);
        match token.strip_prefix('+') {
            Some(after) => self.epoch.checked_add(nanos(after)?),
            None => self.epoch.checked_sub(nanos(token.strip_prefix('-')?)?),
        }
    }
}

/// Spans beyond five centuries are equal: "never".
fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

fn digits(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    if !text.len().is_multiple_of(2) {
        return None;
    }
    text.as_bytes()
        .chunks_exact(2)
        .map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        })
        .collect()
}

macro_rules! parsed {
    ($($type:ty),*) => {$(
        impl Field for $type {
            fn put(&self, writer: &mut Writer) {
                writer.word(self);
            }

            fn take(tokens: &mut Tokens<'_>) -> Option<Self> {
                tokens.next()?.parse().ok()
            }
        }
    )*};
}

parsed!(u8, u32, u64, usize, bool, NonZeroUsize);

impl Field for PeerId {
    fn put(&self, writer: &mut Writer) {
        writer.bytes(&self.to_bytes());
    }

    fn take(tokens: &mut Tokens<'_>) -> Option<Self> {
        Self::from_bytes(&tokens.bytes()?).ok()
    }
}

impl Field for Multiaddr {
    fn put(&self, writer: &mut Writer) {
        writer.bytes(self.as_ref());
    }

    fn take(tokens: &mut Tokens<'_>) -> Option<Self> {
        Self::try_from(tokens.bytes()?).ok()
    }
}

impl Field for RecordKey {
    fn put(&self, writer: &mut Writer) {
        writer.bytes(self.as_ref());
    }

    fn take(tokens: &mut Tokens<'_>) -> Option<Self> {
        tokens.bytes().map(Self::from)
    }
}

impl Field for Duration {
    fn put(&self, writer: &mut Writer) {
        writer.word(nanos(*self));
    }

    fn take(tokens: &mut Tokens<'_>) -> Option<Self> {
        u64::take(tokens).map(Self::from_nanos)
    }
}

impl Field for Instant {
    fn put(&self, writer: &mut Writer) {
        writer.instant(*self);
    }

    fn take(tokens: &mut Tokens<'_>) -> Option<Self> {
        tokens.instant()
    }
}

impl<T: Field> Field for Option<T> {
    fn put(&self, writer: &mut Writer) {
        match self {
            Some(value) => {
                writer.word("some");
                value.put(writer);
            }
            None => writer.word("none"),
        }
    }

    fn take(tokens: &mut Tokens<'_>) -> Option<Self> {
        match tokens.next()? {
            "some" => T::take(tokens).map(Some),
            "none" => Some(None),
            _ => None,
        }
    }
}

impl<T: Field, E: Field> Field for Result<T, E> {
    fn put(&self, writer: &mut Writer) {
        match self {
            Ok(value) => {
                writer.word("ok");
                value.put(writer);
            }
            Err(error) => {
                writer.word("err");
                error.put(writer);
            }
        }
    }

    fn take(tokens: &mut Tokens<'_>) -> Option<Self> {
        match tokens.next()? {
            "ok" => T::take(tokens).map(Ok),
            "err" => E::take(tokens).map(Err),
            _ => None,
        }
    }
}

impl Field for () {
    fn put(&self, _: &mut Writer) {}

    fn take(_: &mut Tokens<'_>) -> Option<Self> {
        Some(())
    }
}

/// Maximum number of elements of a list. No peer names as many, and a damaged line must not exhaust the memory.
const LONGEST_LIST: usize = 1 << 20;

impl<T: Field> Field for Arc<[T]> {
    fn put(&self, writer: &mut Writer) {
        self.len().put(writer);
        self.iter().for_each(|item| item.put(writer));
    }

    fn take(tokens: &mut Tokens<'_>) -> Option<Self> {
        Vec::take(tokens).map(Self::from)
    }
}

impl<T: Field> Field for Vec<T> {
    fn put(&self, writer: &mut Writer) {
        self.len().put(writer);
        self.iter().for_each(|element| element.put(writer));
    }

    fn take(tokens: &mut Tokens<'_>) -> Option<Self> {
        let len = usize::take(tokens)?;
        // Elements are read one by one, so a wrong length fails at the end of the line.
        (len <= LONGEST_LIST).then_some(())?;
        (0..len).map(|_| T::take(tokens)).collect()
    }
}

impl<T: Field> Field for Arc<T> {
    fn put(&self, writer: &mut Writer) {
        (**self).put(writer);
    }

    fn take(tokens: &mut Tokens<'_>) -> Option<Self> {
        T::take(tokens).map(Self::new)
    }
}
