//! A line in words, and back.
//!
//! Blanks divide words. `"` and `'` hold together what stands between them; `\"`, `\'` and `\ ` stand for the second character.
//! Every other backslash belongs to the notation of keys and values and is left for it, also between quotes.

use super::super::exit::UsageError;
use super::super::notation::Notation;

/// A word and the byte of the line where it starts, its quote included.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Word {
    start: usize,
    text: String,
}

/// A line up to the cursor, for completion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Typed {
    /// Words that are followed by a blank.
    pub done: Vec<String>,
    /// Where the last word starts: the end of the line if a blank comes before it.
    pub start: usize,
    /// The last word so far.
    pub last: String,
}

/// The words of a whole line.
///
/// # Errors
/// If a quote is not closed.
pub fn split(line: &str) -> Result<Vec<String>, UsageError> {
    let Lexed { words, quote, .. } = lex(line);
    match quote {
        None => Ok(words.into_iter().map(|word| word.text).collect()),
        Some(quote) => {
            Err(UsageError(format!("a {quote} is not closed; write \\{quote} for one that is meant as it is")))
        }
    }
}

/// The words of the beginning of a line.
pub fn typed(line: &str) -> Typed {
    let Lexed { mut words, open, .. } = lex(line);
    let last = if open { words.pop() } else { None };
    let last = last.unwrap_or_else(|| Word { start: line.len(), text: String::new() });
    Typed { done: words.into_iter().map(|word| word.text).collect(), start: last.start, last: last.text }
}

/// Bytes as one word of a line: [`split`], then [`Notation::parse`] give them back.
pub fn word(notation: Notation, raw: &[u8]) -> String {
    let text = notation.format(raw);
    // A word that looks like a flag, or like the mark for "no bound".
    let text = match text.strip_prefix('-') {
        Some(rest) => format!("\\x2d{rest}"),
        None => text,
    };
    if !text.is_empty() && !text.contains([' ', '"', '\'']) && !text.starts_with('#') {
        return text;
    }
    format!("\"{}\"", text.replace('"', "\\\""))
}

struct Lexed {
    words: Vec<Word>,
    /// Whether the last word may go on.
    open: bool,
    /// The quote that is not closed.
    quote: Option<char>,
}

fn lex(line: &str) -> Lexed {
    let (mut words, mut quote) = (Vec::new(), None);
    let mut word: Option<Word> = None;
    let mut chars = line.char_indices().peekable();
    while let Some((start, c)) = chars.next() {
        let begun = || Word { start, text: String::new() };
        match (quote, c) {
            (_, '\\') => {
                let text = &mut word.get_or_insert_with(begun).text;
                match chars.next_if(|(_, next)| matches!(next, '"' | '\'' | ' ' | '\\')) {
                    Some((_, '\\')) => text.push_str("\\\\"),
                    Some((_, next)) => text.push(next),
                    None => text.push('\\'),
                }
            }
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => {
                word.get_or_insert_with(begun);
                quote = Some(c);
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_with(begun).text.push(c),
        }
    }
    let open = word.is_some();
    words.extend(word);
    Lexed { words, open, quote }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn blanks_divide_words_and_quotes_hold_them_together() {
        let table: &[(&str, &[&str])] = &[
            ("", &[]),
            ("  \t ", &[]),
            ("get  a\t b ", &["get", "a", "b"]),
            (r#"put "a b" 'c d'"#, &["put", "a b", "c d"]),
            (r#"put "" ''"#, &["put", "", ""]),
            (r#"a"b c"d"#, &["ab cd"]),
            (r#""it's" 'say "x"'"#, &["it's", r#"say "x""#]),
            (r#"\"a\' b\ c"#, &["\"a'", "b c"]),
            (r"\x00\n \\", &[r"\x00\n", r"\\"]),
            (r#""\\" "\"""#, &[r"\\", "\""]),
            (r"ends\", &[r"ends\"]),
            ("grüße 世界", &["grüße", "世界"]),
        ];
        for (line, words) in table {
            assert_eq!(split(line).unwrap(), *words, "{line:?}");
        }
        for open in ["put \"a", "put 'a b", "don't", "\"a\\\""] {
            assert!(split(open).unwrap_err().to_string().contains("is not closed"), "{open:?}");
        }
    }

    #[test]
    fn the_last_word_is_what_the_cursor_stands_in() {
        let table: &[(&str, &[&str], usize, &str)] = &[
            ("", &[], 0, ""),
            ("ge", &[], 0, "ge"),
            ("get ", &["get"], 4, ""),
            ("get a", &["get"], 4, "a"),
            ("get \"a b", &["get"], 4, "a b"),
            ("get \"a ", &["get"], 4, "a "),
            (r"get a\ ", &["get"], 4, "a "),
            (r"get a\\ ", &["get", r"a\\"], 8, ""),
        ];
        for (line, done, start, last) in table {
            let expect = Typed {
                done: done.iter().map(|word| (*word).to_owned()).collect(),
                start: *start,
                last: (*last).to_owned(),
            };
            assert_eq!(typed(line), expect, "{line:?}");
        }
    }

    proptest! {
        #[test]
        fn bytes_written_as_words_come_back_from_a_line(raws: Vec<Vec<u8>>) {
            let line: Vec<String> = raws.iter().map(|raw| word(Notation::Escaped, raw)).collect();
            let words = split(&line.join(" ")).unwrap();
            prop_assert!(words.iter().all(|word| !word.starts_with('-')));
            let back: Vec<_> = words.iter().map(|word| Notation::Escaped.parse(word).unwrap()).collect();
            prop_assert_eq!(back, raws);
        }

        #[test]
        fn arbitrary_text_never_panics(line: String) {
            let _ = split(&line);
            prop_assert!(typed(&line).start <= line.len());
        }
    }
}
