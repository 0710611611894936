//! Checks that no item, field, variable or file has a name that was given up.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, bail};

use crate::files;

/// The list: `old -> new`, and `! old path reason` for an exception.
const LIST: &str = "xtask/old-names.txt";

/// Prints each old name that is found, and fails if there is one.
///
/// # Errors
///
/// If an old name is used without an exception, an exception is not needed, or the list cannot be read.
pub(crate) fn check() -> anyhow::Result<()> {
    let list = List::parse(&files::read(Path::new(LIST))?)?;
    let mut needed = vec![false; list.exceptions.len()];
    let mut found = 0;
    for path in files::with_extension("rs")? {
        let name = path.display().to_string();
        let mut report = |old: &str, line: usize| {
            let exception = list.exceptions.iter().position(|(of, folder)| of == old && name.starts_with(folder));
            if let Some(needed) = exception.and_then(|at| needed.get_mut(at)) {
                *needed = true;
            } else {
                let new = list.names.get(old).map_or("", String::as_str);
                println!("{name}:{line}: `{old}` is now {new}");
                found += 1;
            }
        };
        let file_name = path.file_name().unwrap_or_default().to_string_lossy();
        if list.names.contains_key(&*file_name) {
            report(&file_name, 1);
        }
        for (line, identifier) in identifiers(&files::read(&path)?) {
            if list.names.contains_key(&identifier) {
                report(&identifier, line);
            }
        }
    }
    let unneeded = list.exceptions.iter().zip(needed).filter(|(_, needed)| !needed);
    for ((old, folder), _) in unneeded {
        println!("{LIST}: the exception of `{old}` in {folder} is not needed");
        found += 1;
    }
    println!("{} old names, {} exceptions, {found} findings", list.names.len(), list.exceptions.len());
    if found > 0 {
        bail!("{found} old names");
    }
    Ok(())
}

#[derive(Debug, Default)]
struct List {
    names: BTreeMap<String, String>,
    /// Old name and the path, or beginning of paths, where it may stand.
    exceptions: Vec<(String, String)>,
}

impl List {
    fn parse(text: &str) -> anyhow::Result<Self> {
        let mut list = Self::default();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if let Some(exception) = line.strip_prefix("! ") {
                let mut words = exception.splitn(3, ' ');
                let (old, path, reason) = (words.next(), words.next(), words.next());
                let (Some(old), Some(path), Some(_reason)) = (old, path, reason) else {
                    bail!("an exception needs a name, a path and a reason: {line}");
                };
                list.exceptions.push((old.to_owned(), path.to_owned()));
            } else {
                let (old, new) = line.split_once(" -> ").with_context(|| format!("not `old -> new`: {line}"))?;
                list.names.insert(old.to_owned(), new.to_owned());
            }
        }
        Ok(list)
    }
}

/// Returns the identifiers of Rust source with their lines, without those in comments and string literals.
fn identifiers(source: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut line = 1;
    let mut chars = source.chars().peekable();
    let mut word = String::new();
    while let Some(c) = chars.next() {
        if c.is_alphanumeric() || c == '_' {
            word.push(c);
            continue;
        }
        let raw = matches!(word.as_str(), "r" | "br") && matches!(c, '"' | '#');
        if !word.is_empty() && !raw {
            found.push((line, std::mem::take(&mut word)));
        }
        word.clear();
        match c {
            '\n' => line += 1,
            '/' if chars.peek() == Some(&'/') => {
                for c in chars.by_ref() {
                    if c == '\n' {
                        line += 1;
                        break;
                    }
                }
            }
            '"' | '#' if raw => line += skip_raw_string(c, &mut chars),
            '"' => {
                while let Some(c) = chars.next() {
                    match c {
                        '\\' => line += usize::from(chars.next() == Some('\n')),
                        '\n' => line += 1,
                        '"' => break,
                        _ => {}
                    }
                }
            }
            // A quote or a backslash as a character literal; a lifetime has neither.
            '\'' if matches!(chars.peek(), Some('"' | '\\')) => {
                if chars.next() == Some('\\') {
                    chars.next();
                }
                chars.next_if_eq(&'\'');
            }
            _ => {}
        }
    }
    if !word.is_empty() {
        found.push((line, word));
    }
    found
}

/// Skips a raw string after its `r`, and returns the number of lines in it.
fn skip_raw_string(first: char, chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> usize {
    let (mut hashes, mut lines) = (0, 0);
    if first == '#' {
        hashes = 1;
        while chars.next_if_eq(&'#').is_some() {
            hashes += 1;
        }
        if chars.next_if_eq(&'"').is_none() {
            // `r#type` is an identifier.
            return 0;
        }
    }
    while let Some(c) = chars.next() {
        lines += usize::from(c == '\n');
        if c == '"' {
            let closing = std::iter::from_fn(|| chars.next_if_eq(&'#')).take(hashes).count();
            if closing == hashes {
                break;
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(source: &str) -> Vec<(usize, String)> {
        identifiers(source)
    }

    #[test]
    fn comments_and_strings_have_no_identifiers() {
        let source = "let a = \"Old \\\" x\"; // Old\n/// Old\nlet c = '\"'; r#\"Old \" \n\"# b";
        let names: Vec<String> = words(source).into_iter().map(|(_, name)| name).collect();
        assert_eq!(names, ["let", "a", "let", "c", "b"].map(str::to_owned));
    }

    #[test]
    fn an_identifier_has_its_line() {
        assert!(words("fn one() {}\n\nfn two() {}\n").contains(&(3, "two".to_owned())));
    }

    #[test]
    fn an_exception_needs_a_reason() {
        assert!(List::parse("a -> b\n! a core/ because\n").is_ok());
        assert!(List::parse("! a core/\n").is_err());
        assert!(List::parse("a b\n").is_err());
    }
}
