//! `rewrite`.

use netkeel_crds::cluster_network::dns::{MatchKind, NameMatch, Rewrite};

use super::{Directive, Kind, Mapped, Server, most, servers::covers};
use crate::migrate::value::zone;

/// `rewrite [continue|stop] name [KIND] FROM TO [answer ...]`, in one line or between braces.
pub(super) fn rewrite(at: &Directive, server: &Server<'_>, out: &mut Mapped) {
    let lines = at.lines.iter().flat_map(|line| &line.words);
    let words: Vec<&str> = at.args.iter().chain(lines).map(String::as_str).collect();
    let (goes_on, rule) = match words.as_slice() {
        ["continue", rule @ ..] => (true, rule),
        ["stop", rule @ ..] => (false, rule),
        rule => (false, rule),
    };
    if let Some(place) = out.goes_on.take() {
        let why = "the first rule that matches is the only one: make one rule of this and those behind it";
        out.findings.unmapped(&place, "rewrite continue", why);
    }
    let rewrite = match rule {
        ["name", rule @ ..] => name(at, rule, out),
        ["ttl", ..] => Err("times to live are kept in bounds for all names, by spec.dns.cache minTTLSeconds and maxTTLSeconds".to_owned()),
        ["type" | "class", ..] => Err("only names are rewritten: answer for types with spec.dns.overrides".to_owned()),
        ["rcode", ..] => Err("codes of answers are not rewritten: give a zone its answer with spec.dns.overrides".to_owned()),
        ["edns0", ..] => Err("EDNS options are not added for resolvers".to_owned()),
        ["cname", ..] => Err("targets in answers are not rewritten".to_owned()),
        _ => Err("Netkeel does not know this rule".to_owned()),
    };
    match rewrite {
        Ok(rewrite) if out.dns.rewrites.len() < most::RULES => {
            scoped(at, &rewrite, server, out);
            out.dns.rewrites.push(rewrite);
            out.goes_on = goes_on.then(|| at.place.clone());
        }
        Ok(_) => out.unmapped(at, format!("there are {} rewrites at most", most::RULES)),
        Err(why) => out.unmapped(at, why),
    }
}

/// A rule of a block counts for its zones alone; ours for all names.
fn scoped(at: &Directive, rewrite: &Rewrite, server: &Server<'_>, out: &mut Mapped) {
    if server.kind == Kind::Root {
        return;
    }
    let named = rewrite.matches.value.trim_start_matches('.');
    let inside = match rewrite.matches.kind {
        MatchKind::Exact | MatchKind::Suffix => covers(&server.zones, named),
        MatchKind::Prefix | MatchKind::Regex => false,
    };
    if inside {
        out.findings.note(
            &at.place,
            "rewrite",
            "the new name is resolved as any other, not by this block alone",
        );
    } else {
        out.unmapped(
            at,
            "it is for the names of this block alone, and would be for all: let the pattern hold the zone",
        );
    }
}

/// A rule about names. CoreDNS matches names with the dot at their end, Netkeel without.
fn name(at: &Directive, rule: &[&str], out: &mut Mapped) -> Result<Rewrite, String> {
    let (kind, from, to, answer) = match rule {
        [kind @ ("exact" | "prefix" | "suffix" | "substring" | "regex"), from, to, answer @ ..] => {
            (*kind, *from, *to, answer)
        }
        [from, to] => ("exact", *from, *to, &[][..]),
        _ => return Err("a rule about names is [exact|prefix|suffix|substring|regex] FROM TO".to_owned()),
    };
    let answer_rewrite = answered(at, kind, answer, out);
    let (kind, value, to) = match kind {
        "exact" => (MatchKind::Exact, zone(from), zone(to)),
        "suffix" => (MatchKind::Suffix, zone(from), zone(to)),
        // a prefix ends with a label: CoreDNS puts a dot behind both
        "prefix" => (MatchKind::Prefix, format!("{}.", zone(from)), format!("{}.", zone(to))),
        "substring" => {
            let why = "only its last place in a name is replaced, and only where a label ends, as CoreDNS compares it";
            out.findings.note(&at.place, "rewrite name substring", why);
            let value = format!("^(.*){}([.].*)?$", literal(&zone(from)));
            (MatchKind::Regex, value, format!("{{1}}{}{{2}}", zone(to)))
        }
        _ => (MatchKind::Regex, undotted(from)?, zone(to)),
    };
    let rewrite = Rewrite { matches: NameMatch { kind, value }, to, answer_rewrite };
    taken(&rewrite)?;
    Ok(rewrite)
}

/// Whether the API takes a rule, as the schema and the rules of `spec.dns.rewrites` say.
fn taken(Rewrite { matches: NameMatch { kind, value }, to, .. }: &Rewrite) -> Result<(), String> {
    let letters = |text: &str, others: &str| {
        text.chars()
            .all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || others.contains(letter))
    };
    let regex = *kind == MatchKind::Regex;
    let whole = matches!(kind, MatchKind::Exact | MatchKind::Regex);
    let why = if value.is_empty() || to.is_empty() || value.len() > 253 || to.len() > 253 {
        "both names have 1 to 253 letters"
    } else if value.contains(char::is_control) {
        "names have one line"
    } else if to.contains("{0}") {
        "{0} is not taken: put a group around the whole expression, and {1} here"
    } else if !letters(to, if regex { "-_.{}" } else { "-_." }) || !(regex || letters(value, "-_.")) {
        "names have letters, digits, '-', '_' and '.', the new name of an expression groups such as {1}, too"
    } else if to.contains("..") || !regex && value.contains("..") {
        "a name has no empty labels"
    } else if whole && (to.starts_with('.') || to.ends_with('.')) {
        "the new name is a whole one"
    } else {
        return Ok(());
    };
    Err(why.to_owned())
}

/// Whether answers get the name back that was asked for. CoreDNS does that for exact names always.
fn answered(at: &Directive, kind: &str, answer: &[&str], out: &mut Mapped) -> bool {
    let mut back = kind == "exact";
    let mut rest = answer;
    loop {
        rest = match rest {
            [] => return back,
            ["answer", "auto", rest @ ..] => {
                back = true;
                rest
            }
            ["answer", "name", _, _, rest @ ..] => {
                back = true;
                let why = "answers carry the name that was asked for, whatever the expression says";
                out.findings.note(&at.place, "rewrite answer name", why);
                rest
            }
            ["answer", "value", _, _, rest @ ..] => {
                let why = "names within answers are left as they are";
                out.findings.unmapped(&at.place, "rewrite answer value", why);
                rest
            }
            other => {
                let why = "Netkeel does not know this rule for answers";
                out.findings.unmapped(&at.place, format!("rewrite {}", other.join(" ")), why);
                return back;
            }
        }
    }
}

/// A text as an expression that it alone matches.
pub(super) fn literal(text: &str) -> String {
    text.replace('.', "[.]")
}

/// An expression for names with a dot at their end as one for names without.
fn undotted(regex: &str) -> Result<String, String> {
    const DOTS: [&str; 4] = [r"\.?", r"[.]?", r"\.", "[.]"];
    let unsure = || {
        "Netkeel matches names without the dot at their end: write this expression anew in spec.dns.rewrites"
            .to_owned()
    };
    let open = regex.strip_suffix('$').unwrap_or(regex);
    let stripped = DOTS.iter().find_map(|dot| open.strip_suffix(dot));
    let grouped = open.trim_end_matches(['*', '+', '?']).strip_suffix(')');
    let dot_in_group = grouped.is_some_and(|group| DOTS.iter().any(|dot| group.ends_with(dot)));
    if alternatives(open) || dot_in_group || stripped.unwrap_or(open).ends_with('\\') {
        return Err(unsure());
    }
    match (stripped, open == regex) {
        (Some(rest), true) => Ok(format!(r"{rest}(?:\.|$)")),
        (Some(rest), false) => Ok(format!("{rest}$")),
        (None, true) => Ok(regex.to_owned()),
        (None, false) if [".*", ".+", ".*)", ".+)"].iter().any(|any| open.ends_with(any)) => {
            Ok(regex.to_owned())
        }
        (None, false) => {
            Err("it matches no name in CoreDNS, where names end with a dot: write \\.$, or remove the rule"
                .to_owned())
        }
    }
}

/// Whether there is `|` outside groups.
fn alternatives(regex: &str) -> bool {
    let mut depth = 0;
    let mut escaped = false;
    regex.chars().any(|letter| {
        let plain = !std::mem::take(&mut escaped);
        match letter {
            '\\' if plain => escaped = true,
            '(' if plain => depth += 1,
            ')' if plain => depth -= 1,
            _ => {}
        }
        plain && letter == '|' && depth == 0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_for_names_with_a_dot_become_ones_for_names_without() {
        let cases = [
            (r"(.*)\.corp\.example\.$", Some(r"(.*)\.corp\.example$")),
            (r"(.*)\.corp\.example\.?$", Some(r"(.*)\.corp\.example$")),
            (r"(.*)\.corp\.example[.]", Some(r"(.*)\.corp\.example(?:\.|$)")),
            (r"(.*)\.corp\.example", Some(r"(.*)\.corp\.example")),
            (r"^api\.(.*)$", Some(r"^api\.(.*)$")),
            (r"(a|b)\.corp\.$", Some(r"(a|b)\.corp$")),
            (r"(.*)\.corp\.example$", None),
            (r"a\.$|b\.$", None),
            (r"(.*\.)$", None),
            (r"(a\.)+$", None),
            (r"a\\.$", None),
        ];
        for (regex, expected) in cases {
            assert_eq!(undotted(regex).ok().as_deref(), expected, "{regex}");
        }
    }
}
