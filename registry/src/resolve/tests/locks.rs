use super::*;

fn lock() -> Lock {
    resolved(&["a *"], &registry(&["a 1.0.0: b *", "b 1.0.0"]), None).unwrap()
}

#[test]
fn a_lock_file_survives_a_round_trip_through_text() {
    let lock = lock();
    let text = lock.to_toml();
    assert_eq!(Lock::from_toml(&text).unwrap(), lock);
    assert!(text.starts_with("# ") && text.contains("[[package]]") && text.contains("manifest-size = "), "{text}");
    assert!(text.find(&id("a").to_string()) < text.find(&id("b").to_string()), "sorted: {text}");
    assert_eq!(Lock::from_toml(&Lock::default().to_toml()).unwrap(), Lock::default());
}

#[test]
fn an_invalid_lock_file_is_an_error() {
    let text = lock().to_toml();
    let later = Lock::from_toml("schema = 2\npackage = 7");
    assert!(matches!(later, Err(LockError::Schema { found: 2 })), "{later:?}");
    for no_lock in ["", "schema", "schema = 1\n[[package]]\nid = 1"] {
        assert!(matches!(Lock::from_toml(no_lock), Err(LockError::Toml(_))), "{no_lock}");
    }
    let large = Lock::from_toml(&" ".repeat(8 * 1024 * 1024 + 1));
    assert!(matches!(large, Err(LockError::TooLong { .. })), "{large:?}");
    let row = text.find("[[package]]").unwrap();
    let twice = Lock::from_toml(&format!("{text}\n{}", &text[row..]));
    assert!(matches!(twice, Err(LockError::Package { .. })), "{twice:?}");
    for (what, bad) in
        [("version = \"1.0.0\"", "version = \"1.0.0+x\""), ("manifest-size = ", "manifest-size = 99999999")]
    {
        let spoiled = Lock::from_toml(&text.replacen(what, bad, 1));
        assert!(matches!(spoiled, Err(LockError::Package { .. })), "{what}: {spoiled:?}");
    }
    let second = text.rfind("[[package]]").unwrap();
    match Lock::from_toml(&text[..second]) {
        Err(LockError::Missing { package }) => assert_eq!(*package, id("b")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_lock_file_is_written_and_read_as_a_file() {
    smol::block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("packages.lock");
        assert_eq!(Lock::read(&path).await.unwrap(), None);
        Lock::default().write(&path).await.unwrap();
        let lock = lock();
        lock.write(&path).await.unwrap();
        assert_eq!(Lock::read(&path).await.unwrap(), Some(lock.clone()));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left behind");
        let nowhere = lock.write(dir.path().join("no/where")).await;
        assert!(matches!(nowhere, Err(LockError::Io { .. })), "{nowhere:?}");
        let folder = Lock::read(dir.path()).await;
        assert!(matches!(folder, Err(LockError::Io { .. })), "{folder:?}");
    });
}
