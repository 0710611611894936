//! Lookup of the package that a name on the command line stands for.

use std::collections::BTreeSet;

use kadence_registry::{PackageId, PackageName, Query, Registry};

use super::{args::Name, member::Member};
use crate::exit::Failure;

impl Member {
    /// Returns the package of this name. A name without a publisher stands for a package published with this home, or
    /// else for the only package of that name that the network knows.
    ///
    /// # Errors
    ///
    /// If there is no such package, or more than one.
    pub(super) async fn package(&self, name: &Name) -> Result<PackageId, Failure> {
        match name {
            Name::Id(id) => Ok(id.clone()),
            Name::Short(name) => {
                let found = self.candidates(name).await?;
                choose(name, self.own_package(name)?, found)
            }
        }
    }

    /// Returns the id of a package of this name published with this home.
    ///
    /// # Errors
    ///
    /// None: the key of a home can publish.
    pub(super) fn own_package(&self, name: &PackageName) -> Result<PackageId, Failure> {
        Ok(PackageId::new(self.registry.publisher(), name.clone()).map_err(anyhow::Error::from)?)
    }

    /// Returns the packages of this name in the own index, in announcements, and in the indexes of connected peers.
    async fn candidates(&self, name: &PackageName) -> Result<BTreeSet<PackageId>, Failure> {
        let discovered = self.registry.discovered_packages();
        let mut found: BTreeSet<PackageId> =
            discovered.into_iter().map(|package| package.newest.announcement().package.clone()).collect();
        let query = Query::builder().text(name.as_str()).limit(100).build().map_err(anyhow::Error::from)?;
        let here = self.in_time(self.registry.search(&query)).await?;
        found.extend(here.hits.into_iter().map(|hit| hit.package));
        // A failed search of the network is an error: the own index alone may know only a package of the same name by
        // another publisher.
        let there = self.in_time(self.registry.search_network(&query)).await?;
        found.extend(there.hits.into_iter().map(|hit| hit.package));
        found.retain(|package| package.name() == name);
        Ok(found)
    }
}

/// Selects the own package, or else the only one.
///
/// # Errors
///
/// If there is none, or more than one.
fn choose(name: &PackageName, own: PackageId, found: BTreeSet<PackageId>) -> Result<PackageId, Failure> {
    if found.contains(&own) {
        return Ok(own);
    }
    let mut found = found.into_iter();
    match (found.next(), found.next()) {
        (Some(package), None) => Ok(package),
        (None, _) => Err(Failure::not_found(anyhow::anyhow!(
            "no package named {name} is known to the connected peers: try its full name, <publisher>/{name}"
        ))),
        (Some(first), Some(second)) => {
            let all: Vec<String> =
                [first, second].into_iter().chain(found).map(|package| package.to_string()).collect();
            Err(anyhow::anyhow!("several packages are named {name}: use one of {}", all.join(", ")).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use kadence_tokio::kadence::libp2p::identity::Keypair;

    use super::*;

    #[test]
    fn the_own_package_comes_first_and_another_one_only_if_it_is_the_only_one() {
        let name: PackageName = "units".parse().unwrap();
        let id = || PackageId::new(Keypair::generate_ed25519().public().to_peer_id(), name.clone()).unwrap();
        let (own, other, third) = (id(), id(), id());
        let choose = |found: &[&PackageId]| choose(&name, own.clone(), found.iter().map(|id| (*id).clone()).collect());
        assert_eq!(choose(&[&other, &own]).unwrap(), own);
        assert_eq!(choose(&[&other]).unwrap(), other);
        assert_eq!(choose(&[]).unwrap_err().reason_name(), "not_found");
        let ambiguous = choose(&[&other, &third]).unwrap_err();
        assert_eq!(ambiguous.reason_name(), "failure");
    }
}
