//! The tests that the guide names exist.

use std::{fs, io, path::Path};

#[test]
fn every_attack_that_the_guide_names_has_its_test() -> io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let guide = fs::read_to_string(root.join("../docs/registry.md"))?;
    let mut source = String::new();
    read_all(&root.join("src"), &mut source)?;
    // `attack_` alone is their common prefix.
    let named = guide.split('`').filter(|word| word.starts_with("attack_") && *word != "attack_");
    let (there, missing): (Vec<_>, Vec<_>) = named.partition(|name| source.contains(&format!("fn {name}() {{")));
    assert_eq!(missing, Vec::<&str>::new());
    assert!(there.len() > 50, "{}", there.len());
    Ok(())
}

fn read_all(folder: &Path, text: &mut String) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            read_all(&path, text)?;
        } else {
            *text += &fs::read_to_string(&path)?;
        }
    }
    Ok(())
}
