/// The longest path that a ustar header has room for, in bytes.
pub(super) const USTAR_PATH: usize = 255;

/// How large an archive may be, packed by us or unpacked of others. What is counted is what is in it, not what it takes
/// when compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArchiveLimits {
    /// Files and folders.
    pub entries: usize,
    /// Bytes of one file.
    pub file_bytes: u64,
    /// Bytes of all files.
    pub total_bytes: u64,
    /// Bytes of a path; never more than the 255 of the format.
    pub path_bytes: usize,
}

impl Default for ArchiveLimits {
    /// Room for the largest source packages that registries take, and within what a laptop's disk does not notice.
    fn default() -> Self {
        Self { entries: 20_000, file_bytes: 128 << 20, total_bytes: 512 << 20, path_bytes: USTAR_PATH }
    }
}

impl ArchiveLimits {
    pub(super) fn longest_path(&self) -> usize {
        self.path_bytes.min(USTAR_PATH)
    }

    /// What an archive can take that keeps to the limits, even if nothing in it can be compressed: gzip adds less than a
    /// thousandth then.
    pub(crate) fn archive_bytes(&self) -> u64 {
        let tar = self.tar_bytes();
        tar.saturating_add(tar / 1000).saturating_add(1024)
    }

    /// What the whole tar can take if it keeps to the limits: a header and the padding for each entry, and the blocks of
    /// zeros at its end, which some writers round up to 10 KiB.
    pub(super) fn tar_bytes(&self) -> u64 {
        let entries = u64::try_from(self.entries).unwrap_or(u64::MAX);
        self.total_bytes.saturating_add(entries.saturating_mul(1024)).saturating_add(20 * 512)
    }
}
