//! Tests of catalogues: pages, cursors, and what a node that joins later gets.

use proptest::prelude::*;

use super::*;

fn filled(packages: u32) -> Discovered {
    let mut discovered = Discovered::new(7);
    for number in 0..packages {
        discovered.add(&signed(number % 16, &format!("package-{number}"), 1), peer(1), at(NOW));
    }
    discovered
}

#[test]
fn late_joiner_gets_the_whole_catalogue_page_by_page() {
    let discovered = filled(1000);
    let mut joiner = Discovered::new(8);
    let (mut cursor, mut pages) = (Cursor::default(), 0);
    loop {
        let bytes = discovered.page(cursor).encode();
        assert!(bytes.len() <= MAX_PAGE_LEN);
        let page = CataloguePage::decode(&bytes).unwrap();
        // Announcements of any age are accepted.
        let added = joiner.add_page(&page, peer(3), at(NOW + 400 * 24 * 60 * 60));
        assert_eq!((added.updated.len(), added.invalid), (page.entries.len(), 0));
        pages += 1;
        cursor = page.next;
        if !page.has_more {
            break;
        }
    }
    assert!((2..=MAX_PAGES).contains(&pages), "{pages}");
    assert_eq!(joiner.len(), 1000);
    // After that, only new ones.
    assert_eq!(discovered.page(cursor).entries.len(), 0);
}

#[test]
fn a_cursor_continues_and_one_of_another_run_starts_at_the_beginning() {
    let mut discovered = filled(3);
    let first = discovered.page(Cursor::default());
    discovered.add(&signed(1, "news", 1), peer(1), at(NOW));
    let sent = Cursor::from_bytes(first.next.to_bytes());
    assert_eq!(discovered.page(sent).entries, [signed(1, "news", 1).bytes().to_owned()]);
    let mut restarted = Discovered::new(9);
    restarted.add(&signed(1, "news", 1), peer(1), at(NOW));
    assert_eq!(restarted.page(sent).entries.len(), 1);
}

#[test]
fn attack_forged_catalogue_entries_are_counted_and_not_added() {
    let mut discovered = Discovered::new(1);
    let mut forged = signed(1, "left-pad", 1).bytes().to_owned();
    *forged.last_mut().unwrap() ^= 1;
    let entries = vec![
        forged,
        b"junk".to_vec(),
        signed_at(2, "far", NOW + 3 * MAX_AHEAD.as_secs()).bytes().to_owned(),
        signed_at(3, "near", NOW + MAX_AHEAD.as_secs() + 1).bytes().to_owned(),
        signed(4, "good", 1).bytes().to_owned(),
        signed(4, "good", 1).bytes().to_owned(),
    ];
    let added = discovered.add_page(&CataloguePage { entries, ..CataloguePage::default() }, peer(1), at(NOW));
    assert_eq!(added, AddedPage { updated: vec![package_of(4, "good")], invalid: 3 });
    assert_eq!(discovered.len(), 1);
}

#[test]
fn a_page_can_be_verified_before_the_list_is_locked() {
    let (known, news) = (signed(1, "known", 1), signed(1, "news", 1));
    let ahead = NOW + MAX_AHEAD.as_secs();
    let (early, too_early) = (signed_at(2, "early", ahead + 1), signed_at(2, "too-early", 2 * ahead));
    let entries = [&known, &news, &early, &too_early].map(|entry| entry.bytes().to_owned());
    let entries = entries.into_iter().chain([b"junk".to_vec()]).collect();
    let page = CataloguePage { entries, ..CataloguePage::default() };
    let verified = page.verify(at(NOW));
    let mut discovered = Discovered::new(1);
    discovered.add(&known, peer(1), at(NOW));
    let mut other = Discovered::new(1);
    other.add(&known, peer(1), at(NOW));
    let added = discovered.add_verified_page(verified, peer(2), at(NOW));
    assert_eq!(added, AddedPage { updated: vec![package_of(1, "news")], invalid: 2 });
    assert_eq!(other.add_page(&page, peer(2), at(NOW)), added);
    assert_eq!(discovered.snapshot(), other.snapshot());
}

#[test]
fn attack_oversize_page_is_not_decoded() {
    let mut bytes = CataloguePage::default().encode();
    bytes.resize(MAX_PAGE_LEN + 1, 0);
    assert_eq!(CataloguePage::decode(&bytes), Err(CatalogueError::TooLong { len: MAX_PAGE_LEN + 1 }));
}

#[test]
fn invalid_pages_are_an_error() {
    let page = filled(2).page(Cursor::default());
    let bytes = page.encode();
    assert_eq!(CataloguePage::decode(&bytes), Ok(page.clone()));
    // A page that is cut between two entries is valid.
    let borders = [18, 18 + 2 + page.entries[0].len()];
    for len in (0..bytes.len()).filter(|len| !borders.contains(len)) {
        assert_eq!(CataloguePage::decode(&bytes[..len]), Err(CatalogueError::Malformed), "{len} bytes");
    }
    let with = |position: usize, byte: u8| {
        let mut bytes = bytes.clone();
        bytes[position] = byte;
        CataloguePage::decode(&bytes)
    };
    assert_eq!(with(0, 2), Err(CatalogueError::Format { found: 2 }));
    assert_eq!(with(17, 2), Err(CatalogueError::Malformed));
    assert_eq!(with(18, 5), Err(CatalogueError::Malformed));
    let mut empty_entry = CataloguePage::default().encode();
    empty_entry.extend([0, 0]);
    assert_eq!(CataloguePage::decode(&empty_entry), Err(CatalogueError::Malformed));
}

proptest! {
    #[test]
    fn any_bytes_are_a_page_that_is_written_the_same_or_an_error(bytes in prop::collection::vec(0_u8..3, 0..80)) {
        if let Ok(page) = CataloguePage::decode(&bytes) {
            prop_assert_eq!(page.encode(), bytes);
        }
    }
}
