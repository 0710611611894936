//! Tests of the list of packages, and of its bounds.

use super::*;

fn names(discovered: &Discovered) -> Vec<String> {
    discovered.since(0).map(|package| package.newest.announcement().package.name().to_string()).collect()
}

#[test]
fn packages_are_listed_in_the_order_of_their_last_change() {
    let mut discovered = Discovered::new(1);
    assert!(discovered.is_empty());
    assert_eq!(discovered.add(&signed(1, "a", 1), peer(1), at(NOW)), Freshness::New);
    assert_eq!(discovered.add(&signed(2, "b", 1), peer(1), at(NOW + 1)), Freshness::New);
    let seen = discovered.since(0).last().unwrap().number;
    assert_eq!(discovered.add(&signed(1, "a", 2), peer(1), at(NOW + 2)), Freshness::Newer);
    assert_eq!(names(&discovered), ["b", "a"]);
    let news: Vec<_> = discovered.since(seen).collect();
    assert_eq!(news.len(), 1);
    assert_eq!((news[0].first_seen, news[0].last_seen), (at(NOW), at(NOW + 2)));
    assert_eq!(discovered.since(news[0].number).count(), 0);
    assert_eq!(discovered.since(u64::MAX).count(), 0);
    assert_eq!(discovered.snapshot().len(), discovered.len());
    assert!(discovered.knows_publisher(&keypair(2).public().to_peer_id()) && !discovered.knows_publisher(&peer(1)));
}

#[test]
fn old_announcements_change_nothing() {
    let mut discovered = Discovered::new(1);
    discovered.add(&signed(1, "a", 5), peer(1), at(NOW));
    let before = discovered.snapshot();
    assert_eq!(discovered.add(&signed(1, "a", 4), peer(1), at(NOW + 9)), Freshness::Older { known: 5 });
    assert_eq!(discovered.add(&signed(1, "a", 5), peer(1), at(NOW + 9)), Freshness::Same);
    assert_eq!(discovered.snapshot(), before);
}

#[test]
fn the_provider_with_the_oldest_report_makes_room() {
    let mut discovered = Discovered::new(1);
    let package = package_of(1, "a");
    discovered.add_provider(&package, peer(0), at(NOW));
    discovered.add(&signed(1, "a", 1), peer(1), at(NOW));
    for number in 0..20 {
        discovered.add_provider(&package, peer(number), at(NOW + u64::from(number)));
    }
    // Reported again.
    discovered.add_provider(&package, peer(0), at(NOW + 50));
    discovered.add_provider(&package, peer(20), at(NOW + 51));
    let peers = |discovered: &Discovered| {
        discovered.get(&package).unwrap().providers.iter().map(|provider| provider.peer).collect::<Vec<_>>()
    };
    assert_eq!(peers(&discovered).len(), MAX_PACKAGE_PROVIDERS);
    assert!(peers(&discovered).contains(&peer(0)) && peers(&discovered).contains(&peer(20)));
    assert!(!peers(&discovered).contains(&peer(1)));
    // The providers are kept when a newer version is announced.
    discovered.add(&signed(1, "a", 2), peer(1), at(NOW + 60));
    assert_eq!(peers(&discovered).len(), MAX_PACKAGE_PROVIDERS);
}

#[test]
fn attack_crowding_out_a_neighbour_displaces_only_its_own_reports() {
    let mut discovered = Discovered::with(1, 50, 50);
    for number in 0..10 {
        discovered.add(&signed(number, "honest", 1), peer(1), at(NOW));
    }
    for number in 0..300 {
        discovered.add(&signed(1000 + number % 20, &format!("spam-{number}"), 1), peer(2), at(NOW));
        assert!(discovered.len() <= 50);
    }
    for number in 0..10 {
        assert!(discovered.get(&package_of(number, "honest")).is_some());
    }
    // The full list accepts what others report.
    for number in 10..20 {
        assert_eq!(discovered.add(&signed(number, "honest", 1), peer(3), at(NOW)), Freshness::New);
    }
    assert_eq!(names(&discovered).iter().filter(|name| *name == "honest").count(), 20);
    assert_eq!(discovered.len(), 50);
}

#[test]
fn attack_crowding_out_a_package_that_others_report_too_is_not_displaced_by_spam() {
    let mut discovered = Discovered::with(1, 20, 20);
    // The spammer is the first to report it.
    discovered.add(&signed(1, "honest", 1), peer(2), at(NOW));
    discovered.add(&signed(1000, "spam-0", 1), peer(2), at(NOW));
    assert_eq!(discovered.add(&signed(1, "honest", 1), peer(1), at(NOW)), Freshness::Same);
    for number in 1..100 {
        discovered.add(&signed(1000 + number % 10, &format!("spam-{number}"), 1), peer(2), at(NOW));
    }
    assert!(discovered.get(&package_of(1, "honest")).is_some());
}

#[test]
fn a_publisher_with_too_many_packages_displaces_its_own() {
    let mut discovered = Discovered::with(1, 50, 3);
    discovered.add(&signed(2, "other", 1), peer(1), at(NOW));
    for name in ["a", "b", "c", "d", "e"] {
        discovered.add(&signed(1, name, 1), peer(1), at(NOW));
    }
    assert_eq!(names(&discovered), ["other", "c", "d", "e"]);
    // A newer version of a known package needs no room.
    discovered.add(&signed(1, "c", 2), peer(1), at(NOW));
    assert_eq!(names(&discovered), ["other", "d", "e", "c"]);
}
