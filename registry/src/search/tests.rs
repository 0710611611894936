use std::time::Duration;

use libp2p_identity::Keypair;
use proptest::prelude::*;

use super::*;

fn id(name: &str) -> PackageId {
    let keypair = Keypair::ed25519_from_bytes([1; 32]).unwrap();
    PackageId::new(keypair.public().to_peer_id(), name.parse().unwrap()).unwrap()
}

fn entry(name: &str, title: &str, tags: &[&str], description: &str, readme: &str) -> SearchEntry {
    SearchEntry {
        package: id(name),
        version: Version::new(1, 0, 0),
        summary: Summary {
            title: title.to_owned(),
            description: description.to_owned(),
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            ..Summary::default()
        },
        readme: readme.to_owned(),
        updated: 7,
    }
}

fn named(name: &str) -> SearchEntry {
    entry(name, "", &[], "", "")
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn index_of(entries: impl IntoIterator<Item = SearchEntry>) -> SearchIndex {
    smol::block_on(async {
        let index = SearchIndex::in_memory(1000).await.unwrap();
        for (seconds, entry) in (0..).zip(entries) {
            index.upsert(entry, at(seconds)).await.unwrap();
        }
        index
    })
}

fn found(index: &SearchIndex, query: &Query) -> Vec<String> {
    let page = smol::block_on(index.search(query)).unwrap();
    page.hits.iter().map(|hit| hit.package.name().as_str().to_owned()).collect()
}

fn found_by(index: &SearchIndex, text: &str) -> Vec<String> {
    found(index, &Query::text(text).unwrap())
}

#[test]
fn names_weigh_more_than_titles_and_titles_more_than_the_rest() {
    let index = index_of([
        entry("e", "x", &["x"], "x", "pad"),
        entry("d", "x", &["x"], "pad", "x"),
        entry("c", "x", &["pad"], "x", "x"),
        entry("b", "pad", &["x"], "x", "x"),
        entry("pad", "x", &["x"], "x", "x"),
        named("other"),
    ]);
    assert_eq!(found_by(&index, "pad"), ["pad", "b", "c", "d", "e"]);
    let page = smol::block_on(index.search(&Query::text("pad").unwrap())).unwrap();
    assert!(page.hits.windows(2).all(|pair| pair[0].score > pair[1].score), "{page:?}");
    assert_eq!((page.total, page.hits[1].summary.title.as_str(), page.hits[1].updated), (5, "pad", 7));
}

#[test]
fn all_words_have_to_match_and_the_last_one_may_be_a_prefix() {
    let index = index_of([entry("left-pad", "", &[], "Pads text", ""), entry("right-pad", "", &[], "Größe", "")]);
    assert_eq!(found_by(&index, "pad text"), ["left-pad"]);
    assert_eq!(found_by(&index, "pad te"), ["left-pad"]);
    assert_eq!(found_by(&index, "te pad"), [""; 0]);
    assert_eq!(found_by(&index, "te "), [""; 0]);
    assert_eq!(found_by(&index, "LEFT"), ["left-pad"]);
    assert_eq!(found_by(&index, "left-pad"), ["left-pad"]);
    assert_eq!(found_by(&index, "grosse"), [""; 0]);
    assert_eq!(found_by(&index, "große"), ["right-pad"]);
    assert_eq!(found_by(&index, "größe"), ["right-pad"]);
    assert_eq!(found_by(&index, "GRÖß"), ["right-pad"]);
}

#[test]
fn attack_what_is_typed_is_never_syntax() {
    let index = index_of([entry("a", "left", &[], "not or near", ""), entry("b", "right", &[], "", "")]);
    for text in
        ["left OR right", "NOT right", "left NEAR right", "title:left", "left\" OR \"right", "left -right", "^b"]
    {
        assert!(found_by(&index, text).len() <= 1, "{text}");
    }
    assert_eq!(found_by(&index, "title:left"), [""; 0]);
    assert_eq!(found_by(&index, "left OR"), ["a"]);
    assert_eq!(found_by(&index, "left\" OR \"right"), [""; 0]);
    assert_eq!(found_by(&index, "nothing\"OR\"left"), [""; 0]);
    assert_eq!(found_by(&index, "\"left\""), ["a"]);
    for nothing in ["\"", "\"\"", "*", "()", "-", ":"] {
        assert_eq!(found_by(&index, nothing), [""; 0], "{nothing}");
    }
}

#[test]
fn a_query_without_text_finds_all_packages_in_the_order_of_their_ids() {
    let index = index_of([named("b"), named("c"), named("a")]);
    assert_eq!(found_by(&index, ""), ["a", "b", "c"]);
    assert_eq!(found_by(&index, "  "), ["a", "b", "c"]);
}

#[test]
fn filters_are_exact_and_all_have_to_match() {
    let mut one = entry("one", "pad", &["text", "left"], "", "");
    one.summary.categories = vec!["tools".to_owned()];
    one.summary.authors = vec!["Ada".to_owned()];
    let mut two = entry("two", "pad", &["text"], "", "");
    two.summary.authors = vec!["Ada L".to_owned()];
    let index = index_of([one, two]);
    let find = |query: crate::QueryBuilder| found(&index, &query.build().unwrap());
    assert_eq!(find(Query::builder().tag("text")), ["one", "two"]);
    assert_eq!(find(Query::builder().text("pad").tag("text").tag("left")), ["one"]);
    assert_eq!(find(Query::builder().tag("tex")), [""; 0]);
    assert_eq!(find(Query::builder().category("tools")), ["one"]);
    assert_eq!(find(Query::builder().tag("tools")), [""; 0]);
    assert_eq!(find(Query::builder().author("Ada")), ["one"]);
    assert_eq!(find(Query::builder().text("ada")).len(), 2);
}

#[test]
fn pages_have_a_stable_order_and_the_total_number_of_hits() {
    let index = index_of((0..25).rev().map(|n| entry(&format!("p{n:02}"), "same", &[], "", "")));
    let page = |offset| {
        let query = Query::builder().text("same").limit(10).offset(offset).build().unwrap();
        smol::block_on(index.search(&query)).unwrap()
    };
    let pages: Vec<_> = [0, 10, 20, 30].map(page).into();
    assert_eq!(pages.iter().map(|page| page.hits.len()).collect::<Vec<_>>(), [10, 10, 5, 0]);
    assert!(pages.iter().all(|page| page.total == 25));
    let names: Vec<_> = pages.iter().flat_map(|page| &page.hits).map(|hit| hit.package.to_string()).collect();
    assert!(names.is_sorted() && names.len() == 25, "{names:?}");
}

#[test]
fn upsert_replaces_the_entry() {
    let index = index_of([entry("a", "old", &["old"], "", ""), named("b")]);
    smol::block_on(index.upsert(entry("a", "new", &["new"], "", ""), at(9))).unwrap();
    assert_eq!(found_by(&index, "old"), [""; 0]);
    assert_eq!(found_by(&index, "new"), ["a"]);
    assert_eq!(found(&index, &Query::builder().tag("old").build().unwrap()), [""; 0]);
    assert_eq!(smol::block_on(index.len()).unwrap(), 2);
}

#[test]
fn a_removed_package_is_not_found() {
    let index = index_of([entry("a", "x", &["t"], "", ""), named("b")]);
    smol::block_on(async {
        assert!(index.remove(&id("a")).await.unwrap());
        assert!(!index.remove(&id("a")).await.unwrap());
        assert_eq!(found_by(&index, "x"), [""; 0]);
        assert!(index.remove(&id("b")).await.unwrap());
        assert!(index.is_empty().await.unwrap());
    });
}

#[test]
fn the_oldest_update_is_evicted_first() {
    smol::block_on(async {
        let index = SearchIndex::in_memory(3).await.unwrap();
        for (name, seconds) in [("a", 1), ("b", 2), ("c", 3), ("a", 4), ("d", 5)] {
            index.upsert(named(name), at(seconds)).await.unwrap();
        }
        assert_eq!(found_by(&index, ""), ["a", "c", "d"]);
        assert_eq!(index.len().await.unwrap(), 3);
    });
}

#[test]
fn an_index_in_a_file_survives_reopening() {
    smol::block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("search.db");
        let index = SearchIndex::open(&file, 10).await.unwrap();
        index.upsert(entry("a", "pad", &[], "", ""), at(1)).await.unwrap();
        drop(index);
        let index = SearchIndex::open(&file, 10).await.unwrap();
        assert_eq!(found_by(&index, "pad"), ["a"]);
    });
}

#[test]
fn only_the_beginning_of_a_long_readme_is_indexed() {
    let readme = format!("begun {}{} ended", "ä".repeat(MAX_INDEXED_README_LEN / 2 - 3), "€".repeat(2000));
    let index = index_of([entry("a", "", &[], "", &readme)]);
    assert_eq!(found_by(&index, "begun"), ["a"]);
    assert_eq!(found_by(&index, "ended"), [""; 0]);
    assert_eq!(prefix("aä"), "aä");
}

#[test]
fn an_invalid_row_is_an_error() {
    let index = index_of([named("a")]);
    smol::block_on(async {
        let spoil = |database: &rusqlite::Transaction<'_>| database.execute("UPDATE packages SET version = 'x'", []);
        index.database.transaction(spoil).await.unwrap();
        let searched = index.search(&Query::text("a").unwrap()).await;
        assert!(matches!(searched, Err(StorageError::Damaged { .. })), "{searched:?}");
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn any_text_is_a_valid_query(text in "\\PC{0,60}", more in "[\"'*()^:+\\- a-cANDORT]{0,30}") {
        let index = index_of([entry("a", "left", &[], "not or near", "")]);
        for text in [text, more] {
            if let Ok(query) = Query::text(text) {
                smol::block_on(index.search(&query)).unwrap();
            }
        }
    }
}
