/// Converts typed text into an FTS5 expression that requires all words, the last one as a prefix. Empty for empty text,
/// `None` for text without a letter or digit.
///
/// Every word is quoted, and a quote inside it is doubled, so that typed text is never FTS5 syntax. A word with
/// punctuation (`left-pad`) matches where its parts follow each other.
pub(super) fn expression(text: &str) -> Option<String> {
    if text.trim().is_empty() {
        return Some(String::new());
    }
    let words = text.split_whitespace().filter(|word| word.contains(char::is_alphanumeric));
    let quoted: Vec<_> = words.map(|word| format!("\"{}\"", word.replace('"', "\"\""))).collect();
    // After a space the last word counts as complete.
    let end = if text.ends_with(char::is_whitespace) { "" } else { "*" };
    if quoted.is_empty() { None } else { Some(quoted.join(" AND ") + end) }
}
