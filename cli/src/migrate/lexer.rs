//! From the text of a Corefile to its words, as CoreDNS's own reader splits it (`caddyfile/lexer.go` of coredns/caddy).

use std::collections::BTreeMap;

use super::finding::Place;

/// A text with the place of its first line.
#[derive(Clone, Debug)]
pub(super) struct Source {
    /// The text.
    pub(super) text: String,
    /// Where its first line is.
    pub(super) start: Place,
}

/// One word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) text: String,
    pub(super) place: Place,
    /// It is the first word of its line.
    pub(super) first: bool,
    /// The variable in it whose value is not known.
    pub(super) unknown: Option<String>,
}

/// All words of a text, with the variables that `env` knows in their places.
pub(super) fn tokens(source: &Source, env: &BTreeMap<String, String>) -> Vec<Token> {
    let mut lexer = Lexer { rest: source.text.trim_start_matches('\u{feff}').chars(), line: 0 };
    let mut tokens = Vec::new();
    let mut ended = None;
    while let Some((line, raw)) = lexer.word() {
        let first = ended.is_none_or(|ended| line > ended);
        ended = Some(line + raw.matches('\n').count());
        let (text, unknown) = filled(&raw, env);
        tokens.push(Token { text, place: source.start.below(line), first, unknown });
    }
    tokens
}

struct Lexer<'a> {
    rest: std::str::Chars<'a>,
    line: usize,
}

impl Lexer<'_> {
    /// The next word and its line. Words end at white space; `#` begins a comment, also within a word; after a comment
    /// that is glued to a word, the next white space ends both, as in CoreDNS.
    fn word(&mut self) -> Option<(usize, String)> {
        let mut word = String::new();
        let mut comment = false;
        let mut began = self.line;
        while let Some(letter) = self.rest.next() {
            match letter {
                '\r' => {}
                _ if letter.is_whitespace() => {
                    if letter == '\n' {
                        self.line += 1;
                        comment = false;
                    }
                    if !word.is_empty() {
                        return Some((began, word));
                    }
                }
                '#' => comment = true,
                _ if comment => {}
                '"' if word.is_empty() => return self.quoted(),
                _ => {
                    if word.is_empty() {
                        began = self.line;
                    }
                    word.push(letter);
                }
            }
        }
        (!word.is_empty()).then_some((began, word))
    }

    /// What is within quotes; `\"` is a quote, any other backslash is itself.
    fn quoted(&mut self) -> Option<(usize, String)> {
        let began = self.line;
        let mut word = String::new();
        while let Some(letter) = self.rest.next() {
            match letter {
                '"' => return Some((began, word)),
                '\\' => match self.rest.next() {
                    Some('"') => word.push('"'),
                    Some(other) => {
                        self.line += usize::from(other == '\n');
                        word.extend(['\\', other]);
                    }
                    None => break,
                },
                _ => {
                    self.line += usize::from(letter == '\n');
                    word.push(letter);
                }
            }
        }
        (!word.is_empty()).then_some((began, word))
    }
}

/// The text with `{$NAME}` and `{%NAME%}` replaced, and the first name that is not known.
fn filled(text: &str, env: &BTreeMap<String, String>) -> (String, Option<String>) {
    let mut unknown = None;
    let mut filled = text.to_owned();
    for (open, close) in [("{%", "%}"), ("{$", "}")] {
        let mut done = String::new();
        let mut rest = filled.as_str();
        while let Some((before, behind)) = rest.split_once(open) {
            let Some((name, after)) = behind.split_once(close).filter(|(name, _)| !name.is_empty()) else {
                break;
            };
            done.push_str(before);
            if let Some(value) = env.get(name) {
                done.push_str(value);
            } else {
                done.extend([open, name, close]);
                unknown = unknown.or_else(|| Some(name.to_owned()));
            }
            rest = after;
        }
        done.push_str(rest);
        filled = done;
    }
    (filled, unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The line of a word, the word, and whether it is the first of its line.
    type Expected = (usize, &'static str, bool);

    fn words(text: &str) -> Vec<(usize, String, bool)> {
        let source = Source { text: text.to_owned(), start: Place::first() };
        let words = tokens(&source, &BTreeMap::new()).into_iter();
        words.map(|token| (token.place.line, token.text, token.first)).collect()
    }

    #[test]
    fn words_are_split_as_coredns_splits_them() {
        let cases: [(&str, &[Expected]); 10] = [
            ("", &[]),
            ("a b\n\tc", &[(1, "a", true), (1, "b", false), (2, "c", true)]),
            ("\u{feff}a\r\nb", &[(1, "a", true), (2, "b", true)]),
            ("# all of it\na # rest", &[(2, "a", true)]),
            ("a#b c\nd", &[(1, "a", true), (1, "c", false), (2, "d", true)]),
            (r#""a \"b\" \d" e"#, &[(1, r#"a "b" \d"#, true), (1, "e", false)]),
            ("a \"b\nc\" d\ne", &[(1, "a", true), (1, "b\nc", false), (2, "d", false), (3, "e", true)]),
            (r#"a"b c""#, &[(1, r#"a"b"#, true), (1, r#"c""#, false)]),
            (r#""" a"#, &[(1, "", true), (1, "a", false)]),
            ("\"open", &[(1, "open", true)]),
        ];
        for (text, expected) in cases {
            let expected: Vec<_> =
                expected.iter().map(|(line, word, first)| (*line, (*word).to_owned(), *first)).collect();
            assert_eq!(words(text), expected, "{text:?}");
        }
    }

    #[test]
    fn variables_are_filled_in_or_named() {
        let env = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
        let cases = [
            ("{$A}.x", "1.x", None),
            ("{%A%}{$A}", "11", None),
            ("{$B}.x{$C}", "{$B}.x{$C}", Some("B")),
            ("{$} {$A", "{$} {$A", None),
            ("{1}.x", "{1}.x", None),
        ];
        for (text, expected, unknown) in cases {
            assert_eq!(filled(text, &env), (expected.to_owned(), unknown.map(str::to_owned)), "{text}");
        }
    }
}
