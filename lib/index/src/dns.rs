//! What `spec.dns` says of other names, ready to be asked; and what in it no schema can refuse, for the servers that keep their last
//! good configuration then and for the operator that tells the user.

mod trust;

use netkeel_crds::cluster_network::{
    Dns,
    dns::{Forwarding, MatchKind, Rewrite},
};
use regex::bytes::{Regex, RegexBuilder};

pub use trust::{Trust, Untrusted};

/// Largest compiled form of one expression, in bytes.
const LARGEST: usize = 256 << 10;

/// As many characters as a label can have (RFC 1035 section 2.3.4).
const LONGEST_LABEL: usize = 63;

/// A rewrite that cannot be done, or resolvers that cannot be asked over TLS.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("spec.dns.{place}.{field}: {problem}")]
pub struct Mistake {
    place: String,
    field: &'static str,
    problem: String,
}

/// What is wrong with `dns`, as far as no schema can know it.
#[must_use]
pub fn mistakes(dns: &Dns) -> Vec<Mistake> {
    let read = |(index, rewrite)| Rewriting::read(index, rewrite).err();
    let rewrites = dns.rewrites.iter().enumerate().filter_map(read);
    let untrusted = |(place, forwarding): (String, &Forwarding)| {
        let untrusted = Trust::read(forwarding).err()?;
        Some(Mistake { place, field: untrusted.field(), problem: untrusted.to_string() })
    };
    let stubs = dns.stub_domains.iter().enumerate();
    let stubs = stubs.map(|(index, stub)| (format!("stubDomains[{index}].forwarding"), &stub.forwarding));
    let groups = std::iter::once(("forwarding".to_owned(), &dns.forwarding)).chain(stubs);
    rewrites.chain(groups.filter_map(untrusted)).collect()
}

/// `dns` without the rewrites that cannot be done, for a server that has no good configuration yet. Resolvers that cannot be asked over
/// TLS are left as they are: their names must not be asked elsewhere, nor in the clear.
#[must_use]
pub fn usable(mut dns: Dns) -> Dns {
    let mut index = 0..;
    dns.rewrites.retain(|rewrite| Rewriting::read(index.next().unwrap_or_default(), rewrite).is_ok());
    dns
}

/// The rewrites of `spec.dns`, in their order.
#[derive(Clone, Debug, Default)]
pub struct Rewrites(Vec<Rewriting>);

/// Another name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewritten {
    /// The name, without the dot at its end. It may be none, where what was put together is too long or has an empty label.
    pub name: String,
    /// Whether answers carry the name that was asked for.
    pub back: bool,
}

impl Rewrites {
    /// Makes them ready.
    ///
    /// # Errors
    /// The first one that cannot be done.
    pub fn read(dns: &Dns) -> Result<Self, Mistake> {
        let read = |(index, rewrite)| Rewriting::read(index, rewrite);
        dns.rewrites.iter().enumerate().map(read).collect::<Result<_, _>>().map(Self)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one may match a name below `domain`.
    #[must_use]
    pub fn may_match_below(&self, domain: &str) -> bool {
        let end = format!(".{domain}");
        self.0.iter().any(|rewriting| match &rewriting.matcher {
            Matcher::Exact(value) => value.ends_with(&end),
            Matcher::Suffix(value) => value.ends_with(&end) || end.ends_with(value.as_str()),
            Matcher::Prefix(_) | Matcher::Regex(_) => true,
        })
    }

    /// What the first one that matches makes of `name`, which is in lower case and without the dot at its end.
    #[must_use]
    pub fn rewrite(&self, name: &str) -> Option<Rewritten> {
        self.0.iter().find_map(|rewriting| {
            Some(Rewritten { name: rewriting.matcher.apply(name, &rewriting.to)?, back: rewriting.back })
        })
    }
}

#[derive(Clone, Debug)]
struct Rewriting {
    matcher: Matcher,
    to: Vec<Piece>,
    back: bool,
}

#[derive(Clone, Debug)]
enum Matcher {
    Exact(String),
    Prefix(String),
    Suffix(String),
    Regex(Regex),
}

/// A part of what is put in the place of what was matched.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Group(usize),
}

impl Rewriting {
    fn read(index: usize, rewrite: &Rewrite) -> Result<Self, Mistake> {
        let value = rewrite.matches.value.clone();
        let mistake = |field, problem| Mistake { place: format!("rewrites[{index}]"), field, problem };
        let (matcher, groups) = match rewrite.matches.kind {
            MatchKind::Exact => (Matcher::Exact(value), None),
            MatchKind::Prefix => (Matcher::Prefix(value), None),
            MatchKind::Suffix => (Matcher::Suffix(value), None),
            MatchKind::Regex => {
                let regex = expression(&value).map_err(|problem| mistake("match.value", problem))?;
                let groups = regex.captures_len();
                (Matcher::Regex(regex), Some(groups))
            }
        };
        if let Some(label) =
            rewrite.to.split('.').find(|label| label.len() > LONGEST_LABEL && !label.contains('{'))
        {
            return Err(mistake("to", format!("the label {label} has more than {LONGEST_LABEL} characters")));
        }
        let to = match groups {
            Some(groups) => pieces(&rewrite.to, groups).map_err(|problem| mistake("to", problem))?,
            None => vec![Piece::Text(rewrite.to.clone())],
        };
        Ok(Self { matcher, to, back: rewrite.answer_rewrite })
    }
}

impl Matcher {
    fn apply(&self, name: &str, to: &[Piece]) -> Option<String> {
        let put = |captures: Option<&regex::bytes::Captures<'_>>| -> String {
            let piece = |piece: &Piece| match piece {
                Piece::Text(text) => text.clone(),
                Piece::Group(group) => captures
                    .and_then(|captures| captures.get(*group))
                    .map_or_else(String::new, |found| String::from_utf8_lossy(found.as_bytes()).into_owned()),
            };
            to.iter().map(piece).collect()
        };
        match self {
            Self::Exact(value) => (name == value).then(|| put(None)),
            Self::Prefix(value) => name.strip_prefix(value.as_str()).map(|rest| put(None) + rest),
            Self::Suffix(value) => name.strip_suffix(value.as_str()).map(|rest| rest.to_owned() + &put(None)),
            Self::Regex(regex) => regex.captures(name.as_bytes()).map(|captures| put(Some(&captures))),
        }
    }
}

fn expression(value: &str) -> Result<Regex, String> {
    let built = RegexBuilder::new(value).unicode(false).case_insensitive(true).size_limit(LARGEST).build();
    built.map_err(|error| {
        let why = match &error {
            regex::Error::CompiledTooBig(_) => "it grows too large".to_owned(),
            // several lines that draw where the mistake is; the last says what it is
            error => {
                let text = error.to_string();
                text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
            }
        };
        format!("{value:?} is no regular expression that can be used ({why}): see https://docs.rs/regex/1/regex/#syntax")
    })
}

/// Text with `{1}` for what the first of `groups - 1` groups matched, and `{0}` for all that was matched.
fn pieces(to: &str, groups: usize) -> Result<Vec<Piece>, String> {
    let (mut pieces, mut rest) = (vec![], to);
    while let Some((text, more)) = rest.split_once('{') {
        let Some((group, more)) = more.split_once('}') else {
            return Err(format!("{to:?} has a brace that is not closed"));
        };
        let number = group.parse().ok().filter(|number| *number < groups);
        let Some(number) = number else {
            return Err(format!(
                "{to:?} names the group {{{group}}}, of which match.value has {}",
                groups - 1
            ));
        };
        pieces.extend([Piece::Text(text.to_owned()), Piece::Group(number)]);
        rest = more;
    }
    pieces.push(Piece::Text(rest.to_owned()));
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn dns(rewrites: &[(&str, &str, &str)]) -> Dns {
        let rewrite = |(kind, value, to): &(&str, &str, &str)| -> Value {
            json!({"match": {"type": kind, "value": value}, "to": to})
        };
        let rewrites: Vec<Value> = rewrites.iter().map(rewrite).collect();
        serde_json::from_value(json!({"rewrites": rewrites})).unwrap()
    }

    #[test]
    fn names_are_rewritten_by_the_first_rule_that_matches() {
        let rewrites = Rewrites::read(&dns(&[
            ("Exact", "old.example", "new.example"),
            ("Prefix", "test-", ""),
            ("Suffix", ".corp.example", ".svc.cluster.local"),
            ("Regex", r"^([a-z]+)-([0-9]+)\.db\.EXAMPLE$", "{1}.shop.svc.cluster.local"),
            ("Regex", r"^(a)?b\.regex\.example$", "x{1}{0}{1}y"),
            ("Suffix", "old.example", "never.example"),
        ]))
        .unwrap();
        for (name, expected) in [
            ("old.example", Some("new.example")),
            ("an.old.example", Some("an.never.example")),
            ("test-a.example", Some("a.example")),
            ("web.shop.corp.example", Some("web.shop.svc.cluster.local")),
            ("corp.example", None),
            ("pg-7.db.example", Some("pg.shop.svc.cluster.local")),
            ("pg-7.db.example.com", None),
            ("ab.regex.example", Some("xaab.regex.exampleay")),
            ("b.regex.example", Some("xb.regex.exampley")),
            ("www.example.com", None),
            ("", None),
        ] {
            let found = rewrites.rewrite(name).map(|rewritten| rewritten.name);
            assert_eq!(found.as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn rules_that_cannot_match_below_a_domain_are_told_apart() {
        for (kind, value, expected) in [
            ("Exact", "web.shop.svc.cluster.local", true),
            ("Exact", "cluster.local", false),
            ("Exact", "old.example", false),
            ("Suffix", ".example", false),
            ("Suffix", ".shop.svc.cluster.local", true),
            ("Suffix", ".local", true),
            ("Suffix", "ocal", true),
            ("Suffix", "xcluster.local", false),
            ("Prefix", "www.", true),
            ("Regex", "^a$", true),
        ] {
            let rewrites = Rewrites::read(&dns(&[(kind, value, "a")])).unwrap();
            assert_eq!(rewrites.may_match_below("cluster.local"), expected, "{kind} {value}");
        }
    }

    #[test]
    fn what_no_schema_can_refuse_is_named_with_its_field() {
        let good = ("Exact", "a.example", "b.example");
        let long = format!(".{}.example", "x".repeat(64));
        for (rewrite, expected) in [
            (
                ("Regex", "(", "a"),
                "spec.dns.rewrites[1].match.value: \"(\" is no regular expression that can be used (unclosed group)",
            ),
            (("Regex", "(?:a{1000}){1000}", "a"), "it grows too large"),
            (
                ("Regex", "(a)(b)", "{1}{3}"),
                "spec.dns.rewrites[1].to: \"{1}{3}\" names the group {3}, of which match.value has 2",
            ),
            (("Suffix", ".a", long.as_str()), "spec.dns.rewrites[1].to: the label xxx"),
            (("Regex", "(a)", "{b}"), "names the group {b}"),
            (("Regex", "(a)", "{1"), "has a brace that is not closed"),
        ] {
            let dns = dns(&[good, rewrite, good]);
            let found = mistakes(&dns);
            assert_eq!(found.len(), 1);
            assert!(found[0].to_string().contains(expected), "{}", found[0]);
            assert_eq!(Rewrites::read(&dns).unwrap_err(), found[0]);
        }
        assert_eq!(mistakes(&dns(&[good])), []);
        let bad = ("Regex", "(", "a");
        assert_eq!(usable(dns(&[bad, good, bad, good])), dns(&[good, good]));
    }

    #[test]
    fn a_certificate_that_cannot_be_read_is_named_with_its_group_of_resolvers() {
        let damaged = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let none = "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n";
        let forwarding = |name: &str, authorities: Option<&str>| json!({"protocol": "TLS", "tlsServerName": name, "caCertificates": authorities});
        let of = |forwarding: &Value, stub: &Value| -> Dns {
            let stubs = json!([{"zone": "a.example", "upstreams": ["192.0.2.1"]}, {"zone": "b.example", "upstreams": ["192.0.2.2"],
                "forwarding": stub}]);
            serde_json::from_value(json!({"forwarding": forwarding, "stubDomains": stubs})).unwrap()
        };
        let good = forwarding("dns.example", None);
        assert_eq!(mistakes(&of(&good, &good)), [], "the public authorities are trusted");
        for (bad, expected) in [
            (forwarding("dns.example", Some(damaged)), "caCertificates: certificate 1 cannot be read"),
            (forwarding("dns.example", Some(&damaged[..40])), "caCertificates: certificate 1 cannot be read"),
            (forwarding("dns.example", Some(none)), "caCertificates: it holds no certificate"),
            (forwarding("-", None), "tlsServerName: \"-\" is no name that a certificate can have"),
        ] {
            let all = of(&bad, &good);
            let told: Vec<String> = mistakes(&all).iter().map(ToString::to_string).collect();
            assert!(
                told.len() == 1 && told[0].starts_with(&format!("spec.dns.forwarding.{expected}")),
                "{told:?}"
            );
            assert_eq!(usable(all.clone()), all, "names are not asked elsewhere");
            let told: Vec<String> = mistakes(&of(&good, &bad)).iter().map(ToString::to_string).collect();
            let expected = format!("spec.dns.stubDomains[1].forwarding.{expected}");
            assert!(told.len() == 1 && told[0].starts_with(&expected), "{told:?}");
        }
        let plain = json!({"protocol": "UDP", "caCertificates": damaged});
        assert_eq!(mistakes(&of(&plain, &plain)), [], "nobody looks at them");
    }
}
