//! `kadence pkg`, with several homes and a process for each command.

#![expect(clippy::unwrap_used, reason = "a failure in a helper fails the test")]

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::process::{Ended, Running, run};

const LOOPBACK: [&str; 2] = ["--listen", "/ip4/127.0.0.1/tcp/0"];

/// Homes and packages of one test.
struct Fixture {
    folder: tempfile::TempDir,
    /// Address of the node through which all others join.
    hub: String,
    _hub: Running,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().join("hub");
        let mut hub = Running::start(["pkg", "serve", "--home", home.to_str().unwrap()].into_iter().chain(LOOPBACK));
        let address = hub.line();
        assert!(address.contains("/p2p/"), "{address}");
        Self { folder, hub: address, _hub: hub }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Returns the arguments of a command with the home `user`.
    fn args(&self, user: &str, command: &[&str]) -> Vec<OsString> {
        let mut args: Vec<OsString> = vec!["pkg".into()];
        args.extend(command.iter().map(Into::into));
        args.extend(["--home".into(), self.path(user).into(), "--peer".into(), (&self.hub).into()]);
        // With fewer than four nodes, nothing is certainly absent otherwise, and a first version is not published.
        args.extend(["--network-size".into(), "2".into()]);
        args
    }

    fn run(&self, user: &str, command: &[&str]) -> Ended {
        run(self.args(user, command))
    }

    fn start(&self, user: &str, command: &[&str]) -> Running {
        Running::start(self.args(user, command).into_iter().chain(LOOPBACK.map(Into::into)))
    }

    fn package(&self, name: &str, version: &str, dependencies: &str) -> String {
        let folder = self.path(&format!("{name}-{version}"));
        fs::create_dir_all(folder.join("src")).unwrap();
        let toml = format!(
            "name = \"{name}\"\nversion = \"{version}\"\ntitle = \"The {name} of the test\"\ntags = [\"tested\"]\n\n\
             [dependencies]\n{dependencies}\n"
        );
        fs::write(folder.join("ggen.toml"), toml).unwrap();
        fs::write(folder.join("README.md"), format!("# {name}\n\nAll about it.\n")).unwrap();
        // Large enough to be transferred in several pieces.
        let bytes: Vec<u8> = (0..300_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        fs::write(folder.join("src").join("data.bin"), bytes).unwrap();
        folder.to_str().unwrap().to_owned()
    }
}

/// Returns every file under a folder, with its bytes.
fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push((path.strip_prefix(folder).unwrap().to_owned(), fs::read(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

fn json(line: &str) -> Value {
    serde_json::from_str(line).unwrap()
}

#[cfg(unix)]
#[test]
fn a_published_package_is_found_and_installed_until_it_is_yanked() {
    let fixture = Fixture::new();
    let lib = fixture.package("lib", "1.2.0", "");
    let app = fixture.package("app", "0.3.0", "lib = \"^1\"");

    // The next process with the same home serves this package.
    let published = fixture.run("publisher", &["publish", &lib]).expect_code(0);
    let id = published.text().lines().next().unwrap().strip_prefix("published ").unwrap().to_owned();
    let id = id.strip_suffix(" 1.2.0").unwrap();
    assert!(published.text().contains("head       confirmed by 1 of 1 peers"), "{}", published.text());
    assert!(published.stderr.contains("pkg serve"), "{}", published.stderr);
    let mut publisher = fixture.start("publisher", &["publish", &app, "--serve", "--json"]);
    let receipt = json(&publisher.line());
    assert_eq!(receipt["ok"], true);
    assert_eq!(receipt["receipt"]["version"], "0.3.0");
    assert!(json(&publisher.line())["address"].as_str().unwrap().contains("/p2p/"));

    let found = fixture.run("reader", &["search", "--tag", "tested", "the", "--json"]);
    let found = found.expect_code(0).json();
    let names: Vec<&str> = found["hits"].as_array().unwrap().iter().filter_map(|hit| hit["package"].as_str()).collect();
    assert!(names.contains(&id) && names.len() == 2, "{names:?}");
    let table = fixture.run("reader", &["search", "the", "test"]).expect_code(0);
    assert!(table.text().starts_with("PACKAGE ") && table.text().contains("The lib of the test"), "{}", table.text());
    fixture.run("reader", &["search", "nothing", "such"]).expect_code(3);

    let info = fixture.run("reader", &["info", "app", "--readme"]).expect_code(0);
    assert!(info.text().contains(&format!("{:<12} {id} ^1", "needs")), "{}", info.text());
    assert!(info.text().ends_with("# app\n\nAll about it.\n"), "{}", info.text());
    fixture.run("reader", &["info", &format!("{id}@9.9.9")]).expect_code(3);
    let versions = fixture.run("reader", &["versions", id, "--json"]).expect_code(0).json();
    assert_eq!(versions["versions"][0]["version"], "1.2.0");
    assert_eq!(versions["versions"][0]["yanked"], false);

    // The package and its dependency are installed byte for byte.
    let target = fixture.path("installed");
    let dir = target.to_str().unwrap();
    let installed = fixture.run("reader", &["install", "app@^0.3", "--dir", dir, "--json"]).expect_code(0).json();
    let packages = installed["packages"].as_array().unwrap();
    assert_eq!(packages.len(), 2);
    for (package, source) in packages.iter().zip([&app, &lib]) {
        assert_eq!(package["was_there"], false);
        assert_eq!(files(Path::new(package["path"].as_str().unwrap())), files(Path::new(source)));
    }
    let lock = fs::read_to_string(target.join("ggen.lock")).unwrap();
    let again = fixture.run("reader", &["install", "--dir", dir]).expect_code(0);
    assert!(again.text().ends_with("0 of them new\n"), "{}", again.text());

    // Archives fetched before are installed again without a network, also into another folder.
    let elsewhere = fixture.path("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::write(elsewhere.join("ggen.lock"), &lock).unwrap();
    let reader = fixture.path("reader");
    let offline = ["pkg", "install", "--offline", "--dir"].map(OsString::from);
    let with_home = |args: &[OsString], dir: &Path| {
        run(args.iter().cloned().chain([dir.into(), "--home".into(), reader.clone().into()]))
    };
    with_home(&offline, &elsewhere).expect_code(0);
    assert_eq!(files(&elsewhere.join(id).join("1.2.0")), files(Path::new(&lib)));

    // A yanked version is no longer found, but still installed from a lock file.
    publisher.terminate();
    publisher.end().expect_code(0);
    let mut publisher = fixture.start("publisher", &["yank", "app@0.3.0", "--serve"]);
    assert!(publisher.line().starts_with("yanked "));
    while !publisher.line().contains("/p2p/") {}
    let app_id = id.replace("/lib", "/app");
    let versions = fixture.run("other", &["versions", &app_id, "--json"]).expect_code(0).json();
    assert_eq!(versions["versions"][0]["yanked"], true);
    fixture.run("other", &["info", &app_id]).expect_code(3);
    let other = fixture.path("other-installed");
    let dir = other.to_str().unwrap();
    fixture.run("other", &["install", &app_id, "--dir", dir]).expect_code(1);
    fs::create_dir_all(&other).unwrap();
    fs::write(other.join("ggen.lock"), &lock).unwrap();
    fixture.run("other", &["install", "app", "--locked", "--dir", dir]).expect_code(0);
    assert_eq!(files(&other.join(&app_id).join("0.3.0")), files(Path::new(&app)));
    fixture.run("other", &["install", "app@^1", "--locked", "--dir", dir]).expect_code(3);

    // An unyanked version is found again.
    publisher.terminate();
    publisher.end().expect_code(0);
    let mut publisher = fixture.start("publisher", &["unyank", "app@0.3.0", "--serve"]);
    assert!(publisher.line().starts_with("unyanked "));
    while !publisher.line().contains("/p2p/") {}
    fixture.run("other", &["info", &app_id]).expect_code(0);
}

#[cfg(unix)]
#[test]
fn a_package_outlives_its_publisher_where_another_node_serves_it() {
    let fixture = Fixture::new();
    let lib = fixture.package("lib", "1.2.0", "");
    let mut publisher = fixture.start("publisher", &["publish", &lib, "--serve", "--json"]);
    let receipt = json(&publisher.line());
    let id = receipt["receipt"]["package"].as_str().unwrap();
    publisher.line();
    let dir = fixture.path("installed");
    fixture.run("mirror", &["install", id, "--dir", dir.to_str().unwrap()]).expect_code(0);
    publisher.terminate();
    publisher.end().expect_code(0);
    let mut mirror = fixture.start("mirror", &["serve"]);
    assert!(mirror.line().contains("/p2p/"));
    let dir = fixture.path("late");
    fixture.run("late", &["install", id, "--dir", dir.to_str().unwrap()]).expect_code(0);
    assert_eq!(files(&dir.join(id).join("1.2.0")), files(Path::new(&lib)));
}

#[test]
fn secrets_and_a_home_in_a_package_folder_are_not_published() {
    let fixture = Fixture::new();
    let project = PathBuf::from(fixture.package("proj", "1.0.0", ""));
    fs::create_dir_all(project.join(".git/hooks")).unwrap();
    for (path, text) in [(".git/config", "[core]"), (".env", "SECRET=1"), (".env.example", "SECRET="), ("a.Pem", "x")] {
        fs::write(project.join(path), text).unwrap();
    }
    let name = project.file_name().unwrap().to_str().unwrap();
    let home = format!("{name}/.kadence");
    // A copy of the key under another name: nothing is published, and the error names the file.
    let dir = project.to_str().unwrap();
    let nobody = "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWMzV56vQ2jjX2SLkXUMi4oQ4Adk4UMHVmY2qR8NsbpnNR";
    let path = fixture.path(&home);
    run(["pkg", "publish", dir, "--home", path.to_str().unwrap(), "--peer", nobody, "--timeout", "1s"]).expect_code(5);
    let copy = project.join("src").join("notes.txt");
    fs::copy(path.join("node.key"), &copy).unwrap();
    let ended = fixture.run(&home, &["publish", dir]).expect_code(1);
    let reason = format!("{} contains the private key in use: move it out", copy.display());
    assert!(ended.stderr.contains(&reason), "{}", ended.stderr);
    fs::remove_file(copy).unwrap();

    let mut publisher = fixture.start(&home, &["publish", dir, "--serve"]);
    let mut lines = vec![publisher.line()];
    while !lines.last().unwrap().contains("/p2p/") {
        lines.push(publisher.line());
    }
    let left_out: Vec<&str> = lines.iter().filter_map(|line| line.strip_prefix("left out ")).collect();
    let expected = [".env: environment variables", ".git: version control"];
    let others = [".kadence: files of the publisher's own node", "a.Pem: keys or passwords"];
    assert_eq!(left_out, [expected, others].concat());

    let target = fixture.path("installed");
    fixture.run("reader", &["install", "proj", "--dir", target.to_str().unwrap()]).expect_code(0);
    let installed: Vec<PathBuf> = files(&target).into_iter().map(|(path, _)| path).collect();
    let is_installed = |end: &str| installed.iter().any(|path| path.ends_with(end));
    assert!(is_installed("src/data.bin") && is_installed(".env.example"), "{installed:?}");
    for end in ["node.key", ".env", ".git/config", "a.Pem", "heads.db"] {
        assert!(!is_installed(end), "{end} {installed:?}");
    }
}

#[test]
fn a_home_is_not_published_as_a_package() {
    let fixture = Fixture::new();
    let project = fixture.package("proj", "1.0.0", "");
    let name = Path::new(&project).file_name().unwrap().to_str().unwrap();
    let ended = fixture.run(name, &["publish", &project]).expect_code(1);
    assert!(ended.stderr.contains("choose another home"), "{}", ended.stderr);
}

#[test]
fn a_home_in_use_is_an_error_that_names_it() {
    let fixture = Fixture::new();
    let ended = fixture.run("hub", &["search", "anything"]).expect_code(1);
    let home = fixture.path("hub");
    let start = format!("error: cannot use the home {}: ", home.display());
    assert!(ended.stderr.starts_with(&start) && ended.stderr.contains("in use"), "{}", ended.stderr);
    assert_eq!(ended.stderr.lines().count(), 1);
}

#[test]
fn init_writes_a_manifest_and_never_overwrites_one() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("My Package");
    let dir = dir.to_str().unwrap();
    let made = run(["pkg", "init", dir, "--json"]).expect_code(0).json();
    assert_eq!(made["name"], "my-package");
    let again = run(["pkg", "init", dir]).expect_code(1);
    assert!(again.stderr.contains("already exists"), "{}", again.stderr);
}

#[test]
fn an_invalid_package_is_rejected_before_the_network_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let [home, dir] = ["home", "package"].map(|name| folder.path().join(name));
    fs::create_dir(&dir).unwrap();
    let [home, dir] = [home.to_str().unwrap(), dir.to_str().unwrap()];
    let nobody = "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWMzV56vQ2jjX2SLkXUMi4oQ4Adk4UMHVmY2qR8NsbpnNR";
    let publish = || run(["pkg", "publish", dir, "--home", home, "--peer", nobody, "--timeout", "1s"]);
    let ended = publish().expect_code(1);
    assert_eq!(ended.stderr, format!("error: {dir} has no ggen.toml\n"));
    fs::write(Path::new(dir).join("ggen.toml"), "name = \"Ünits\"\nversion = \"1\"\n").unwrap();
    let ended = publish().expect_code(1);
    assert!(ended.stderr.starts_with("error: ggen.toml is invalid: "), "{}", ended.stderr);
    fs::write(Path::new(dir).join("ggen.toml"), "name = \"units\"\nversion = \"1.0.0\"\n").unwrap();
    publish().expect_code(5);
    let target = Path::new(home).join("target");
    let ended = run(["pkg", "install", "--offline", "--home", home, "--dir", target.to_str().unwrap()]).expect_code(3);
    assert!(ended.stderr.contains("ggen.lock"), "{}", ended.stderr);
}

#[test]
fn completions_name_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let script = run(["completions", shell]).expect_code(0);
        assert!(script.text().contains("publish") && script.text().contains("peer"), "{shell}");
    }
}
