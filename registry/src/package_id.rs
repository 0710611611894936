use std::{fmt, str::FromStr};

use libp2p_identity::{PeerId, PublicKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;

/// The longest name of a package, in bytes.
const MAX_NAME: usize = 64;

/// What a publisher calls a package: up to 64 lower-case letters, digits and `-`, `_` and `.`, of which the first is a
/// letter or a digit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackageName(String);

impl PackageName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PackageName {
    type Err = PackageIdError;

    fn from_str(name: &str) -> Result<Self, PackageIdError> {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
        let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        if first && name.len() <= MAX_NAME && name.bytes().all(inner) {
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

/// A package, by the key of its publisher and its name: `<publisher>/<name>`. Only the publisher can publish under it, and
/// anybody can check that, without asking anyone.
///
/// The publisher is written as the peer id of an Ed25519 key, which has the whole key in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackageId {
    publisher: PeerId,
    name: PackageName,
}

impl PackageId {
    /// A package of this publisher.
    ///
    /// # Errors
    ///
    /// If the publisher's id is not that of an Ed25519 key.
    pub fn new(publisher: PeerId, name: PackageName) -> Result<Self, PackageIdError> {
        public_key(&publisher).map(|_| Self { publisher, name })
    }

    /// Who publishes it.
    pub fn publisher(&self) -> PeerId {
        self.publisher
    }

    /// The key that its publisher signs with, if it is one that an id can be made with, as it is in every id.
    pub fn publisher_key(&self) -> Result<PublicKey, PackageIdError> {
        public_key(&self.publisher)
    }

    /// What its publisher calls it.
    pub fn name(&self) -> &PackageName {
        &self.name
    }
}

/// The key inside a peer id: those of keys of up to 42 bytes are the key itself.
fn public_key(peer: &PeerId) -> Result<PublicKey, PackageIdError> {
    const IDENTITY: u64 = 0;
    let hash = peer.as_ref();
    if hash.code() != IDENTITY {
        return Err(PackageIdError::Publisher);
    }
    let key = PublicKey::try_decode_protobuf(hash.digest()).map_err(|_| PackageIdError::Publisher)?;
    key.clone().try_into_ed25519().map_err(|_| PackageIdError::Publisher)?;
    Ok(key)
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

/// Why a text is no [`PackageId`] or [`PackageName`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PackageIdError {
    /// There is no `/` in it: a package is `<publisher>/<name>`.
    #[error("a package is written <publisher>/<name>")]
    NoPublisher,
    /// What is before the `/` is not the peer id of an Ed25519 key.
    #[error("the publisher is not the peer id of an Ed25519 key")]
    Publisher,
    /// What is after the `/` is not a package's name.
    #[error("a package's name is 1 to 64 lower-case letters, digits and - _ . and begins with a letter or digit")]
    Name,
}

#[cfg(test)]
mod tests {
    use libp2p_identity::Keypair;

    use super::*;

    #[test]
    fn an_id_is_read_as_it_is_written_and_has_the_key_in_it() {
        let keypair = Keypair::generate_ed25519();
        let id = PackageId::new(keypair.public().to_peer_id(), "left-pad".parse().unwrap()).unwrap();
        assert_eq!(id.to_string().parse(), Ok(id.clone()));
        assert_eq!(id.publisher_key(), Ok(keypair.public()));
        assert_eq!(serde_json::from_str::<PackageId>(&serde_json::to_string(&id).unwrap()).unwrap(), id);
    }

    #[test]
    fn names_that_could_be_something_else_are_refused() {
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
    }
}
