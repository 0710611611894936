//! Limits of documents and queries. Documents from peers are held to the same limits as documents that are built here.
//! Lengths are in bytes.

/// Maximum length of a manifest, in bytes: 256 KiB. The text of the readme is limited to half of that. The maximum is
/// low enough that a manifest from a hostile peer costs a client little memory.
pub const MAX_MANIFEST_LEN: usize = 256 * 1024;

/// Maximum length of an index, in bytes: 1 MiB. With the maximum of 1,000 versions that leaves about 1 kB for each,
/// which is 5 to 10 dependencies.
pub const MAX_INDEX_LEN: usize = 1024 * 1024;

/// Maximum number of versions of a package, yanked ones included: enough for one a week for about twenty years.
pub const MAX_VERSIONS: usize = 1000;

/// Maximum size of an archive, in bytes, after compression: 4 GiB. Packing and unpacking have lower limits by default:
/// see [`ArchiveLimits`](crate::archive::ArchiveLimits).
pub const MAX_ARCHIVE_SIZE: u64 = 4 * 1024 * 1024 * 1024;

/// Maximum total size of the files in an archive, in bytes. Text compresses to about a tenth of its size.
pub(super) const MAX_UNPACKED_SIZE: u64 = 16 * MAX_ARCHIVE_SIZE;

/// Maximum number of files in an archive.
pub(super) const MAX_FILES: u64 = 1_000_000;

/// Title: a line in a table.
pub(super) const MAX_TITLE_LEN: usize = 128;

/// Description: a paragraph. Longer texts belong in the readme.
pub(super) const MAX_DESCRIPTION_LEN: usize = 1024;

/// Licence: an SPDX expression of several licences.
pub(super) const MAX_LICENCE_LEN: usize = 128;

/// Number of authors. Longer lists belong in the readme.
pub(super) const MAX_AUTHORS: usize = 32;

/// Author: a name with an address.
pub(super) const MAX_AUTHOR_LEN: usize = 128;

/// Number of categories. A package in every category is not categorised at all.
pub(super) const MAX_CATEGORIES: usize = 8;

/// Number of tags.
pub(super) const MAX_TAGS: usize = 32;

/// Category, tag or name of a link: one or two joined words.
pub(super) const MAX_WORD_LEN: usize = 48;

/// Number of links: homepage, repository, documentation and a few more.
pub(super) const MAX_LINKS: usize = 16;

/// URL: the length that browsers and servers support.
pub(super) const MAX_URL_LEN: usize = 2048;

/// Readme. About one in 200 readmes is longer; the other half of the manifest is for everything else.
pub(crate) const MAX_README_LEN: usize = 128 * 1024;

/// Number of direct dependencies. As many with the longest names and requirements still fit into a manifest.
pub(super) const MAX_DEPENDENCIES: usize = 256;

/// Text of a version or a requirement. The semver crate has no limit of its own.
pub(crate) const MAX_VERSION_LEN: usize = 128;

/// Latest time, in Unix seconds: the end of the year 9999. Date libraries can format any time up to it.
pub(super) const MAX_TIME: u64 = 253_402_300_799;

/// Maximum length of a manifest file: that of a manifest.
pub(super) const MAX_MANIFEST_FILE_LEN: usize = MAX_MANIFEST_LEN;

/// Text of a query: a sentence.
pub(super) const MAX_QUERY_LEN: usize = 256;

/// Number of categories and number of tags in a query.
pub(super) const MAX_FILTERS: usize = 8;

/// Default number of hits in a page: a screen.
pub(super) const DEFAULT_PAGE_SIZE: usize = 20;

/// Maximum number of hits in a page: an answer of about 100 kB.
pub(super) const MAX_PAGE_SIZE: usize = 100;

/// Maximum offset of a page. The index sorts all hits up to the offset for each page; a caller that needs more should
/// narrow the query.
pub(super) const MAX_OFFSET: usize = 10_000;
