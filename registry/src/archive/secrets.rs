//! Detection of private keys anywhere in a file, in the encodings in which people store them.
//!
//! A file is read once, as four streams of symbols: its bytes, its hexadecimal digits, its base64 digits, and the bytes
//! that its decimal numbers stand for. Each stream drops all other characters, so that line breaks, spaces, colons,
//! quotation marks and `0x` do not hide a key. A key is a sequence of at least 240 bits, which no other file contains
//! by chance.

use std::fmt;

use libp2p_identity::{Keypair, ed25519};
use memchr::memmem::{self, Finder};

/// Number of symbols of each stream that are kept for the next chunk: more than the longest pattern.
const OVERLAP: usize = 2048;

/// Maximum size of a file that is also decoded as a whole, in bytes.
const MAX_WHOLE_LEN: usize = 4096;

/// Start of a PEM block.
const PEM: &[u8] = b"-----BEGIN ";

/// Maximum length of the label of a PEM block, in bytes.
const MAX_LABEL_LEN: usize = 64;

/// Minimum number of consecutive base64 digits after a PEM header that make it a key. The shortest keys have 64; words
/// are shorter.
const MIN_PEM_RUN: usize = 40;

/// Prefixes of libp2p's protobuf encoding of a private key: RSA, Ed25519, ECDSA.
const LIBP2P: [[u8; 3]; 3] = [[8, 0, 0x12], [8, 1, 0x12], [8, 3, 0x12]];

/// Kind of private key that was found in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PrivateKeyKind {
    /// The key pair in use, in any encoding: the publisher's own.
    InUse,
    /// A key pair in libp2p's encoding.
    Libp2p,
    /// A PEM block of a private key: TLS, OpenSSH, PGP.
    Pem,
}

impl fmt::Display for PrivateKeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InUse => "the private key in use",
            Self::Libp2p => "a private key of libp2p",
            Self::Pem => "a private key in PEM",
        })
    }
}

/// All patterns.
pub(crate) struct PrivateKeys {
    in_use: Vec<KeyPatterns>,
    pem: Finder<'static>,
    /// "-----BEGIN " in base64, of which the last digit depends on what comes next.
    pem_base64: Finder<'static>,
    libp2p: Vec<[Finder<'static>; 3]>,
}

/// A secret in the three alphabets.
struct KeyPatterns {
    bytes: Finder<'static>,
    hex: Finder<'static>,
    /// One pattern for each alignment in base64.
    base64: [Finder<'static>; 3],
}

impl PrivateKeys {
    pub(crate) fn new(in_use: &[Keypair]) -> Self {
        let libp2p = LIBP2P.map(|start| {
            [Finder::new(&start), Finder::new(&nibbles(&start)), Finder::new(&sextets(&start, 0))]
                .map(Finder::into_owned)
        });
        Self {
            in_use: in_use.iter().filter_map(secret).map(|secret| KeyPatterns::new(&secret)).collect(),
            pem: Finder::new(PEM),
            pem_base64: Finder::new(&sextets(PEM, 0)).into_owned(),
            libp2p: libp2p.into(),
        }
    }

    /// Searches a text in memory.
    pub(crate) fn find(&self, bytes: &[u8]) -> Option<PrivateKeyKind> {
        let mut scanner = Scanner::new(self);
        scanner.feed(bytes).or_else(|| scanner.finish())
    }
}

/// Returns the secret half of an Ed25519 key pair. For other kinds, returns the start of the encoding, which no public
/// key contains.
fn secret(keypair: &Keypair) -> Option<Vec<u8>> {
    match keypair.clone().try_into_ed25519() {
        Ok(keypair) => Some(keypair.secret().as_ref().to_vec()),
        Err(_) => keypair.to_protobuf_encoding().ok().map(|bytes| bytes.into_iter().take(256).collect()),
    }
}

impl KeyPatterns {
    fn new(secret: &[u8]) -> Self {
        Self {
            bytes: Finder::new(secret).into_owned(),
            hex: Finder::new(&nibbles(secret)).into_owned(),
            base64: [0, 1, 2].map(|at| Finder::new(&sextets(secret, at)).into_owned()),
        }
    }
}

fn nibbles(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).collect()
}

/// Returns the base64 digits of bytes at an alignment, without the digits that depend on neighbouring bytes.
fn sextets(bytes: &[u8], before: usize) -> Vec<u8> {
    let shifted: Vec<u8> = std::iter::repeat_n(0, before).chain(bytes.iter().copied()).collect();
    let bit = |at: usize| shifted.get(at / 8).map_or(0, |byte| byte >> (7 - at % 8) & 1);
    let digits = (before * 8).div_ceil(6)..shifted.len() * 8 / 6;
    digits.map(|digit| (0..6).fold(0, |value, at| value << 1 | bit(digit * 6 + at))).collect()
}

/// Returns the bytes that symbols of `bits` bits each stand for.
fn joined(symbols: &[u8], bits: u32) -> Vec<u8> {
    let (mut held, mut have, mut bytes) = (0_u32, 0, Vec::new());
    for symbol in symbols {
        held = held << bits | u32::from(*symbol);
        have += bits;
        if have >= 8 {
            have -= 8;
            bytes.push((held >> have).to_le_bytes()[0]);
        }
    }
    bytes
}

/// Scanner for private keys in one file, fed while the file is read.
pub(super) struct Scanner<'a> {
    keys: &'a PrivateKeys,
    bytes: Vec<u8>,
    hex: Vec<u8>,
    base64: Vec<u8>,
    decimal: Vec<u8>,
    /// The decimal number that is being read, and its number of digits.
    number: Option<u32>,
    escaped: bool,
    len: usize,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(keys: &'a PrivateKeys) -> Self {
        let (bytes, hex, base64, decimal) = Default::default();
        Self { keys, bytes, hex, base64, decimal, number: None, escaped: false, len: 0 }
    }

    /// Scans the next bytes of the file. Returns a key that was found so far.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Option<PrivateKeyKind> {
        self.len = self.len.saturating_add(bytes.len());
        for chunk in bytes.chunks(1 << 16) {
            self.bytes.extend_from_slice(chunk);
            chunk.iter().for_each(|byte| self.take(*byte));
            if let Some(found) = self.look() {
                return Some(found);
            }
            for stream in [&mut self.bytes, &mut self.hex, &mut self.base64, &mut self.decimal] {
                // A small file is kept whole.
                if self.len > MAX_WHOLE_LEN {
                    stream.drain(..stream.len().saturating_sub(OVERLAP));
                }
            }
        }
        None
    }

    /// Checks that need the whole file.
    pub(super) fn finish(mut self) -> Option<PrivateKeyKind> {
        self.end_number();
        let found = self.look();
        if found.is_some() || self.len > MAX_WHOLE_LEN {
            return found;
        }
        let decoded = [joined(&self.hex, 4), joined(&self.base64, 6), self.decimal, self.bytes];
        decoded.iter().any(|bytes| is_secp256k1(bytes)).then_some(PrivateKeyKind::Libp2p)
    }

    fn take(&mut self, byte: u8) {
        if let Some(digit) = char::from(byte).to_digit(10) {
            // Too many digits are no byte, however many they are.
            self.number = Some(self.number.unwrap_or(0).saturating_mul(10).saturating_add(digit).min(256));
        } else {
            self.end_number();
        }
        if let Ok(digit) = u8::try_from(char::from(byte).to_digit(16).unwrap_or(u32::MAX)) {
            self.hex.push(digit);
        } else if matches!(byte, b'x' | b'X') && !self.escaped && self.hex.last() == Some(&0) {
            // `0x`, and not `\x`.
            self.hex.pop();
        }
        let is_escape = self.escaped && matches!(byte, b'n' | b'r' | b't');
        if let (Some(digit), false) = (base64_digit(byte), is_escape) {
            self.base64.push(digit);
        }
        self.escaped = byte == b'\\' && !self.escaped;
    }

    fn end_number(&mut self) {
        if let Some(Ok(byte)) = self.number.take().map(u8::try_from) {
            self.decimal.push(byte);
        }
    }

    fn look(&self) -> Option<PrivateKeyKind> {
        let Self { keys, bytes, hex, base64, decimal, .. } = self;
        let in_use = |key: &KeyPatterns| {
            [bytes, decimal].iter().any(|stream| key.bytes.find(stream).is_some())
                || key.hex.find(hex).is_some()
                || key.base64.iter().any(|key| key.find(base64).is_some())
        };
        if keys.in_use.iter().any(in_use) {
            return Some(PrivateKeyKind::InUse);
        }
        let at = |stream: &[u8], at: usize, bits: u32| {
            let window = stream.get(at..).unwrap_or_default();
            let window = window.get(..OVERLAP / 2).unwrap_or(window);
            if bits == 8 { window.to_vec() } else { joined(window, bits) }
        };
        let libp2p = |[in_bytes, in_hex, in_base64]: &[Finder<'static>; 3]| {
            let streams = [(in_bytes, bytes, 8), (in_bytes, decimal, 8), (in_hex, hex, 4), (in_base64, base64, 6)];
            streams
                .into_iter()
                .any(|(start, stream, bits)| start.find_iter(stream).any(|found| is_libp2p(&at(stream, found, bits))))
        };
        if keys.libp2p.iter().any(libp2p) {
            return Some(PrivateKeyKind::Libp2p);
        }
        let pem = |bytes: &[u8]| bytes.strip_prefix(PEM).is_some_and(is_pem);
        let is_found = keys.pem.find_iter(bytes).any(|found| pem(&at(bytes, found, 8)))
            || keys.pem_base64.find_iter(base64).any(|found| pem(&at(base64, found, 6)));
        is_found.then_some(PrivateKeyKind::Pem)
    }
}

fn base64_digit(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' | b'-' => Some(62),
        b'/' | b'_' => Some(63),
        _ => None,
    }
}

/// Returns whether the bytes start with a private key in libp2p's encoding: an Ed25519 key whose halves match, or
/// enough of another key's DER to exclude chance.
fn is_libp2p(bytes: &[u8]) -> bool {
    match bytes {
        // The longer one is an old form, with the public key twice.
        [8, 1, 0x12, 0x40 | 0x60, key @ ..] => {
            key.first_chunk::<64>().is_some_and(|key| ed25519::Keypair::try_from_bytes(&mut key.clone()).is_ok())
        }
        [8, 0, 0x12, _, _, 0x30, 0x82, _, _, 2, 1, 0, 2, 0x82 | 0x81, ..] => true,
        [8, 3, 0x12, _, 0x30, _, 2, 1, 1, 4, 0x20 | 0x30, ..] => true,
        _ => false,
    }
}

/// Returns whether the bytes are a secp256k1 key in libp2p's encoding. It is too short to be recognised inside other
/// data.
fn is_secp256k1(bytes: &[u8]) -> bool {
    matches!(bytes, [8, 2, 0x12, 0x20, key @ ..] if key.len() == 32)
}

/// Returns whether the text after the start of a PEM block is a private key, and not just a mention of one.
fn is_pem(text: &[u8]) -> bool {
    let head = text.get(..MAX_LABEL_LEN).unwrap_or(text);
    let Some(end) = memmem::find(head, b"-----") else { return false };
    let (label, body) = text.split_at(end);
    if !(label.ends_with(b"PRIVATE KEY") || label.ends_with(b"PRIVATE KEY BLOCK")) {
        return false;
    }
    let (mut run, mut escaped, mut new_line) = (0, false, false);
    for byte in body.iter().skip(b"-----".len()) {
        let was_escaped = escaped;
        escaped = *byte == b'\\' && !was_escaped;
        match byte {
            b'\n' | b'\r' => new_line = true,
            b'n' | b'r' | b't' if was_escaped => new_line = true,
            // A line of a string, or indented.
            b'"' | b'\'' | b',' | b'\\' | 0 => {}
            b' ' | b'\t' if new_line => {}
            _ if base64_digit(*byte).is_some() && *byte != b'-' => (run, new_line) = (run + 1, false),
            _ => (run, new_line) = (0, false),
        }
        if run >= MIN_PEM_RUN {
            return true;
        }
    }
    false
}
