use super::*;

#[test]
fn a_manifest_survives_a_round_trip_through_json() {
    let package = package("left-pad", "1.0.0");
    let read = Package::from_json(&package.to_json()).unwrap();
    assert_eq!(read, package);
    assert_eq!(read.content_id(), ContentId::of(&package.to_json()));
    assert_eq!((read.id(), read.version()), (&id("left-pad"), &version("1.0.0")));
    assert_eq!((read.created(), read.updated()), (100, 200));
    assert_eq!(read.metadata().licence, "MIT OR Apache-2.0");
    assert_eq!(read.dependencies().len(), 1);
    assert_eq!(read.contents(), &contents("1.0.0"));
}

#[test]
fn unknown_fields_are_ignored_and_missing_ones_are_empty() {
    let json = json!({
        "schema": 1, "id": id("x"), "version": "1.0.0", "contents": contents("x"), "created": 1, "updated": 1,
        "later": {"any": [1, 2]},
    });
    let package = Package::from_json(json.to_string().as_bytes()).unwrap();
    assert_eq!(package.metadata(), &Metadata::default());
    assert!(package.dependencies().is_empty());
}

#[test]
fn a_later_schema_is_reported_even_if_nothing_else_can_be_parsed() {
    let later = Package::from_json(br#"{"schema": 2, "id": 7}"#);
    assert_eq!(later, Err(ManifestError::Schema { found: 2 }));
    for no_manifest in ["", "[]", "{}", "\u{0}", r#"{"schema": 1}"#, r#"{"schema": -1}"#] {
        let read = Package::from_json(no_manifest.as_bytes());
        assert!(matches!(read, Err(ManifestError::Json(_))), "{no_manifest}: {read:?}");
    }
}

#[test]
fn attack_an_oversize_document_is_refused_before_it_is_read() {
    // A valid manifest, except for its length.
    let mut manifest = package("x", "1.0.0").to_json();
    manifest.resize(MAX_MANIFEST_LEN, b' ');
    assert!(Package::from_json(&manifest).is_ok());
    manifest.push(b' ');
    let too_large = ManifestError::TooLong { len: MAX_MANIFEST_LEN + 1, max: MAX_MANIFEST_LEN };
    assert_eq!(Package::from_json(&manifest), Err(too_large));

    let index = vec![b'['; MAX_INDEX_LEN + 1];
    let too_large = ManifestError::TooLong { len: MAX_INDEX_LEN + 1, max: MAX_INDEX_LEN };
    assert_eq!(Index::from_json(&index), Err(too_large));
}

#[test]
fn deep_nesting_is_rejected() {
    let deep = format!(r#"{{"schema": 1, "later": {}"#, "[".repeat(100_000));
    assert!(matches!(Package::from_json(deep.as_bytes()), Err(ManifestError::Json(_))));
}

#[test]
fn texts_have_a_maximum_length() {
    let fields = [
        ("/metadata/title", "title", 128),
        ("/metadata/description", "description", 1024),
        ("/metadata/licence", "licence", 128),
        ("/metadata/authors/0", "authors", 128),
        ("/metadata/categories/0", "categories", 48),
        ("/metadata/tags/0", "tags", 48),
        ("/metadata/readme", "readme", 128 * 1024),
    ];
    for (pointer, field, max) in fields {
        assert!(manifest_with(pointer, "a".repeat(max).into()).is_ok(), "{field}");
        let len = max + 1;
        assert_eq!(rejected(pointer, "a".repeat(len).into()), FieldError::TooLong { field, len, max });
    }
}

#[test]
fn lists_have_a_maximum_length_and_no_duplicates() {
    let fields = [("authors", 32), ("categories", 8), ("tags", 32)];
    for (field, max) in fields {
        let pointer = format!("/metadata/{field}");
        let many = |count: usize| (0..count).map(|n| format!("w{n}")).collect::<Vec<_>>();
        assert!(manifest_with(&pointer, many(max).into()).is_ok(), "{field}");
        let count = max + 1;
        assert_eq!(rejected(&pointer, many(count).into()), FieldError::TooMany { field, count, max });
        let twice = FieldError::Duplicate { field, given: "a".to_owned() };
        assert_eq!(rejected(&pointer, json!(["a", "b", "a"])), twice);
        assert_eq!(rejected(&pointer, json!([""])), FieldError::Empty { field });
    }
}

#[test]
fn attack_characters_that_move_the_cursor_or_turn_text_around_are_refused() {
    for character in ['\0', '\u{1b}', '\u{7f}', '\u{85}', '\u{202e}', '\u{2066}', '\u{2028}'] {
        for field in ["title", "description", "licence", "readme"] {
            let text = format!("a{character}b");
            assert_eq!(
                rejected(&format!("/metadata/{field}"), text.into()),
                FieldError::Character { field, character }
            );
        }
    }
    assert!(manifest_with("/metadata/readme", "a\tb\r\n".into()).is_ok());
    assert_eq!(rejected("/metadata/title", "a\nb".into()), FieldError::Character { field: "title", character: '\n' });
}

#[test]
fn categories_and_tags_are_words_in_lower_case() {
    let character = FieldError::Character { field: "tags", character: ' ' };
    assert_eq!(rejected("/metadata/tags/0", "left pad".into()), character);
    let character = FieldError::Character { field: "categories", character: 'T' };
    assert_eq!(rejected("/metadata/categories/0", "Text".into()), character);
    assert!(manifest_with("/metadata/tags/0", "größe-c++".into()).is_ok());
}

#[test]
fn attack_links_are_web_pages_and_nothing_else() {
    let bad = [
        "javascript:alert(1)",
        "file:///etc/passwd",
        "HTTPS://example.com",
        "https:example.com",
        "https://",
        "https:///path",
        "https://?q",
        "https://example.com@evil.example",
        "https://example.com/a b",
        "https://example.com/\"onload=",
        "https://example.com\\@evil.example",
        "",
    ];
    for url in bad {
        let error = manifest_with("/metadata/links/repository", url.into());
        let not_a_link = InvalidPackageError::InvalidLink { name: "repository".to_owned(), url: url.to_owned() };
        assert_eq!(error, Err(ManifestError::Invalid(not_a_link)), "{url}");
    }
    for url in ["http://example.com", "https://[::1]:8080/x?y=@#z"] {
        assert!(manifest_with("/metadata/links/repository", url.into()).is_ok(), "{url}");
    }
    let long = format!("https://{}", "a".repeat(2048));
    let too_long = FieldError::TooLong { field: "links", len: 2056, max: 2048 };
    assert_eq!(rejected("/metadata/links/repository", long.into()), too_long);
    assert_eq!(rejected("/metadata/links", json!({"": "https://a"})), FieldError::Empty { field: "links" });
    let many: Value = (0..17).map(|n| (format!("l{n}"), Value::from("https://a"))).collect();
    assert_eq!(rejected("/metadata/links", many), FieldError::TooMany { field: "links", count: 17, max: 16 });
}

#[test]
fn dependencies_are_other_packages_each_once() {
    let on = |name: &str, requirement: &str| json!({"package": id(name), "requirement": requirement});
    let itself = manifest_with("/dependencies", json!([on("left-pad", "*")]));
    assert_eq!(itself, Err(ManifestError::Invalid(InvalidPackageError::DependsOnItself)));
    let twice = rejected("/dependencies", json!([on("a", "^1"), on("a", "^2")]));
    assert_eq!(twice, FieldError::Duplicate { field: "dependencies", given: id("a").to_string() });
    let many: Vec<_> = (0..257).map(|n| on(&format!("d{n}"), "*")).collect();
    let too_many = FieldError::TooMany { field: "dependencies", count: 257, max: 256 };
    assert_eq!(rejected("/dependencies", many.into()), too_many);
    let long = format!("^1.0.0-{}", "a".repeat(128));
    let too_long = FieldError::TooLong { field: "dependencies", len: 135, max: 128 };
    assert_eq!(rejected("/dependencies", json!([on("a", &long)])), too_long);
    assert!(matches!(manifest_with("/dependencies", json!([on("a", "one")])), Err(ManifestError::Json(_))));
}

#[test]
fn a_version_is_short_and_without_build_metadata() {
    let build = FieldError::Character { field: "version", character: '+' };
    assert_eq!(rejected("/version", "1.0.0+a".into()), build);
    let long = format!("1.0.0-{}", "a".repeat(123));
    assert_eq!(rejected("/version", long.into()), FieldError::TooLong { field: "version", len: 129, max: 128 });
}

#[test]
fn sizes_and_times_are_in_their_range() {
    for (pointer, field, given, min, max) in [
        ("/contents/archive_size", "archive_size", 0, 1, MAX_ARCHIVE_SIZE),
        ("/contents/archive_size", "archive_size", u64::MAX, 1, MAX_ARCHIVE_SIZE),
        ("/contents/files", "files", u64::MAX, 0, 1_000_000),
        ("/contents/unpacked_size", "unpacked_size", u64::MAX, 0, 16 * MAX_ARCHIVE_SIZE),
        ("/updated", "updated", u64::MAX, 0, 253_402_300_799),
    ] {
        assert_eq!(rejected(pointer, given.into()), FieldError::OutOfRange { field, given, min, max });
    }
    let times = InvalidPackageError::UpdatedBeforeCreated { created: 201, updated: 200 };
    assert_eq!(manifest_with("/created", 201.into()), Err(ManifestError::Invalid(times)));
}

#[test]
fn a_release_is_the_same_regardless_of_its_times() {
    let one = package("left-pad", "1.0.0");
    assert!(one.is_same_release(&manifest_with("/updated", 300.into()).unwrap()));
    for (pointer, value) in [
        ("/id", json!(id("other-pad"))),
        ("/version", json!("1.0.1")),
        ("/metadata/title", json!("x")),
        ("/dependencies", json!([])),
        ("/contents/files", json!(2)),
    ] {
        assert!(!one.is_same_release(&manifest_with(pointer, value).unwrap()), "{pointer}");
    }
}
