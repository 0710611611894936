//! How much a package may say about itself. Everything that comes from a peer is held to the same limits as what is built
//! here. Lengths are bytes.

/// The longest manifest, in bytes: several times what a long readme and a long list of dependencies take, and little
/// enough that a client can hold one of a hostile peer without noticing.
pub const MAX_MANIFEST_LEN: usize = 256 * 1024;

/// The longest index, in bytes: a thousand versions with about a kilobyte for each, which is 5 to 10 dependencies.
pub const MAX_INDEX_LEN: usize = 1024 * 1024;

/// The most versions of a package: more than any package of the well-known registries is likely to need, at one a week
/// for twenty years.
pub const MAX_VERSIONS: usize = 1000;

/// The most that an archive may declare as its size, in bytes. Whoever fetches or unpacks may set less.
pub const MAX_ARCHIVE_SIZE: u64 = 4 * 1024 * 1024 * 1024;

/// The most that an archive may declare as the size of its files, in bytes: text packs to a tenth of its size or so.
pub(super) const MAX_UNPACKED_SIZE: u64 = 16 * MAX_ARCHIVE_SIZE;

/// The most files that an archive may declare.
pub(super) const MAX_FILES: u64 = 1_000_000;

/// A line of a table.
pub(super) const MAX_TITLE: usize = 128;

/// A paragraph; what is longer belongs into the readme.
pub(super) const MAX_DESCRIPTION: usize = 1024;

/// An SPDX expression of several licences.
pub(super) const MAX_LICENCE: usize = 128;

/// Longer than most, and the rest can be in the readme.
pub(super) const MAX_AUTHORS: usize = 32;

/// A name with an address.
pub(super) const MAX_AUTHOR: usize = 128;

/// Who is in all categories is in none.
pub(super) const MAX_CATEGORIES: usize = 8;

/// As many as can mean something.
pub(super) const MAX_TAGS: usize = 32;

/// A word or two, joined.
pub(super) const MAX_WORD: usize = 48;

/// Homepage, repository, documentation, and some more.
pub(super) const MAX_LINKS: usize = 16;

/// What browsers and servers agree on.
pub(super) const MAX_URL: usize = 2048;

/// Of every 200 readmes about one is longer; half the manifest leaves room for everything else.
pub(crate) const MAX_README: usize = 128 * 1024;

/// Direct dependencies. All of them with their longest names and requirements still fit into a manifest.
pub(super) const MAX_DEPENDENCIES: usize = 256;

/// A version or a requirement as text: semver's own has no limit.
pub(crate) const MAX_VERSION_TEXT: usize = 128;

/// The end of the year 9999 in unix seconds, so that whoever shows a time can.
pub(super) const MAX_TIME: u64 = 253_402_300_799;

/// The longest `ggen.toml`, in bytes: what a manifest without its readme can be.
pub(super) const MAX_SOURCE_LEN: usize = MAX_MANIFEST_LEN;

/// The longest text of a query: a sentence.
pub(super) const MAX_QUERY_TEXT: usize = 256;

/// The most categories and the most tags of a query; each narrows it further.
pub(super) const MAX_FILTERS: usize = 8;

/// How many hits a page has if nothing else is asked for: a screen.
pub(super) const DEFAULT_PAGE: usize = 20;

/// The most hits of a page: an answer of some 100 kB.
pub(super) const MAX_PAGE: usize = 100;

/// How far a query may page: whoever reads further should ask more narrowly, and sorting that much for each page is work.
pub(super) const MAX_OFFSET: usize = 10_000;
