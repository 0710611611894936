use std::{fmt, str::FromStr};

use libp2p_identity::{PeerId, PublicKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;

/// Maximum length of a package's name, in bytes.
const MAX_NAME_LEN: usize = 64;

/// Name of a package, unique only among the packages of one publisher. It has 1 to 64 characters: lower-case ASCII
/// letters, digits, `-`, `_` and `.`. The first character is a letter or a digit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackageName(String);

impl PackageName {
    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PackageName {
    type Err = PackageIdError;

    fn from_str(name: &str) -> Result<Self, PackageIdError> {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
        let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        if first && name.len() <= MAX_NAME_LEN && name.bytes().all(inner) {
            Ok(Self(name.to_owned()))
        } else {
            Err(PackageIdError::Name)
        }
    }
}

impl fmt::Display for PackageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Id of a package: its publisher's key and its name, written `<publisher>/<name>`. On a network, what is
/// published under the id is signed with this key, and anyone who has the id can verify the signature offline.
///
/// The publisher is written as the peer id of an Ed25519 key. Such a peer id contains the whole public key.
///
/// # Example
///
/// ```
/// use kadence_registry::PackageId;
///
/// # fn main() -> Result<(), kadence_registry::PackageIdError> {
/// let keypair = libp2p_identity::Keypair::generate_ed25519();
/// let id = PackageId::new(keypair.public().to_peer_id(), "left-pad".parse()?)?;
/// assert_eq!(id.publisher_key()?, keypair.public());
/// assert_eq!(id.to_string().parse(), Ok(id));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackageId {
    publisher: PeerId,
    name: PackageName,
}

impl PackageId {
    /// Creates the id of a publisher's package.
    ///
    /// # Errors
    ///
    /// [`PackageIdError::Publisher`] if the publisher's peer id is not that of an Ed25519 key.
    pub fn new(publisher: PeerId, name: PackageName) -> Result<Self, PackageIdError> {
        public_key(&publisher).map(|_| Self { publisher, name })
    }

    /// Peer id of the publisher.
    pub fn publisher(&self) -> PeerId {
        self.publisher
    }

    /// Returns the public key that verifies the publisher's signatures.
    ///
    /// # Errors
    ///
    /// [`PackageIdError::Publisher`] if the peer id does not contain an Ed25519 key. In practice this does not happen:
    /// [`PackageId::new`] and parsing reject such peer ids.
    pub fn publisher_key(&self) -> Result<PublicKey, PackageIdError> {
        public_key(&self.publisher)
    }

    /// Name of the package, without its publisher.
    pub fn name(&self) -> &PackageName {
        &self.name
    }
}

/// Returns the key inside a peer id. The peer id of a key of up to 42 bytes contains the key itself.
fn public_key(peer: &PeerId) -> Result<PublicKey, PackageIdError> {
    const IDENTITY: u64 = 0;
    let hash = peer.as_ref();
    if hash.code() != IDENTITY {
        return Err(PackageIdError::Publisher);
    }
    let key = PublicKey::try_decode_protobuf(hash.digest()).map_err(|_| PackageIdError::Publisher)?;
    key.clone().try_into_ed25519().map_err(|_| PackageIdError::Publisher)?;
    // An encoding with unknown fields would be a second id of the same key.
    if key.to_peer_id() == *peer { Ok(key) } else { Err(PackageIdError::Publisher) }
}

impl FromStr for PackageId {
    type Err = PackageIdError;

    fn from_str(text: &str) -> Result<Self, PackageIdError> {
        let (publisher, name) = text.split_once('/').ok_or(PackageIdError::NoPublisher)?;
        Self::new(publisher.parse().map_err(|_| PackageIdError::Publisher)?, name.parse()?)
    }
}

impl fmt::Display for PackageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.publisher, self.name)
    }
}

impl Serialize for PackageId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PackageId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl Serialize for PackageName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PackageName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// Error of creating or parsing a [`PackageId`] or [`PackageName`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PackageIdError {
    /// The text contains no `/`: a package is written `<publisher>/<name>`.
    #[error("publisher is missing: a package is written <publisher>/<name>")]
    NoPublisher,
    /// The publisher is not the peer id of an Ed25519 key.
    #[error("publisher is not the peer id of an Ed25519 key")]
    Publisher,
    /// The name of the package is not valid: see [`PackageName`].
    #[error(
        "invalid package name: use 1 to 64 lower-case letters, digits and - _ . and begin with a letter or a digit"
    )]
    Name,
}

#[cfg(test)]
mod tests {
    use libp2p_identity::Keypair;

    use super::*;

    #[test]
    fn an_id_survives_a_round_trip_through_text_and_contains_the_key() {
        let keypair = Keypair::generate_ed25519();
        let id = PackageId::new(keypair.public().to_peer_id(), "left-pad".parse().unwrap()).unwrap();
        assert_eq!(id.to_string().parse(), Ok(id.clone()));
        assert_eq!(id.publisher_key(), Ok(keypair.public()));
        assert_eq!(serde_json::from_str::<PackageId>(&serde_json::to_string(&id).unwrap()).unwrap(), id);
    }

    #[test]
    fn invalid_names_are_rejected() {
        let long = "a".repeat(65);
        for name in ["", ".hidden", "-x", "Upper", "a/b", "..", "a b", "ä", "a\0", long.as_str()] {
            assert_eq!(name.parse::<PackageName>(), Err(PackageIdError::Name), "{name:?}");
        }
        assert!("a".repeat(64).parse::<PackageName>().is_ok());
        assert_eq!("0.9_x-y".parse::<PackageName>().unwrap().as_str(), "0.9_x-y");
    }

    #[test]
    fn a_publisher_is_an_ed25519_key() {
        let random = PeerId::random();
        assert_eq!(PackageId::new(random, "x".parse().unwrap()), Err(PackageIdError::Publisher));
        assert_eq!("x".parse::<PackageId>(), Err(PackageIdError::NoPublisher));
        assert_eq!("x/y".parse::<PackageId>(), Err(PackageIdError::Publisher));
        // The same key, with a field that no version of the encoding has.
        let key = Keypair::generate_ed25519().public();
        let padded = [key.encode_protobuf(), vec![0x18, 1]].concat();
        let id = [&[0, padded.len() as u8], padded.as_slice()].concat();
        let id = PeerId::from_bytes(&id).unwrap();
        assert_eq!(PackageId::new(id, "x".parse().unwrap()), Err(PackageIdError::Publisher));
    }
}
