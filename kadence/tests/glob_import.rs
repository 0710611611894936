//! A glob import of the crate does not hide names of the standard library.

use kadence::*;

#[test]
fn a_glob_import_hides_no_standard_name() {
    let _client: Option<Client> = None;
    assert_eq!(core::cmp::max(1, 2), 2);
    assert_eq!(std::cmp::max(1, 2), 2);
}
