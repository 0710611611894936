//! Checks comments, error texts and documents against the rules for prose in CONTRIBUTING.md.

use anyhow::bail;

use crate::files;

/// Words that turn a doc comment's first line into a riddle: it names a clause instead of the thing.
const FIRST_WORDS: [&str; 8] = ["What", "How", "Who", "Whose", "Whether", "When", "Where", "Which"];

/// Percentage of doc comments that may begin with one of [`FIRST_WORDS`].
const MAX_PERCENT: usize = 3;

/// Phrases that a reader stumbles over. Each has a plainer word.
const PHRASES: [&str; 12] = [
    "whoever", "so many", "beside", "by lot", "gets on", "get on", "makes do", "make do", "is told", "are told",
    "of these", "ours",
];

/// Prints each finding, and fails above the bounds.
///
/// # Errors
///
/// If too many doc comments begin with a question word, or a phrase occurs at all.
pub(crate) fn check() -> anyhow::Result<()> {
    let (mut docs, mut questions, mut phrases) = (0, 0, 0);
    for path in files::with_extension("rs")? {
        if path.starts_with("xtask/src/prose.rs") {
            continue;
        }
        let mut in_docs = false;
        for (at, line) in files::read(&path)?.lines().enumerate() {
            let doc = doc_comment(line);
            if let Some(text) = doc
                && !in_docs
            {
                docs += 1;
                if FIRST_WORDS.contains(&first_word(text)) {
                    questions += 1;
                    println!("{}:{}: {text}", path.display(), at + 1);
                }
            }
            in_docs = doc.is_some();
            if let Some(phrase) = read_by_people(line).and_then(phrase) {
                phrases += 1;
                println!("{}:{}: \"{phrase}\": {}", path.display(), at + 1, line.trim());
            }
        }
    }
    for path in files::with_extension("md")? {
        let mut in_code = false;
        for (at, line) in files::read(&path)?.lines().enumerate() {
            if line.trim_start().starts_with("```") {
                in_code = !in_code;
            } else if let Some(word) = placeholder(line) {
                phrases += 1;
                println!("{}:{}: @{word}@ was not filled in", path.display(), at + 1);
            } else if !in_code && let Some(phrase) = phrase(line) {
                phrases += 1;
                println!("{}:{}: \"{phrase}\": {}", path.display(), at + 1, line.trim());
            }
        }
    }
    let percent = 100.0 * f64::from(questions) / f64::from(docs.max(1));
    println!("{questions} of {docs} doc comments begin with a question word ({percent:.1} %); {phrases} phrases");
    if 100 * questions as usize > MAX_PERCENT * docs as usize {
        bail!("more than {MAX_PERCENT} % of doc comments begin with a question word: begin with a verb or a noun");
    }
    if phrases > 0 {
        bail!("{phrases} phrases that have a plainer word");
    }
    Ok(())
}

fn doc_comment(line: &str) -> Option<&str> {
    let line = line.trim_start();
    line.strip_prefix("///").or_else(|| line.strip_prefix("//!")).map(str::trim_start)
}

/// Returns a word such as `@DEMO@` that a later step was to replace.
fn placeholder(line: &str) -> Option<&str> {
    let inside = |word: &&str| word.len() > 2 && word.chars().all(|c| c.is_ascii_uppercase());
    line.split('@').skip(1).step_by(2).find(inside)
}

fn first_word(text: &str) -> &str {
    text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default()
}

/// Returns the part of a line of code that people read: its comment, or an error text.
fn read_by_people(line: &str) -> Option<&str> {
    if line.contains("#[error(") {
        return Some(line);
    }
    // A link is no comment.
    line.match_indices("//").find(|(at, _)| !line[..*at].ends_with(':')).map(|(at, _)| &line[at..])
}

fn phrase(text: &str) -> Option<&'static str> {
    let text = text.to_lowercase();
    PHRASES.into_iter().find(|phrase| {
        text.match_indices(phrase).any(|(at, found)| {
            let letter = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
            !letter(text[..at].chars().next_back()) && !letter(text[at + found.len()..].chars().next())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_words_are_whole_words() {
        assert_eq!(first_word("Whether it is."), "Whether");
        assert_eq!(first_word("However it may be"), "However");
        assert_eq!(first_word("`Wh`"), "");
    }

    #[test]
    fn placeholders_are_found() {
        assert_eq!(placeholder("a @DEMO@ b"), Some("DEMO"));
        assert_eq!(placeholder("NAME@VERSION and a@B"), None);
    }

    #[test]
    fn phrases_are_found_in_comments_and_errors_only() {
        let found = |line| read_by_people(line).and_then(phrase);
        assert_eq!(found("/// Whoever asks"), Some("whoever"));
        assert_eq!(found("let ours = 1; // theirs"), None);
        assert_eq!(found("#[error(\"nobody is told\")]"), Some("is told"));
        assert_eq!(found("// besides, hours"), None);
        assert_eq!(found("let link = \"http://whoever\";"), None);
    }
}
