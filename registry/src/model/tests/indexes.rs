use super::*;

fn index(numbers: &[&str]) -> Index {
    numbers
        .iter()
        .fold(Index::new(id("left-pad")), |index, number| index.with_version(&package("left-pad", number)).unwrap())
}

fn index_with(pointer: &str, value: Value) -> Result<Index, ManifestError> {
    let mut document: Value = serde_json::from_slice(&index(&["1.0.0"]).to_json()).unwrap();
    *document.pointer_mut(pointer).unwrap() = value;
    Index::from_json(document.to_string().as_bytes())
}

#[test]
fn an_index_survives_a_round_trip_through_json() {
    let index = index(&["1.0.0", "1.1.0-rc.1"]);
    let read = Index::from_json(&index.to_json()).unwrap();
    assert_eq!(read, index);
    assert_eq!(read.content_id(), ContentId::of(&index.to_json()));
    assert_eq!(read.package(), &id("left-pad"));
    assert_eq!(read.summary().title, "Left pad");
    let entry = &read.versions()[&version("1.0.0")];
    let package = package("left-pad", "1.0.0");
    assert_eq!((entry.manifest, entry.manifest_size), (package.content_id(), package.to_json().len() as u64));
    assert_eq!((entry.archive, entry.archive_size), (package.contents().archive, 5));
    assert_eq!((entry.dependencies.as_slice(), entry.published), (package.dependencies(), 200));
}

#[test]
fn published_versions_are_immutable() {
    let index = index(&["1.0.0"]);
    let same = package("left-pad", "1.0.0");
    assert_eq!(index.with_version(&same).as_ref(), Ok(&index));
    let draft = Package::builder(id("left-pad"), version("1.0.0")).build().unwrap();
    let other = Package::new(draft, contents("other"), 1, 1).unwrap();
    let exists = IndexError::VersionExists { version: version("1.0.0"), manifest: same.content_id() };
    assert_eq!(index.with_version(&other), Err(exists.clone()));
    // A yanked version number cannot be used again.
    assert_eq!(index.with_yanked(&version("1.0.0"), true).unwrap().with_version(&other), Err(exists));
}

#[test]
fn an_index_takes_versions_of_its_own_package_only() {
    let other = IndexError::OtherPackage { index: Box::new(id("left-pad")), given: Box::new(id("right-pad")) };
    assert_eq!(index(&[]).with_version(&package("right-pad", "1.0.0")), Err(other));
}

#[test]
fn newest_finds_the_newest_matching_version() {
    let index = index(&["0.9.0", "1.0.0", "1.2.0", "1.3.0-rc.1", "2.0.0"]);
    let index = index.with_yanked(&version("2.0.0"), true).unwrap();
    let newest = |text: &str, yanked| index.newest(&requirement(text), yanked).map(|(version, _)| version.to_string());
    assert_eq!(newest("*", false).as_deref(), Some("1.2.0"));
    assert_eq!(newest("*", true).as_deref(), Some("2.0.0"));
    assert_eq!(newest("^0.9", false).as_deref(), Some("0.9.0"));
    assert_eq!(newest("^1.3.0-rc.1", false).as_deref(), Some("1.3.0-rc.1"));
    assert_eq!(newest("^3", true), None);
    assert_eq!(newest("^2", false), None);
    assert_eq!(index.current().unwrap().0, &version("1.2.0"));
}

#[test]
fn a_pre_release_is_current_only_if_there_is_nothing_else() {
    let pre = index(&["1.0.0-rc.1", "1.0.0-rc.2"]);
    assert_eq!(pre.current().unwrap().0, &version("1.0.0-rc.2"));
    let yanked = pre.with_yanked(&version("1.0.0-rc.2"), true).unwrap();
    assert_eq!(yanked.current().unwrap().0, &version("1.0.0-rc.1"));
    let none = yanked.with_yanked(&version("1.0.0-rc.1"), true).unwrap();
    assert_eq!(none.current(), None);
    assert_eq!(none.with_yanked(&version("1.0.0-rc.1"), false).as_ref(), Ok(&yanked));
    let missing = IndexError::NoSuchVersion { version: version("3.0.0") };
    assert_eq!(none.with_yanked(&version("3.0.0"), true), Err(missing));
}

#[test]
fn the_summary_is_that_of_the_current_version() {
    let titled = |number: &str, title: &str| {
        let draft = Package::builder(id("left-pad"), version(number)).title(title).build().unwrap();
        Package::new(draft, contents(number), 1, 1).unwrap()
    };
    let index = index(&["1.0.0"]).with_version(&titled("2.0.0", "Two")).unwrap();
    assert_eq!(index.summary().title, "Two");
    let index = index.with_version(&titled("1.0.1", "A fix for one")).unwrap();
    let index = index.with_version(&titled("3.0.0-rc.1", "Not yet")).unwrap();
    assert_eq!(index.summary().title, "Two");
}

#[test]
fn versions_and_bytes_of_an_index_are_bounded() {
    let json: Value = serde_json::from_slice(&index(&["1.0.0"]).to_json()).unwrap();
    let mut entry = json["versions"]["1.0.0"].clone();
    entry["dependencies"] = json!([]);
    let many = |count: usize| (0..count).map(|n| (format!("{n}.0.0"), entry.clone())).collect::<Value>();
    let full = index_with("/versions", many(MAX_VERSIONS)).unwrap();
    let next = full.with_version(&package("left-pad", "5000.0.0"));
    assert_eq!(next, Err(IndexError::TooManyVersions { max: MAX_VERSIONS }));
    let field = FieldError::TooMany { field: "versions", count: MAX_VERSIONS + 1, max: MAX_VERSIONS };
    assert_eq!(index_with("/versions", many(MAX_VERSIONS + 1)), Err(field.into()));

    let depends = |number: u64| {
        let draft = Package::builder(id("left-pad"), Version::new(number, 0, 0));
        let draft = (0..256).fold(draft, |draft, n| draft.dependency(id(&format!("{n:064}")), requirement("^1.2.3")));
        Package::new(draft.build().unwrap(), contents("x"), 1, 1).unwrap()
    };
    let error =
        (0..).try_fold(index(&[]), |index, n| index.with_version(&depends(n)).map_or_else(Err, Ok)).unwrap_err();
    assert!(matches!(error, IndexError::Invalid(InvalidPackageError::TooLong { max: MAX_INDEX_LEN, .. })), "{error}");
}

#[test]
fn a_hostile_index_is_rejected() {
    let range = |field, given, min, max| Err(FieldError::OutOfRange { field, given, min, max }.into());
    let entry = |field: &str| format!("/versions/1.0.0/{field}");
    let max = MAX_MANIFEST_LEN as u64;
    assert_eq!(index_with(&entry("manifest_size"), json!(max + 1)), range("manifest_size", max + 1, 1, max));
    assert_eq!(index_with(&entry("archive_size"), json!(0)), range("archive_size", 0, 1, MAX_ARCHIVE_SIZE));
    let late = 253_402_300_799;
    assert_eq!(index_with(&entry("published"), json!(late + 1)), range("published", late + 1, 0, late));
    let itself = json!([{"package": id("left-pad"), "requirement": "*"}]);
    let depends = Err(InvalidPackageError::DependsOnItself.into());
    assert_eq!(index_with(&entry("dependencies"), itself), depends);
    let character = FieldError::Character { field: "title", character: '\u{1b}' };
    assert_eq!(index_with("/summary/title", json!("\u{1b}[2J")), Err(character.into()));
    let build = FieldError::Character { field: "version", character: '+' };
    let entry: Value = serde_json::from_slice(&index(&["1.0.0"]).to_json()).unwrap();
    let versions = json!({"1.0.0+x": entry["versions"]["1.0.0"]});
    assert_eq!(index_with("/versions", versions), Err(build.into()));
}
