//! Detection of private keys anywhere in a file, in the encodings in which people store them.
//!
//! A file is read once, as five streams of symbols: its bytes, its bytes other than NUL, its hexadecimal digits, its
//! base64 digits, and the bytes that its decimal numbers stand for. The last three drop all other characters, so that
//! line breaks, spaces, colons, quotation marks, `0x` and the NUL bytes of UTF-16 do not hide a key. A key is a
//! sequence of at least 240 bits, which no other file contains by chance.

use std::fmt;

use libp2p_identity::{Keypair, ed25519};
use memchr::memmem::{self, Finder};

/// Number of symbols of each stream that are kept for the next chunk: more than the longest pattern and [`WINDOW`].
const OVERLAP: usize = 2048;

/// Maximum number of symbols that are decoded from the start of a match.
const WINDOW: usize = 1024;

/// Number of bytes that are collected before the streams are searched.
const CHUNK_LEN: usize = 1 << 16;

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

/// Length of libp2p's encoding of an Ed25519 key pair, in bytes.
const ED25519_LEN: usize = 68;

/// Kind of private key that was found in a file or a manifest.
///
/// A key is searched for as bytes, and as text in UTF-8 or UTF-16: in hexadecimal (two digits a byte), in base64, and
/// in decimal (numbers from 0 to 255). The variants say for which kinds of key a form is left out. White space and
/// punctuation between the digits do not hide the key, except for `+`, `-`, `/` and `_` in base64, where they are
/// digits.
///
/// The search does not find every key. For example, it does not find keys that are compressed, encrypted other than in
/// a PEM block, encoded twice (except for a PEM block in base64), or interrupted by other digits or letters, as in a
/// hex dump with offsets. Keys that are not listed in
/// [`PackOptions::private_keys`](field@super::PackOptions::private_keys) are not found either in PuTTY's format or as
/// bare bytes without an encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PrivateKeyKind {
    /// The secret half of one of [`PackOptions::private_keys`](field@super::PackOptions::private_keys), RSA keys
    /// excepted, anywhere in the file.
    InUse,
    /// An RSA, Ed25519 or ECDSA private key in libp2p's protobuf encoding, anywhere in the file; in base64 if
    /// the base64 text begins with the key. A secp256k1 key is found only if it is the whole content of a file of at
    /// most 4 KiB.
    Libp2p,
    /// A PEM block of a private key, encrypted or not (TLS, OpenSSH, PGP), with a label that ends in `PRIVATE KEY` or
    /// `PRIVATE KEY BLOCK`, anywhere in the file: as text, or in a base64 text that begins with the block.
    Pem,
    /// An unencrypted private key in DER (PKCS#8, PKCS#1, SEC1) as bytes at the start of a file. In hexadecimal, base64
    /// or decimal it is found only in a file of at most 4 KiB that begins with it.
    Der,
}

impl fmt::Display for PrivateKeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InUse => "the private key in use",
            Self::Libp2p => "a private key of libp2p",
            Self::Pem => "a private key in PEM",
            Self::Der => "a private key in DER",
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
            in_use: in_use
                .iter()
                .filter_map(|keypair| secret(&keypair.to_protobuf_encoding().ok()?).map(KeyPatterns::new))
                .collect(),
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

/// Returns the secret half of a key pair in libp2p's encoding: Ed25519, secp256k1, ECDSA.
fn secret(encoded: &[u8]) -> Option<&[u8]> {
    match encoded {
        [8, 1, 0x12, 0x40, key @ ..] | [8, 2, 0x12, 0x20, key @ ..] => key.get(..32),
        _ => ecdsa(encoded),
    }
}

/// Returns the secret of an ECDSA key (P-256, P-384 or P-521) in libp2p's encoding, or its start if the key is cut.
fn ecdsa(encoded: &[u8]) -> Option<&[u8]> {
    let key = match encoded {
        [8, 3, 0x12, 0..=0x7f, key @ ..] | [8, 3, 0x12, 0x80..=0xff, 0..=0x7f, key @ ..] => key,
        _ => return None,
    };
    let Some((0x30, key, _)) = der(key) else { return None };
    let Some((2, [1], key)) = der(key) else { return None };
    match (key, der(key)) {
        ([4, 0x20 | 0x30 | 0x42, ..], Some((_, secret, _))) => Some(secret),
        _ => None,
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

/// Returns the bytes that symbols of `bits` bits each stand for, one by one.
fn joined(symbols: &[u8], bits: u32) -> impl Iterator<Item = u8> {
    let (mut held, mut have) = (0_u32, 0);
    symbols.iter().filter_map(move |symbol| {
        held = held << bits | u32::from(*symbol);
        have += bits;
        if have < 8 {
            return None;
        }
        have -= 8;
        Some((held >> have).to_le_bytes()[0])
    })
}

/// Scanner for private keys in one file, fed while the file is read.
pub(super) struct Scanner<'a> {
    keys: &'a PrivateKeys,
    /// Start of the file, at most [`MAX_WHOLE_LEN`].
    head: Vec<u8>,
    bytes: Vec<u8>,
    /// The bytes other than NUL: UTF-16 is read like UTF-8.
    text: Vec<u8>,
    hex: Vec<u8>,
    base64: Vec<u8>,
    decimal: Vec<u8>,
    /// The decimal number that is being read.
    number: Option<u32>,
    escaped: bool,
    len: usize,
    /// Number of bytes that were not searched yet.
    unsearched: usize,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(keys: &'a PrivateKeys) -> Self {
        let (head, bytes, text, hex, base64, decimal) = Default::default();
        Self { keys, head, bytes, text, hex, base64, decimal, number: None, escaped: false, len: 0, unsearched: 0 }
    }

    /// Scans the next bytes of the file. Returns a key that was found so far. The last bytes may be searched later.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Option<PrivateKeyKind> {
        self.len = self.len.saturating_add(bytes.len());
        self.head.extend(bytes.iter().take(MAX_WHOLE_LEN.saturating_sub(self.head.len())));
        for chunk in bytes.chunks(CHUNK_LEN) {
            self.bytes.extend_from_slice(chunk);
            chunk.iter().filter(|byte| **byte != 0).for_each(|byte| self.take(*byte));
            self.unsearched += chunk.len();
            if self.unsearched < CHUNK_LEN {
                continue;
            }
            self.unsearched = 0;
            if let Some(found) = self.look() {
                return Some(found);
            }
            for stream in [&mut self.bytes, &mut self.text, &mut self.hex, &mut self.base64, &mut self.decimal] {
                stream.drain(..stream.len().saturating_sub(OVERLAP));
            }
        }
        None
    }

    /// Searches the rest, and makes the checks that need the whole file.
    pub(super) fn finish(mut self) -> Option<PrivateKeyKind> {
        self.end_number();
        if let Some(found) = self.look() {
            return Some(found);
        }
        let mut whole = vec![self.head];
        if self.len <= MAX_WHOLE_LEN {
            whole.extend([joined(&self.hex, 4).collect(), joined(&self.base64, 6).collect(), self.decimal]);
            if whole.iter().any(|bytes| is_secp256k1(bytes)) {
                return Some(PrivateKeyKind::Libp2p);
            }
        }
        whole.iter().any(|bytes| is_der(bytes)).then_some(PrivateKeyKind::Der)
    }

    /// Adds a byte other than NUL to the streams.
    fn take(&mut self, byte: u8) {
        self.text.push(byte);
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
        let Self { keys, bytes, text, hex, base64, decimal, .. } = self;
        let in_use = |key: &KeyPatterns| {
            [bytes, decimal].iter().any(|stream| key.bytes.find(stream).is_some())
                || key.hex.find(hex).is_some()
                || key.base64.iter().any(|key| key.find(base64).is_some())
        };
        if keys.in_use.iter().any(in_use) {
            return Some(PrivateKeyKind::InUse);
        }
        let libp2p = |[in_bytes, in_hex, in_base64]: &[Finder<'static>; 3]| {
            has_libp2p(in_bytes, bytes, 8)
                || has_libp2p(in_bytes, decimal, 8)
                || has_libp2p(in_hex, hex, 4)
                || has_libp2p(in_base64, base64, 6)
        };
        if keys.libp2p.iter().any(libp2p) {
            return Some(PrivateKeyKind::Libp2p);
        }
        let is_found = has_pem(&keys.pem, text, 8) || has_pem(&keys.pem_base64, base64, 6);
        is_found.then_some(PrivateKeyKind::Pem)
    }
}

/// Returns the symbols from a match on, as many as are decoded.
fn window(stream: &[u8], at: usize) -> &[u8] {
    let window = stream.get(at..).unwrap_or_default();
    window.get(..WINDOW).unwrap_or(window)
}

/// Fills a buffer from its start. Returns the number of bytes, which is less than the buffer's length if there are no
/// more.
fn fill(buffer: &mut [u8], bytes: impl Iterator<Item = u8>) -> usize {
    let mut len = 0;
    for (to, byte) in buffer.iter_mut().zip(bytes) {
        *to = byte;
        len += 1;
    }
    len
}

/// Returns whether `is_key` holds for a window that begins with a match. A window that is equal to that of the previous
/// match is skipped, so that a file of nothing but matches does not take long.
fn has_key(start: &Finder<'_>, stream: &[u8], mut is_key: impl FnMut(&[u8]) -> bool) -> bool {
    let mut last: &[u8] = &[];
    start.find_iter(stream).any(|at| {
        let symbols = window(stream, at);
        let is_new = symbols != last;
        last = symbols;
        is_new && is_key(symbols)
    })
}

/// Returns whether a stream contains a private key in libp2p's encoding. A match is decoded only as far as it goes on
/// like a key.
fn has_libp2p(start: &Finder<'_>, stream: &[u8], bits: u32) -> bool {
    has_key(start, stream, |symbols| {
        let mut head = [0; 16];
        let len = fill(&mut head, joined(symbols, bits));
        match head.get(..len).unwrap_or_default() {
            // The longer one is an old form, with the public key twice.
            [8, 1, 0x12, 0x40 | 0x60, ..] => {
                let mut encoded = [0; ED25519_LEN];
                let len = fill(&mut encoded, joined(symbols, bits));
                let [_, _, _, _, key @ ..] = &mut encoded;
                len == ED25519_LEN && ed25519::Keypair::try_from_bytes(key).is_ok()
            }
            // Enough of another key's DER to exclude chance.
            [8, 0, 0x12, _, _, 0x30, 0x82, _, _, 2, 1, 0, 2, 0x82 | 0x81, ..] => true,
            head => ecdsa(head).is_some(),
        }
    })
}

/// Returns whether a stream contains a private key in PEM. The body is decoded only if the label is that of one.
fn has_pem(start: &Finder<'_>, stream: &[u8], bits: u32) -> bool {
    has_key(start, stream, |symbols| {
        let head: Vec<u8> = joined(symbols, bits).take(PEM.len() + MAX_LABEL_LEN).collect();
        let Some(head) = head.strip_prefix(PEM) else { return false };
        let Some(len) = memmem::find(head, b"-----") else { return false };
        let label = head.get(..len).unwrap_or_default();
        (label.ends_with(b"PRIVATE KEY") || label.ends_with(b"PRIVATE KEY BLOCK"))
            && is_pem_body(joined(symbols, bits).skip(PEM.len() + len + b"-----".len()))
    })
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

/// Returns whether the bytes are a secp256k1 key in libp2p's encoding. It is too short to be recognised inside other
/// data.
fn is_secp256k1(bytes: &[u8]) -> bool {
    matches!(bytes, [8, 2, 0x12, 0x20, key @ ..] if key.len() == 32)
}

/// Returns whether the bytes start with an unencrypted private key in DER.
fn is_der(bytes: &[u8]) -> bool {
    let Some((0x30, key, _)) = der(bytes) else { return false };
    let Some((2, [version @ (0 | 1)], key)) = der(key) else { return false };
    match der(key) {
        // PKCS#8: the algorithm, of which the first field is an object id, then the key.
        Some((0x30, [6, ..], [4, ..])) => true,
        // PKCS#1, and DSA keys of OpenSSL: numbers, the first of at least 512 bits.
        Some((2, modulus, [2, ..])) => modulus.len() >= 64,
        // SEC1: the key, then the curve and the public key, which may be left out.
        Some((4, secret, rest)) if *version == 1 && (20..=72).contains(&secret.len()) => {
            rest.is_empty() || matches!(der(rest), Some((0xa0, [6, ..], _) | (0xa1, [3, ..], _)))
        }
        _ => false,
    }
}

/// Returns the tag and the content of the first DER element, and what follows it. A content that goes on after the end
/// of the bytes is cut.
fn der(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (len, rest) = match first {
        0..=0x7f => (usize::from(*first), rest),
        0x81..=0x83 => {
            let (len, rest) = rest.split_at_checked(usize::from(*first & 0xf))?;
            (len.iter().fold(0, |len, byte| len << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(len).unwrap_or((rest, &[]));
    Some((*tag, content, rest))
}

/// Returns whether the text after a PEM header looks like a key: whether it contains a long run of base64 digits. Text
/// that only mentions such a header has no such run.
fn is_pem_body(body: impl Iterator<Item = u8>) -> bool {
    let (mut run, mut escaped, mut new_line) = (0, false, false);
    for byte in body {
        let was_escaped = escaped;
        escaped = byte == b'\\' && !was_escaped;
        match byte {
            b'\n' | b'\r' => new_line = true,
            b'n' | b'r' | b't' if was_escaped => new_line = true,
            // A line of a string, or indented.
            b'"' | b'\'' | b',' | b'\\' | 0 => {}
            b' ' | b'\t' if new_line => {}
            _ if base64_digit(byte).is_some() && byte != b'-' => (run, new_line) = (run + 1, false),
            _ => (run, new_line) = (0, false),
        }
        if run >= MIN_PEM_RUN {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secret_half_of_each_kind_of_key_pair_that_libp2p_encodes_is_searched_for() {
        let ed25519 = Keypair::generate_ed25519();
        let encoded = ed25519.to_protobuf_encoding().unwrap();
        assert_eq!(secret(&encoded), Some(ed25519.try_into_ed25519().unwrap().secret().as_ref()));
        assert_eq!(secret(&[b"\x08\x02\x12\x20".as_slice(), &[7; 32]].concat()), Some([7; 32].as_slice()));
        let ecdsa = [b"\x08\x03\x12\x79\x30\x77\x02\x01\x01\x04\x20".as_slice(), &[7; 32], &[9; 80]].concat();
        assert_eq!(secret(&ecdsa), Some([7; 32].as_slice()));
        // P-384 and P-521 with the curve and the public key, whose lengths take two bytes.
        let p384 = [b"\x08\x03\x12\xa7\x01\x30\x81\xa4\x02\x01\x01\x04\x30".as_slice(), &[7; 48], &[9; 113]].concat();
        assert_eq!(secret(&p384), Some([7; 48].as_slice()));
        let p521 = [b"\x08\x03\x12\xdf\x01\x30\x81\xdc\x02\x01\x01\x04\x42".as_slice(), &[7; 66], &[9; 151]].concat();
        assert_eq!(secret(&p521), Some([7; 66].as_slice()));
        assert_eq!(secret(&encoded[..20]), None);
    }
}
