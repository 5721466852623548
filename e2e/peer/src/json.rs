//! Just enough JSON to print results.

use std::collections::BTreeMap;
use std::fmt::Write;

pub(crate) enum Value {
    Number(f64),
    Count(u64),
    Flag(bool),
    Text(String),
    List(Vec<Value>),
    Object(Vec<(&'static str, Value)>),
    Counts(BTreeMap<String, u64>),
}

impl Value {
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    pub(crate) fn print(&self) {
        let mut out = String::new();
        self.write(&mut out);
        println!("{out}");
    }

    pub(crate) fn write(&self, out: &mut String) {
        match self {
            Self::Number(number) => {
                let _ = write!(out, "{number:.3}");
            }
            Self::Count(count) => out.push_str(&count.to_string()),
            Self::Flag(flag) => out.push_str(&flag.to_string()),
            Self::Text(text) => quote(out, text),
            Self::List(items) => list(out, ['[', ']'], items, |out, item| item.write(out)),
            Self::Object(fields) => list(out, ['{', '}'], fields, |out, (name, value)| {
                quote(out, name);
                out.push(':');
                value.write(out);
            }),
            Self::Counts(counts) => list(out, ['{', '}'], counts, |out, (name, count)| {
                quote(out, name);
                out.push(':');
                out.push_str(&count.to_string());
            }),
        }
    }
}

fn list<T>(
    out: &mut String,
    [open, close]: [char; 2],
    items: impl IntoIterator<Item = T>,
    write: impl Fn(&mut String, T),
) {
    out.push(open);
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        write(out, item);
    }
    out.push(close);
}

fn quote(out: &mut String, text: &str) {
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => out.extend(['\\', letter]),
            letter if letter < ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(letter));
            }
            letter => out.push(letter),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_quoted() {
        let mut out = String::new();
        let counts = BTreeMap::from([("a\"b".to_owned(), 2)]);
        let list = Value::List(vec![Value::text("x\n"), Value::Flag(true), Value::Number(0.5)]);
        Value::Object(vec![("backends", Value::Counts(counts)), ("list", list), ("n", Value::Count(7))])
            .write(&mut out);
        assert_eq!(out, r#"{"backends":{"a\"b":2},"list":["x\u000a",true,0.500],"n":7}"#);
    }
}
