//! Tables, sizes and dates for people.

/// Returns rows as lines, with each column as wide as its widest cell. Lines do not end in spaces.
pub(super) fn aligned<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = head.map(|cell| cell.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: [&str; N]| {
        let mut line = String::new();
        for (cell, width) in cells.into_iter().zip(widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width - cell.chars().count() + 2));
        }
        line.trim_end().to_owned()
    };
    let lines: Vec<String> =
        std::iter::once(line(head)).chain(rows.iter().map(|row| line(row.each_ref().map(String::as_str)))).collect();
    lines.join("\n")
}

/// Returns a size such as `1.50 KiB`.
pub(super) fn size(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

/// Returns the date of a time in Unix seconds, in the format of RFC 3339, or `-` if it is after the year 9999.
pub(super) fn date(seconds: u64) -> String {
    let time = std::time::UNIX_EPOCH.checked_add(std::time::Duration::from_secs(seconds));
    // RFC 3339 has years of four digits.
    let text =
        time.filter(|_| seconds < 253_402_300_800).map(|time| humantime::format_rfc3339_seconds(time).to_string());
    text.and_then(|text| text.split('T').next().map(str::to_owned)).unwrap_or_else(|| "-".to_owned())
}

/// Returns the first line of a text, shortened to `max` characters.
pub(super) fn short(text: &str, max: usize) -> String {
    let line = text.lines().next().unwrap_or_default();
    if line.chars().count() <= max {
        return line.to_owned();
    }
    let kept: String = line.chars().take(max.saturating_sub(1)).collect();
    kept.trim_end().to_owned() + "…"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["a".to_owned(), "1".to_owned()], ["längst".to_owned(), String::new()]];
        assert_eq!(aligned(["name", "n"], &rows), "name    n\na       1\nlängst");
        assert_eq!(aligned(["name"], &[]), "name");
    }

    #[test]
    fn sizes_dates_and_lines_are_short() {
        assert_eq!(size(1536), "1.50 KiB");
        assert_eq!(date(86_400), "1970-01-02");
        assert_eq!(date(u64::MAX), "-");
        assert_eq!(short("one\ntwo", 10), "one");
        assert_eq!(short("a long line", 7), "a long…");
    }
}
