/// Maximum length of a path in an archive, in bytes. A ustar header has room for one more.
pub(super) const USTAR_PATH: usize = 255;

/// Limits of an archive that is packed or unpacked. They apply to the content before compression.
///
/// # Example
///
/// ```
/// use kadence_registry::archive::ArchiveLimits;
///
/// let limits = ArchiveLimits::default().entries(100).total_bytes(1 << 20);
/// assert_eq!(limits.entries, 100);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ArchiveLimits {
    /// Maximum number of files and folders. When packing, excluded ones count, too, but not the content of an excluded
    /// folder. When unpacking, parent folders without an entry of their own count, too. Default: 20,000.
    pub entries: usize,
    /// Maximum size of a file, in bytes. Default: 128 MiB.
    pub file_bytes: u64,
    /// Maximum total size of all files, in bytes. Default: 512 MiB.
    pub total_bytes: u64,
    /// Maximum length of a path, in bytes. Values above 255 count as 255. Default: 255.
    pub path_len: usize,
}

impl Default for ArchiveLimits {
    /// Returns the documented defaults. Few source packages exceed them, and a laptop's disk easily holds as much.
    fn default() -> Self {
        Self { entries: 20_000, file_bytes: 128 << 20, total_bytes: 512 << 20, path_len: USTAR_PATH }
    }
}

impl ArchiveLimits {
    /// Sets [`entries`](field@Self::entries).
    #[must_use]
    pub fn entries(mut self, entries: usize) -> Self {
        self.entries = entries;
        self
    }

    /// Sets [`file_bytes`](field@Self::file_bytes).
    #[must_use]
    pub fn file_bytes(mut self, file_bytes: u64) -> Self {
        self.file_bytes = file_bytes;
        self
    }

    /// Sets [`total_bytes`](field@Self::total_bytes).
    #[must_use]
    pub fn total_bytes(mut self, total_bytes: u64) -> Self {
        self.total_bytes = total_bytes;
        self
    }

    /// Sets [`path_len`](field@Self::path_len).
    #[must_use]
    pub fn path_len(mut self, path_len: usize) -> Self {
        self.path_len = path_len;
        self
    }

    pub(super) fn longest_path(&self) -> usize {
        self.path_len.min(USTAR_PATH)
    }

    /// Returns the maximum size of an archive within the limits, in bytes, if nothing in it can be compressed: gzip
    /// then adds less than a thousandth.
    pub(crate) fn archive_bytes(&self) -> u64 {
        let tar = self.tar_bytes();
        tar.saturating_add(tar / 1000).saturating_add(1024)
    }

    /// Returns the maximum size of a tar within the limits, in bytes: a header and padding for each entry, and the zero
    /// blocks at the end, which some writers round up to 10 KiB.
    pub(super) fn tar_bytes(&self) -> u64 {
        let entries = u64::try_from(self.entries).unwrap_or(u64::MAX);
        self.total_bytes.saturating_add(entries.saturating_mul(1024)).saturating_add(20 * 512)
    }
}
