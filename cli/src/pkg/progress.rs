//! Progress of downloads, shown on stderr if that is a terminal.

use std::{
    collections::HashMap,
    io::{self, IsTerminal},
    time::Duration,
};

use futures::{Stream, StreamExt};
use indicatif::{ProgressBar, ProgressStyle};
use kadence_registry::{ContentId, p2p::registry::RegistryEvent};
use tokio::task::JoinHandle;

/// Spinner for work of unknown length.
pub(super) struct Waiting(Option<ProgressBar>);

impl Waiting {
    pub(super) fn start(work: &'static str) -> Self {
        Self(io::stderr().is_terminal().then(|| {
            let spinner = ProgressBar::new_spinner().with_message(work);
            spinner.enable_steady_tick(Duration::from_millis(100));
            spinner
        }))
    }

    pub(super) fn end(self) {
        drop(self);
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(spinner) = &self.0 {
            spinner.finish_and_clear();
        }
    }
}

/// Verified and total bytes of each download.
#[derive(Debug, Default)]
struct Downloads(HashMap<ContentId, (u64, u64)>);

impl Downloads {
    /// Returns the verified and the total bytes of all downloads, if the event changed them.
    fn update(&mut self, event: &RegistryEvent) -> Option<(u64, u64)> {
        match event {
            RegistryEvent::DownloadProgress { content, verified, total } => {
                self.0.insert(*content, (*verified, *total))
            }
            RegistryEvent::Downloaded { content, size } => self.0.insert(*content, (*size, *size)),
            _ => return None,
        };
        Some(self.0.values().fold((0, 0), |(here, all), (verified, total)| (here + verified, all + total)))
    }
}

/// Progress bar of all downloads. Shown until it is dropped.
pub(super) struct Downloading(Option<(ProgressBar, JoinHandle<()>)>);

impl Downloading {
    pub(super) fn start(mut events: impl Stream<Item = RegistryEvent> + Send + Unpin + 'static) -> Self {
        Self(io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(0);
            let template = "fetching [{bar:30}] {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.progress_chars("=> "));
            }
            let shown = bar.clone();
            let task = tokio::spawn(async move {
                let mut downloads = Downloads::default();
                while let Some(event) = events.next().await {
                    if let Some((here, all)) = downloads.update(&event) {
                        shown.set_length(all);
                        shown.set_position(here);
                    }
                }
            });
            (bar, task)
        }))
    }
}

impl Drop for Downloading {
    fn drop(&mut self) {
        if let Some((bar, task)) = &self.0 {
            task.abort();
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_all_downloads_are_added() {
        let mut downloads = Downloads::default();
        let (a, b) = (ContentId::of(b"a"), ContentId::of(b"b"));
        let progress = |content, verified| RegistryEvent::DownloadProgress { content, verified, total: 100 };
        assert_eq!(downloads.update(&progress(a, 10)), Some((10, 100)));
        assert_eq!(downloads.update(&progress(b, 50)), Some((60, 200)));
        assert_eq!(downloads.update(&progress(a, 20)), Some((70, 200)));
        assert_eq!(downloads.update(&RegistryEvent::Downloaded { content: b, size: 100 }), Some((120, 200)));
        assert_eq!(downloads.update(&RegistryEvent::Lagged { skipped: 1 }), None);
    }
}
