//! Phases of the demonstration in a healthy network, and after the death of a publisher.

use std::{path::Path, time::Instant};

use anyhow::{Context, ensure};
use futures::future::{join_all, try_join_all};
use kadence_registry::{
    PackageId, Query, Receipt, Release,
    resolve::{self, Installed},
};
use semver::VersionReq;
use tokio::time::sleep;

use super::{
    Demo, LATE_READER, Member, PUBLISHERS, Published, READER, ms,
    sources::{Source, contents, name_publishers},
};
use crate::{CALL_TIMEOUT, POLL, WAIT};

impl Demo {
    /// Publishes each folder from one of the publishers.
    ///
    /// # Errors
    ///
    /// If a folder is not a package, or cannot be published.
    pub(super) async fn publish(&mut self, sources: Vec<Source>) -> anyhow::Result<()> {
        self.progress.begin("publish", sources.len());
        let publisher_of: Vec<usize> = (0..sources.len()).map(|index| index % PUBLISHERS).collect();
        let peers: Vec<_> =
            publisher_of.iter().map(|index| self.member(*index).map(Member::peer)).collect::<Result<_, _>>()?;
        name_publishers(&sources, &peers)?;
        let all = sources.iter().zip(&publisher_of).map(|(source, publisher)| async {
            let member = self.member(*publisher)?;
            let began = Instant::now();
            let receipt = publish(member, source).await?;
            anyhow::Ok((receipt, began.elapsed()))
        });
        let all = try_join_all(all).await?;
        let complete = all.iter().filter(|(receipt, _)| receipt.steps.all_succeeded()).count();
        let detail = format!("{complete} of {}", all.len());
        self.times.publish_ms = all.iter().map(|(_, took)| ms(*took)).fold(0.0, f64::max);
        let ids = all.into_iter().map(|(receipt, _)| receipt.package);
        self.packages = (sources.into_iter().zip(ids).zip(publisher_of))
            .map(|((source, id), publisher)| Published { source, id, publisher })
            .collect();
        self.check("every package is published completely", complete == self.packages.len() && complete > 0, &*detail);
        self.progress.end(format_args!("{detail} packages by {PUBLISHERS} publishers"));
        Ok(())
    }

    /// Waits until every node has received the announcement of every package.
    ///
    /// # Errors
    ///
    /// None.
    pub(super) async fn discover(&mut self) -> anyhow::Result<()> {
        self.progress.begin("discover", self.members.len());
        let began = Instant::now();
        let wanted: Vec<&PackageId> = self.packages.iter().map(|package| &package.id).collect();
        let complete = join_all(self.living().map(|member| discovers(member, &wanted))).await;
        let complete = complete.into_iter().filter(|complete| *complete).count();
        let all = self.living().count();
        self.times.discover_ms = ms(began.elapsed());
        let detail = format!("{complete} of {all} nodes know all packages");
        self.check("every node discovers every package", complete == all, &*detail);
        self.progress.end(format_args!("{detail}"));
        Ok(())
    }

    /// Finds each package by its name, from a node that publishes nothing.
    ///
    /// # Errors
    ///
    /// If a search fails.
    pub(super) async fn search(&mut self) -> anyhow::Result<()> {
        self.progress.begin("search", self.packages.len());
        let reader = self.member(READER)?;
        let mut found = 0;
        for Published { id, .. } in &self.packages {
            let query = Query::text(id.name().as_str())?;
            let page = reader.p2p.search_network(&query).await?;
            found += usize::from(page.hits.iter().any(|hit| hit.package == *id));
        }
        let detail = format!("{found} of {}", self.packages.len());
        self.check("every package is found by its name", found == self.packages.len(), &*detail);
        self.progress.end(format_args!("{detail} packages found"));
        Ok(())
    }

    /// Installs all packages and their dependencies on that node.
    ///
    /// # Errors
    ///
    /// If they cannot be resolved or installed.
    pub(super) async fn install(&mut self) -> anyhow::Result<()> {
        self.progress.begin("install", self.packages.len());
        let roots: Vec<_> = self.packages.iter().map(|package| (package.id.clone(), VersionReq::STAR)).collect();
        let dir = self.folder("installed");
        let reader = self.member(READER)?;
        let began = Instant::now();
        let lock = resolve::resolve(&roots, reader.registry(), None).await.context("cannot resolve the packages")?;
        let resolved = began.elapsed();
        let needed: usize = lock.packages().values().map(|pinned| pinned.dependencies.len()).sum();
        let installed =
            resolve::install(&lock, reader.registry(), &dir).await.context("cannot install the packages")?;
        (self.times.resolve_ms, self.times.install_ms) = (ms(resolved), ms(began.elapsed() - resolved));
        let (same, files) = self.compare(&installed)?;
        let detail = format!("{same} of {} packages, {files} files, {needed} dependencies", self.packages.len());
        self.check("installed packages equal the published ones, byte for byte", same == self.packages.len(), &*detail);
        self.progress.end(format_args!("{detail}"));
        Ok(())
    }

    /// Kills a publisher, and installs its package on a node that has not read it before.
    ///
    /// # Errors
    ///
    /// If the package cannot be installed.
    pub(super) async fn kill(&mut self) -> anyhow::Result<()> {
        self.progress.begin("kill", 1);
        let package = self.packages.get(2).or(self.packages.first()).context("there are no packages")?;
        let (id, publisher) = (package.id.clone(), package.publisher);
        // Another node has to have the newest version.
        install_newest(self.member(READER)?, &id, &self.folder("installed-again")).await?;
        // A node that has installed a package provides it, but its announcement as a provider takes a moment.
        self.wait_for_other_providers(&id, publisher).await?;
        drop(self.members.get_mut(publisher).and_then(Option::take));

        let dir = self.folder("installed-late");
        let late = self.member(LATE_READER)?;
        let roots = [(id.clone(), VersionReq::STAR)];
        let lock = resolve::resolve(&roots, late.registry(), None).await.context("without its publisher")?;
        let installed = resolve::install(&lock, late.registry(), &dir).await.context("without its publisher")?;
        let (same, files) = self.compare(&installed)?;
        let ok = same == installed.packages.len() && installed.packages.iter().any(|package| package.package == id);
        self.check("a package outlives its publisher", ok, format!("{}: {files} files from other nodes", id.name()));
        self.progress.end(format_args!("{} installed without its publisher", id.name()));
        Ok(())
    }

    /// Waits until a node other than the publisher provides the newest version.
    async fn wait_for_other_providers(&self, id: &PackageId, publisher: usize) -> anyhow::Result<()> {
        let (late, publisher) = (self.member(LATE_READER)?, self.member(publisher)?.peer());
        let package = self.member(READER)?.p2p.get_package(id).await?.context("all its versions are yanked")?;
        let manifest = self.member(READER)?.registry().index(id).await?.context("its index is not found")?;
        let (_, entry) = manifest.current().context("all its versions are yanked")?;
        let deadline = Instant::now() + WAIT;
        for content in [package.contents().archive, entry.manifest] {
            loop {
                let providers = late.node.client().get_providers(content.provider_key()).timeout(CALL_TIMEOUT).await;
                if providers.is_ok_and(|found| found.providers.iter().any(|peer| *peer != publisher)) {
                    break;
                }
                ensure!(Instant::now() < deadline, "only its publisher provides {id}");
                sleep(POLL).await;
            }
        }
        Ok(())
    }

    /// Returns the number of installed packages that equal the published ones, and the number of their files.
    pub(super) fn compare(&self, installed: &Installed) -> anyhow::Result<(usize, usize)> {
        let (mut same, mut files) = (0, 0);
        for package in &installed.packages {
            let source = self.packages.iter().find(|published| published.id == package.package);
            let source = source.with_context(|| format!("{} was not published", package.package))?;
            let files_there = contents(&package.path)?;
            files += files_there.len();
            same += usize::from(files_there == contents(&source.source.dir)? && !files_there.is_empty());
        }
        Ok((same, files))
    }
}

/// Publishes a folder.
///
/// # Errors
///
/// If the folder is not a package, or a step fails.
pub(super) async fn publish(member: &Member, source: &Source) -> anyhow::Result<Receipt> {
    let release = Release::read(member.peer(), source.dir.as_path()).await.with_context(|| source.name.to_string())?;
    member.registry().publish(release).await.with_context(|| source.name.to_string())
}

/// Returns whether a node discovers all wanted packages within [`WAIT`].
pub(super) async fn discovers(member: &Member, wanted: &[&PackageId]) -> bool {
    let deadline = Instant::now() + WAIT;
    loop {
        let known = member.p2p.discovered();
        let knows = |id: &&PackageId| known.iter().any(|package| package.newest.announcement().package == **id);
        if wanted.iter().all(knows) {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        sleep(POLL).await;
    }
}

/// Installs the newest version of a package that a node finds, and its dependencies.
///
/// # Errors
///
/// If it cannot be resolved or installed.
pub(super) async fn install_newest(member: &Member, id: &PackageId, dir: &Path) -> anyhow::Result<Installed> {
    let roots = [(id.clone(), VersionReq::STAR)];
    let lock = resolve::resolve(&roots, member.registry(), None).await?;
    Ok(resolve::install(&lock, member.registry(), dir).await?)
}
