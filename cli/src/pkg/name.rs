//! Which package a person means.

use std::collections::BTreeSet;

use kadence_registry::{PackageId, PackageName, Query, Registry};

use super::{args::Name, member::Member};
use crate::exit::Failure;

impl Member {
    /// The package of this name: if no publisher is given, ours if we have one, or the only one that anybody knows.
    ///
    /// # Errors
    ///
    /// If there is none, or more than one.
    pub(super) async fn package(&self, name: &Name) -> Result<PackageId, Failure> {
        match name {
            Name::Id(id) => Ok(id.clone()),
            Name::Short(name) => {
                let found = self.candidates(name).await?;
                choose(name, self.ours(name)?, found)
            }
        }
    }

    /// What we would call a package.
    ///
    /// # Errors
    ///
    /// None: the key of a home is one of those that publish.
    pub(super) fn ours(&self, name: &PackageName) -> Result<PackageId, Failure> {
        Ok(PackageId::new(self.registry.publisher(), name.clone()).map_err(anyhow::Error::from)?)
    }

    /// What is called so, as far as is known here and at the peers that are connected.
    async fn candidates(&self, name: &PackageName) -> Result<BTreeSet<PackageId>, Failure> {
        let discovered = self.registry.discovered_packages();
        let mut found: BTreeSet<PackageId> =
            discovered.into_iter().map(|package| package.newest.announcement().package.clone()).collect();
        let query = Query::builder().text(name.as_str()).limit(100).build().map_err(anyhow::Error::from)?;
        let here = self.in_time(self.registry.search(&query)).await?;
        found.extend(here.hits.into_iter().map(|hit| hit.package));
        // Who asks nobody else may be told of another package than the one that is meant; so a failure is one.
        let there = self.in_time(self.registry.search_network(&query)).await?;
        found.extend(there.hits.into_iter().map(|hit| hit.package));
        found.retain(|package| package.name() == name);
        Ok(found)
    }
}

fn choose(name: &PackageName, ours: PackageId, found: BTreeSet<PackageId>) -> Result<PackageId, Failure> {
    if found.contains(&ours) {
        return Ok(ours);
    }
    let mut found = found.into_iter();
    match (found.next(), found.next()) {
        (Some(package), None) => Ok(package),
        (None, _) => Err(Failure::not_found(anyhow::anyhow!(
            "no package called {name} is known to the peers that were asked; its whole name is <publisher>/{name}"
        ))),
        (Some(first), Some(second)) => {
            let all: Vec<String> =
                [first, second].into_iter().chain(found).map(|package| package.to_string()).collect();
            Err(anyhow::anyhow!("several packages are called {name}; say which: {}", all.join(", ")).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use kadence_tokio::kadence::libp2p::identity::Keypair;

    use super::*;

    #[test]
    fn ours_comes_first_and_another_one_only_if_it_is_the_only_one() {
        let name: PackageName = "units".parse().unwrap();
        let id = || PackageId::new(Keypair::generate_ed25519().public().to_peer_id(), name.clone()).unwrap();
        let (ours, other, third) = (id(), id(), id());
        let choose = |found: &[&PackageId]| choose(&name, ours.clone(), found.iter().map(|id| (*id).clone()).collect());
        assert_eq!(choose(&[&other, &ours]).unwrap(), ours);
        assert_eq!(choose(&[&other]).unwrap(), other);
        assert_eq!(choose(&[]).unwrap_err().reason_name(), "not_found");
        let ambiguous = choose(&[&other, &third]).unwrap_err();
        assert_eq!(ambiguous.reason_name(), "failure");
    }
}
