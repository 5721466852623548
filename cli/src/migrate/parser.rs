//! From words to server blocks and their plugins, with snippets and imported files in their places.

use std::collections::{BTreeMap, HashMap, VecDeque};

use thiserror::Error;

use super::{
    finding::{Findings, Place},
    lexer::{Source, Token, tokens},
};

/// Imports of one Corefile at most, and words that they bring: snippets may import each other for ever.
const IMPORTS: usize = 1000;
const IMPORTED: usize = 200_000;

/// A text that CoreDNS would not start with either.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{place}: {problem}")]
pub(super) struct SyntaxError {
    place: Place,
    problem: String,
}

/// A server block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// What it serves, as it is written: at least one.
    pub(super) keys: Vec<Key>,
    pub(super) directives: Vec<Directive>,
}

/// A zone, address or port that a block serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) text: String,
    pub(super) place: Place,
    /// The variable in it whose value is not known.
    pub(super) unknown: Option<String>,
}

/// A plugin of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Directive {
    pub(super) name: String,
    pub(super) place: Place,
    /// Words behind the name.
    pub(super) args: Vec<String>,
    /// Lines between its braces.
    pub(super) lines: Vec<Line>,
    /// A variable in it whose value is not known.
    pub(super) unknown: Option<String>,
}

/// A line between the braces of a plugin: never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) place: Place,
    pub(super) words: Vec<String>,
}

/// Server blocks of a Corefile; `files` are those it may import, by their name.
pub(super) fn parse(
    source: &Source,
    files: &BTreeMap<String, Source>,
    env: &BTreeMap<String, String>,
    findings: &mut Findings,
) -> Result<Vec<Block>, SyntaxError> {
    let mut parser = Parser {
        tokens: tokens(source, env).into(),
        at: source.start.clone(),
        snippets: HashMap::new(),
        imports: 0,
        imported: 0,
        files,
        env,
        findings,
    };
    let mut blocks = Vec::new();
    while !parser.tokens.is_empty() {
        blocks.extend(parser.block()?);
    }
    Ok(blocks)
}

struct Parser<'a> {
    tokens: VecDeque<Token>,
    /// Place of the last word.
    at: Place,
    snippets: HashMap<String, Vec<Token>>,
    imports: usize,
    imported: usize,
    files: &'a BTreeMap<String, Source>,
    env: &'a BTreeMap<String, String>,
    findings: &'a mut Findings,
}

impl Parser<'_> {
    fn next(&mut self) -> Option<Token> {
        let token = self.tokens.pop_front()?;
        self.at = token.place.clone();
        Some(token)
    }

    fn next_is(&self, text: &str) -> bool {
        self.tokens.front().is_some_and(|token| token.text == text)
    }

    fn starts_line(&self) -> bool {
        self.tokens.front().is_some_and(|token| token.first)
    }

    fn error<T>(&self, problem: impl Into<String>) -> Result<T, SyntaxError> {
        Err(SyntaxError { place: self.at.clone(), problem: problem.into() })
    }

    /// The next block; none where it was a snippet or imported nothing.
    fn block(&mut self) -> Result<Option<Block>, SyntaxError> {
        let keys = self.keys()?;
        let snippet = match keys.as_slice() {
            [key] => key.text.strip_prefix('(').and_then(|text| text.strip_suffix(')')),
            _ => None,
        };
        if let Some(name) = snippet {
            self.snippet(name)?;
            return Ok(None);
        }
        let braces = self.next_is("{");
        if braces {
            self.next();
        }
        let directives = self.directives(braces)?;
        match (keys.is_empty(), directives.first()) {
            (false, _) => Ok(Some(Block { keys, directives })),
            (true, None) => Ok(None),
            (true, Some(first)) => {
                Err(SyntaxError { place: first.place.clone(), problem: "a block without a zone".to_owned() })
            }
        }
    }

    fn keys(&mut self) -> Result<Vec<Key>, SyntaxError> {
        let mut keys = Vec::new();
        let mut more = false;
        loop {
            if self.next_is("import") && self.starts_line() {
                self.import()?;
                if self.tokens.is_empty() {
                    return Ok(keys);
                }
                continue;
            }
            if self.next_is("{") {
                return if more { self.error("a zone is missing behind the comma") } else { Ok(keys) };
            }
            let Some(token) = self.next() else { return Ok(keys) };
            if token.text == "}" && keys.is_empty() {
                return self.error("} without {");
            }
            let text = token.text.strip_suffix(',');
            more = text.is_some();
            let text = text.unwrap_or(&token.text);
            if !text.is_empty() {
                keys.push(Key { text: text.to_owned(), place: token.place, unknown: token.unknown });
            }
            if self.tokens.is_empty() {
                return if more { self.error("a zone is missing behind the comma") } else { Ok(keys) };
            }
            if !more && self.starts_line() {
                return Ok(keys);
            }
        }
    }

    fn snippet(&mut self, name: &str) -> Result<(), SyntaxError> {
        if !self.next_is("{") {
            return self.error(format!("snippet ({name}) needs {{"));
        }
        let mut depth = 0;
        let mut body = Vec::new();
        while let Some(token) = self.next() {
            match token.text.as_str() {
                "{" => depth += 1,
                "}" => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return match self.snippets.insert(name.to_owned(), body.split_off(1)) {
                    None => Ok(()),
                    Some(_) => self.error(format!("a second snippet ({name})")),
                };
            }
            body.push(token);
        }
        self.error(format!("snippet ({name}) is not closed: }} is missing"))
    }

    fn directives(&mut self, braces: bool) -> Result<Vec<Directive>, SyntaxError> {
        let mut directives = Vec::new();
        loop {
            if self.next_is("import") {
                self.import()?;
                continue;
            }
            match self.next() {
                None if braces => return self.error("the block is not closed: } is missing"),
                None => return Ok(directives),
                Some(token) if token.text == "}" => return Ok(directives),
                Some(token) => directives.push(self.directive(token)?),
            }
        }
    }

    fn directive(&mut self, head: Token) -> Result<Directive, SyntaxError> {
        let mut depth = 0;
        let mut words = Vec::new();
        while let Some(token) = self.tokens.front() {
            match token.text.as_str() {
                "{" => depth += 1,
                _ if token.first && depth == 0 => break,
                "}" if depth == 0 => return self.error("} without {"),
                "}" => depth -= 1,
                "import" if token.first => {
                    self.import()?;
                    continue;
                }
                _ => {}
            }
            words.extend(self.next());
        }
        if depth > 0 {
            return self.error(format!("{} is not closed: }} is missing", head.text));
        }
        Ok(assemble(head, words))
    }

    /// Puts a snippet or files in the place of `import WHAT`.
    fn import(&mut self) -> Result<(), SyntaxError> {
        self.next();
        let Some(what) = self.tokens.front().filter(|token| !token.first && !token.text.is_empty()) else {
            return self.error("import without a name");
        };
        let what = what.clone();
        self.next();
        if self.tokens.front().is_some_and(|token| !token.first && token.text != "}") {
            return self.error("import takes one name");
        }
        self.imports += 1;
        let found = match self.snippets.get(&what.text) {
            Some(body) => body.clone(),
            None => self.of_files(&what),
        };
        self.imported += found.len();
        if self.imports > IMPORTS || self.imported > IMPORTED {
            return self.error("imports without end: does a snippet or file import itself?");
        }
        for (number, mut token) in found.into_iter().enumerate().rev() {
            token.first |= number == 0;
            self.tokens.push_front(token);
        }
        Ok(())
    }

    /// Words of the files that fit; none is told.
    fn of_files(&mut self, what: &Token) -> Vec<Token> {
        let pattern = what.text.rsplit('/').next().unwrap_or_default();
        let fitting: Vec<&Source> =
            self.files.iter().filter(|(name, _)| fits(pattern, name)).map(|(_, source)| source).collect();
        if fitting.is_empty() || what.unknown.is_some() {
            let why = "what it brings is not here: give the files, or the ConfigMap with them, as further arguments";
            self.findings.unmapped(&what.place, format!("import {}", what.text), why);
        }
        fitting.into_iter().flat_map(|source| tokens(source, self.env)).collect()
    }
}

/// A name fits a pattern with one `*` at most, as CoreDNS takes them.
fn fits(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((begin, end)) => {
            name.len() >= begin.len() + end.len() && name.starts_with(begin) && name.ends_with(end)
        }
    }
}

fn assemble(head: Token, words: Vec<Token>) -> Directive {
    let unknown = head.unknown.or_else(|| words.iter().find_map(|word| word.unknown.clone()));
    let mut directive =
        Directive { name: head.text, place: head.place, args: Vec::new(), lines: Vec::new(), unknown };
    let mut depth = 0;
    let mut fresh = false;
    for word in words {
        match word.text.as_str() {
            "{" if depth == 0 => (depth, fresh) = (1, true),
            "}" if depth == 1 => (depth, fresh) = (0, true),
            text if depth > 0 || fresh => {
                depth += i32::from(text == "{") - i32::from(text == "}");
                match directive.lines.last_mut().filter(|_| !word.first && !fresh) {
                    Some(line) => line.words.push(word.text),
                    None => directive.lines.push(Line { place: word.place, words: vec![word.text] }),
                }
                fresh = false;
            }
            _ => directive.args.push(word.text),
        }
    }
    directive
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(file: &str, text: &str) -> Source {
        let start = if file.is_empty() { Place::first() } else { Place::of(file) };
        Source { text: text.to_owned(), start }
    }

    /// The blocks in one line each, and what was told.
    fn blocks(text: &str, files: &[(&str, &str)]) -> Result<(Vec<String>, usize), String> {
        let files = files
            .iter()
            .map(|(name, text)| ((*name).to_owned(), source(name, text)))
            .collect::<BTreeMap<_, _>>();
        let mut findings = Findings::default();
        let blocks = parse(&source("", text), &files, &BTreeMap::new(), &mut findings)
            .map_err(|error| error.to_string())?;
        let told = blocks.iter().map(|block| {
            let keys: Vec<&str> = block.keys.iter().map(|key| key.text.as_str()).collect();
            let directives: Vec<String> = block.directives.iter().map(directive).collect();
            format!("{}: {}", keys.join(" "), directives.join(", "))
        });
        Ok((told.collect(), findings.unmapped.len()))
    }

    fn directive(directive: &Directive) -> String {
        let lines: Vec<String> = directive.lines.iter().map(|line| line.words.join(" ")).collect();
        let words: Vec<&str> = std::iter::once(directive.name.as_str())
            .chain(directive.args.iter().map(String::as_str))
            .collect();
        match lines.as_slice() {
            [] => words.join(" "),
            lines => format!("{} [{}]", words.join(" "), lines.join("; ")),
        }
    }

    #[test]
    fn blocks_and_plugins_are_found_in_every_spelling() {
        let cases: [(&str, &[&str]); 9] = [
            (".:53 {\n errors\n cache 30\n}\n", &[".:53: errors, cache 30"]),
            (".\nerrors\nforward . 1.1.1.1", &[".: errors, forward . 1.1.1.1"]),
            ("a b,\nc\n{\n log\n}\nd { log\n}", &["a b c: log", "d: log"]),
            (". {\n health {\n  lameduck 5s\n }\n ready\n}", &[".: health [lameduck 5s], ready"]),
            (". {\n health { lameduck 5s }\n}", &[".: health [lameduck 5s]"]),
            (". {\n a {\n  b c {\n   d\n  }\n  e\n }\n}", &[".: a [b c {; d; }; e]"]),
            ("(x) {\n errors\n log\n}\n. {\n ready\n import x\n loop\n}", &[".: ready, errors, log, loop"]),
            ("(o) {\n lameduck 5s\n}\n. {\n health {\n  import o\n }\n}", &[".: health [lameduck 5s]"]),
            ("", &[]),
        ];
        for (text, expected) in cases {
            assert_eq!(
                blocks(text, &[]).unwrap(),
                (expected.iter().map(ToString::to_string).collect(), 0),
                "{text}"
            );
        }
    }

    #[test]
    fn imported_files_are_put_in_their_place_or_told() {
        let text = ". {\n errors\n import custom/*.override\n}\nimport custom/*.server\n";
        let files = [("a.override", "log"), ("b.server", "corp {\n forward . 10.0.0.1\n}\n")];
        assert_eq!(
            blocks(text, &files).unwrap(),
            (vec![".: errors, log".to_owned(), "corp: forward . 10.0.0.1".to_owned()], 0)
        );
        assert_eq!(blocks(text, &[]).unwrap(), (vec![".: errors".to_owned()], 2));
    }

    #[test]
    fn what_coredns_cannot_read_is_told_with_its_line() {
        let cases = [
            (". {\n errors\n", "line 2: the block is not closed: } is missing"),
            (". {\n cache {\n", "line 2: cache is not closed: } is missing"),
            (". {\n cache }\n}", "line 2: } without {"),
            ("}", "line 1: } without {"),
            ("a, {\n}", "line 1: a zone is missing behind the comma"),
            (
                "(x) {\n import x\n}\n. {\n import x\n}",
                "line 2: imports without end: does a snippet or file import itself?",
            ),
            ("(x) {\n}\n(x) {\n}", "line 4: a second snippet (x)"),
            (". {\n import\n}", "line 2: import without a name"),
        ];
        for (text, expected) in cases {
            assert_eq!(blocks(text, &[]).unwrap_err(), expected, "{text}");
        }
    }
}
