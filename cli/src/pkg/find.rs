//! `kadence pkg search`, `info` and `versions`.

use std::fmt::Write;

use kadence_registry::{Package, PackageId, Query, Registry, SearchHit, SearchPage, VersionInfo};
use serde_json::json;

use super::{
    args::{InfoArgs, Peers, Place, SearchArgs, VersionsArgs},
    home::Home,
    member::{Member, Part},
    table::{aligned, date, short, size},
};
use crate::{args::NetworkArgs, exit::Failure, output};

/// Finds packages in the own index and those of the connected peers.
///
/// # Errors
///
/// If there are none, the query is invalid, or the network cannot be reached.
pub(super) async fn search(args: SearchArgs, network: NetworkArgs) -> Result<(), Failure> {
    let SearchArgs { text, categories, tags, author, limit, peers, place } = args;
    let text = text.join(" ");
    let mut query = Query::builder().text(&text).limit(limit);
    query = categories.into_iter().fold(query, |query, category| query.category(category));
    query = tags.into_iter().fold(query, |query, tag| query.tag(tag));
    if let Some(author) = author {
        query = query.author(author);
    }
    let query = query.build().map_err(anyhow::Error::from)?;
    let json = place.json;
    let member = Member::join(lookup(peers, place, network)?).await?;
    let found = async {
        let there = member.in_time(member.registry.search_network(&query)).await?;
        let here = member.in_time(member.registry.search(&query)).await?;
        Ok::<_, Failure>(merged(there, here, limit))
    };
    let found = found.await;
    member.leave().await;
    let SearchPage { hits, total } = found?;
    if json {
        return Ok(output::json(&json!({ "ok": true, "total": total, "hits": hits }))?);
    }
    if hits.is_empty() {
        return Err(Failure::not_found(anyhow::anyhow!("no known package matches {text:?}")));
    }
    let rows: Vec<[String; 4]> = hits.iter().map(row).collect();
    output::line(aligned(["PACKAGE", "VERSION", "PUBLISHED", "TITLE"], &rows))?;
    if total > hits.len() {
        output::note(format_args!("{} of {total} packages: use --limit to see more", hits.len()));
    }
    Ok(())
}

/// Shows one version of a package.
///
/// # Errors
///
/// If there is no such package or version, or the network cannot be reached.
pub(super) async fn info(args: InfoArgs, network: NetworkArgs) -> Result<(), Failure> {
    let InfoArgs { package, readme, peers, place } = args;
    let json = place.json;
    let member = Member::join(lookup(peers, place, network)?).await?;
    let found = async {
        let id = member.package(&package.name).await?;
        let found = match &package.version {
            Some(version) => member.in_time(member.registry.get_package_version(&id, version)).await?,
            None => member.in_time(member.registry.get_package(&id)).await?,
        };
        found.ok_or_else(|| match &package.version {
            Some(version) => Failure::not_found(anyhow::anyhow!("no version {version} of {id}")),
            None => not_found(&id),
        })
    };
    let found = found.await;
    member.leave().await;
    let package = found?;
    if json {
        return Ok(output::json(&json!({ "ok": true, "package": package }))?);
    }
    output::line(described(&package))?;
    if readme && !package.metadata().readme.is_empty() {
        output::line(format_args!("\n{}", package.metadata().readme.trim_end()))?;
    }
    Ok(())
}

/// Lists the versions of a package.
///
/// # Errors
///
/// If there is no such package, or the network cannot be reached.
pub(super) async fn versions(args: VersionsArgs, network: NetworkArgs) -> Result<(), Failure> {
    let VersionsArgs { package: name, peers, place } = args;
    let json = place.json;
    let member = Member::join(lookup(peers, place, network)?).await?;
    let found = async {
        let id = member.package(&name).await?;
        let versions = member.in_time(member.registry.list_versions(&id)).await?;
        versions.map(|versions| (id.clone(), versions)).ok_or_else(|| not_found(&id))
    };
    let found = found.await;
    member.leave().await;
    let (id, versions) = found?;
    if json {
        return Ok(output::json(&json!({ "ok": true, "package": id, "versions": versions }))?);
    }
    let row = |VersionInfo { version, entry }: &VersionInfo| {
        let needs: Vec<String> = entry.dependencies.iter().map(|needed| needed.package.name().to_string()).collect();
        let yanked = if entry.yanked { "yanked" } else { "" };
        [version.to_string(), date(entry.published), size(entry.archive_size), yanked.to_owned(), needs.join(", ")]
    };
    let rows: Vec<_> = versions.iter().map(row).collect();
    output::line(id)?;
    Ok(output::line(aligned(["VERSION", "PUBLISHED", "SIZE", "", "NEEDS"], &rows))?)
}

/// Returns the parameters of a node that asks and leaves.
fn lookup(peers: Peers, place: Place, network: NetworkArgs) -> Result<Part, Failure> {
    let timeout = place.lookup_timeout();
    Ok(Part { home: Home::find(place.home)?, peers: peers.peers, listen: Vec::new(), network, timeout })
}

fn not_found(id: &PackageId) -> Failure {
    Failure::not_found(anyhow::anyhow!("package {id} does not exist, or all its versions are yanked"))
}

/// Returns the hits of the network, followed by those that only the own index has.
fn merged(there: SearchPage, here: SearchPage, limit: usize) -> SearchPage {
    let SearchPage { mut hits, total } = there;
    let more: Vec<SearchHit> =
        here.hits.into_iter().filter(|hit| !hits.iter().any(|known| known.package == hit.package)).collect();
    hits.extend(more);
    let total = total.max(here.total).max(hits.len());
    hits.truncate(limit);
    SearchPage { hits, total }
}

fn row(hit: &SearchHit) -> [String; 4] {
    let SearchHit { package, version, summary, updated, score: _ } = hit;
    let title = if summary.title.is_empty() { &summary.description } else { &summary.title };
    [package.to_string(), version.to_string(), date(*updated), short(title, 60)]
}

/// Returns a line for each field that the package has.
fn described(package: &Package) -> String {
    let metadata = package.metadata();
    let contents = package.contents();
    let mut text = format!("{} {}", package.id(), package.version());
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            let _never_fails = write!(text, "\n{name:<12} {value}");
        }
    };
    line("title", &metadata.title);
    line("description", &metadata.description.split_whitespace().collect::<Vec<_>>().join(" "));
    line("licence", &metadata.licence);
    line("authors", &metadata.authors.join(", "));
    line("categories", &metadata.categories.join(", "));
    line("tags", &metadata.tags.join(", "));
    for (name, url) in &metadata.links {
        line(name, url);
    }
    for needed in package.dependencies() {
        line("needs", &format!("{} {}", needed.package, needed.requirement));
    }
    line("published", &date(package.updated()));
    let unpacked = size(contents.unpacked_size);
    line("archive", &format!("{}, {} files of {unpacked}", size(contents.archive_size), contents.files));
    line("content", &contents.archive.to_string());
    text
}

#[cfg(test)]
mod tests {
    use kadence_registry::{ContentId, Contents, Summary};
    use kadence_tokio::kadence::libp2p::identity::Keypair;
    use semver::Version;

    use super::*;

    fn id(name: &str) -> PackageId {
        let keypair = Keypair::ed25519_from_bytes([7; 32]).unwrap();
        PackageId::new(keypair.public().to_peer_id(), name.parse().unwrap()).unwrap()
    }

    fn page(names: &[&str]) -> SearchPage {
        let hit = |name: &&str| SearchHit {
            package: id(name),
            version: Version::new(1, 0, 0),
            summary: Summary { description: "a word\nmore".to_owned(), ..Summary::default() },
            updated: 0,
            score: 1.0,
        };
        SearchPage { hits: names.iter().map(hit).collect(), total: names.len() }
    }

    #[test]
    fn hits_of_the_own_index_follow_those_of_the_network() {
        let found = merged(page(&["a", "b"]), page(&["b", "c"]), 3);
        let names: Vec<_> = found.hits.iter().map(|hit| hit.package.name().as_str()).collect();
        assert_eq!((names, found.total), (vec!["a", "b", "c"], 3));
        assert_eq!(merged(page(&["a", "b"]), page(&["c"]), 1).hits.len(), 1);
        assert_eq!(row(&found.hits[0])[3], "a word", "the description, where there is no title");
    }

    #[test]
    fn a_description_has_the_fields_that_a_package_has() {
        let draft = Package::builder(id("units"), Version::new(1, 2, 0))
            .description("Units of\nmeasure")
            .dependency(id("numbers"), ">=1".parse().unwrap())
            .build()
            .unwrap();
        let archive = ContentId::of(b"archive");
        let contents = Contents { archive, archive_size: 2048, files: 3, unpacked_size: 4096 };
        let text = described(&Package::new(draft, contents, 0, 0).unwrap());
        assert!(
            text.starts_with(&format!("{} 1.2.0\ndescription  Units of measure\nneeds        ", id("units"))),
            "{text}"
        );
        assert!(text.contains("2.00 KiB, 3 files of 4.00 KiB") && !text.contains("licence"), "{text}");
    }
}
