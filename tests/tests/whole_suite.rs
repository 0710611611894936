//! Checks that `suite!` lists every test of the suite. A test that is not listed would never run.

use std::{fs, path::Path};

#[test]
fn every_test_of_the_suite_is_listed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/suite");
    let list = fs::read_to_string(folder.join("mod.rs")).unwrap();
    let mut tests = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.ends_with("mod.rs") || path.ends_with("support.rs") {
            continue;
        }
        for line in fs::read_to_string(&path).unwrap().lines() {
            let Some(rest) = line.strip_prefix("pub async fn ") else { continue };
            let name = rest.split('<').next().unwrap();
            assert!(list.contains(&format!(" {name},\n")), "{name} of {} is not listed in suite!", path.display());
            tests += 1;
        }
    }
    assert!(tests > 0, "no test of the suite was found");
}
