use libp2p::{PeerId, core::multihash::Multihash, kad::RecordKey};

/// Key of records or providers, or target of a lookup: any bytes. The distance of two keys in the DHT is that of the
/// SHA-256 hashes of their bytes.
///
/// Methods of [`Client`](crate::Client) that take a key accept any type that converts into one:
///
/// ```
/// use kadence::{Key, libp2p::{PeerId, kad::RecordKey}};
///
/// let key = Key::from("greeting");
/// assert_eq!(key, b"greeting".into());
/// assert_eq!(key, vec![103, 114, 101, 101, 116, 105, 110, 103].into());
/// assert_eq!(key, RecordKey::new(b"greeting").into());
///
/// // A lookup of the peers closest to a peer takes that peer's id.
/// let key = Key::from(PeerId::random());
/// # let _ = key;
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key(RecordKey);

impl Key {
    pub(crate) fn into_record_key(self) -> RecordKey {
        self.0
    }
}

impl From<RecordKey> for Key {
    fn from(key: RecordKey) -> Self {
        Self(key)
    }
}

impl From<&RecordKey> for Key {
    fn from(key: &RecordKey) -> Self {
        Self(key.clone())
    }
}

impl From<Vec<u8>> for Key {
    fn from(bytes: Vec<u8>) -> Self {
        Self(RecordKey::from(bytes))
    }
}

impl From<&[u8]> for Key {
    fn from(bytes: &[u8]) -> Self {
        Self(RecordKey::new(&bytes))
    }
}

impl<const N: usize> From<&[u8; N]> for Key {
    fn from(bytes: &[u8; N]) -> Self {
        Self(RecordKey::new(bytes))
    }
}

impl From<String> for Key {
    fn from(text: String) -> Self {
        Self(RecordKey::from(text.into_bytes()))
    }
}

impl From<&String> for Key {
    fn from(text: &String) -> Self {
        Self(RecordKey::new(text))
    }
}

impl From<&str> for Key {
    fn from(text: &str) -> Self {
        Self(RecordKey::new(&text))
    }
}

impl<const S: usize> From<Multihash<S>> for Key {
    fn from(multihash: Multihash<S>) -> Self {
        Self(RecordKey::from(multihash))
    }
}

impl From<PeerId> for Key {
    fn from(peer: PeerId) -> Self {
        Self(RecordKey::from(peer.to_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_the_same_bytes_is_the_same_key() {
        let record_key = RecordKey::new(b"greeting");
        let text = "greeting".to_owned();
        let key = Key::from("greeting");
        for other in [
            Key::from(b"greeting"),
            Key::from(b"greeting".as_slice()),
            Key::from(b"greeting".to_vec()),
            Key::from(&record_key),
            Key::from(record_key),
            Key::from(&text),
            Key::from(text),
        ] {
            assert_eq!(other, key);
        }
    }
}
