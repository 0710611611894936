use libp2p_identity::Keypair;
use semver::{Version, VersionReq};
use serde_json::{Value, json};

use super::*;
use crate::{ContentId, PackageId};

mod documents;
mod drafts;
mod indexes;
mod queries;

fn id(name: &str) -> PackageId {
    publisher(1).package(name)
}

struct Publisher(Keypair);

fn publisher(seed: u8) -> Publisher {
    Publisher(Keypair::ed25519_from_bytes([seed; 32]).unwrap())
}

impl Publisher {
    fn package(&self, name: &str) -> PackageId {
        PackageId::new(self.0.public().to_peer_id(), name.parse().unwrap()).unwrap()
    }
}

fn version(text: &str) -> Version {
    text.parse().unwrap()
}

fn requirement(text: &str) -> VersionReq {
    text.parse().unwrap()
}

fn contents(of: &str) -> Contents {
    Contents {
        archive: ContentId::of(of.as_bytes()),
        archive_size: of.len() as u64,
        files: 1,
        unpacked_size: of.len() as u64,
    }
}

fn package(name: &str, number: &str) -> Package {
    let draft = Package::builder(id(name), version(number))
        .title("Left pad")
        .description("Pads.\nOn the left.")
        .licence("MIT OR Apache-2.0")
        .author("Ada <ada@example.com>")
        .category("text")
        .tag("padding")
        .link("repository", "https://example.com/left-pad?x=1#y")
        .readme("# Left pad\n")
        .dependency(id("other"), requirement("^1"));
    Package::new(draft.build().unwrap(), contents(number), 100, 200).unwrap()
}

/// The JSON of a good manifest with one field set to something else.
fn manifest_with(pointer: &str, value: Value) -> Result<Package, ManifestError> {
    let mut document: Value = serde_json::from_slice(&package("left-pad", "1.0.0").to_json()).unwrap();
    *document.pointer_mut(pointer).unwrap() = value;
    Package::from_json(document.to_string().as_bytes())
}

fn rejected(pointer: &str, value: Value) -> FieldError {
    match manifest_with(pointer, value) {
        Err(ManifestError::Invalid(InvalidPackageError::Field(error))) => error,
        other => panic!("{pointer}: {other:?}"),
    }
}
