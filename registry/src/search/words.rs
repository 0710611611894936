/// What somebody typed as an expression of FTS5: all of the words, the last as the beginning of one. Empty if nothing was
/// typed, and `None` if there is no word in it.
///
/// Each word is a string in quotes, in which nothing has a meaning but the quote itself, which is doubled: what is typed is
/// never syntax. A word with signs in it (`left-pad`) is found where its parts follow each other.
pub(super) fn expression(text: &str) -> Option<String> {
    if text.trim().is_empty() {
        return Some(String::new());
    }
    let words = text.split_whitespace().filter(|word| word.contains(char::is_alphanumeric));
    let quoted: Vec<_> = words.map(|word| format!("\"{}\"", word.replace('"', "\"\""))).collect();
    // After a space the last word is complete, as far as anybody can tell.
    let end = if text.ends_with(char::is_whitespace) { "" } else { "*" };
    if quoted.is_empty() { None } else { Some(quoted.join(" AND ") + end) }
}
