//! `cache`.

use netkeel_crds::cluster_network::dns::{Cache, ServeStale, StaleMode};

use super::{Directive, Kind, Mapped, Server, is_domain, servers::covers};
use crate::migrate::{
    finding::Findings,
    parser::Line,
    value::{milliseconds, whole, zones},
};

/// Entries of each of CoreDNS's two caches.
const ENTRIES: u32 = 9984;
/// The longest time to live that the API takes.
const LONGEST: u32 = 86_400;

/// `cache [TTL] [ZONES...] { OPTIONS }`. Only answers of resolvers are kept, in one cache for all zones.
pub(super) fn cache(at: &Directive, server: &Server<'_>, out: &mut Mapped) {
    match server.kind {
        Kind::Cluster => {} // answers are ready, and as long as they live is said by `ttl`
        Kind::Root => {
            if out.dns.cache != Cache::default() {
                return out.unmapped(at, "a second one: there is one cache for all names");
            }
            let zones = Mapped::zones(zones_of(at), server);
            if !zones.iter().any(String::is_empty) && !covers(&zones, &out.dns.cluster_domain) {
                out.unmapped(at, "only some zones are kept: the cache of Netkeel is for all names");
            }
            let domain = out.dns.cluster_domain.clone();
            out.dns.cache = read(at, &domain, &mut out.findings);
        }
        Kind::Stub => {
            let own = read(at, &out.dns.cluster_domain, &mut Findings::default());
            if own != out.dns.cache {
                let why = "it differs from that of block .: there is one cache for all names, and what that block says counts";
                out.unmapped(at, why);
            }
        }
    }
}

fn zones_of(at: &Directive) -> &[String] {
    let timed = at.args.first().is_some_and(|word| word.parse::<u32>().is_ok());
    &at.args[usize::from(timed)..]
}

fn read(at: &Directive, domain: &str, findings: &mut Findings) -> Cache {
    let mut reader = Reader { cache: Cache::default(), success: None, denial: None, off: false, domain };
    if let Some(ttl) = at.args.first().and_then(|word| word.parse::<u32>().ok()) {
        reader.cache.max_ttl_seconds = ttl.clamp(1, LONGEST);
        reader.cache.negative_max_ttl_seconds = ttl.clamp(1, LONGEST);
    }
    for line in &at.lines {
        if let Err(why) = reader.option(line, findings) {
            findings.unmapped(&line.place, format!("cache {}", line.words.join(" ")), why);
        }
    }
    reader.done()
}

struct Reader<'a> {
    cache: Cache,
    /// Entries, where they are said.
    success: Option<u32>,
    denial: Option<u32>,
    /// Answers with records are not kept.
    off: bool,
    domain: &'a str,
}

impl Reader<'_> {
    fn option(&mut self, line: &Line, findings: &mut Findings) -> Result<(), &'static str> {
        let words: Vec<&str> = line.words.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["success", entries, times @ ..] => {
                self.success = Some(number(entries)?);
                if let [longest, shortest @ ..] = times {
                    self.cache.max_ttl_seconds = number(longest)?.clamp(1, LONGEST);
                    if let [shortest] = shortest {
                        self.cache.min_ttl_seconds = number(shortest)?.min(3600);
                    }
                }
            }
            ["denial", entries, times @ ..] => {
                self.denial = Some(number(entries)?);
                if let [longest, shortest @ ..] = times {
                    self.cache.negative_max_ttl_seconds = number(longest)?.clamp(1, LONGEST);
                    if shortest
                        .first()
                        .is_some_and(|shortest| shortest.parse() != Ok(self.cache.min_ttl_seconds))
                    {
                        let why = "there is one shortest time, spec.dns.cache.minTTLSeconds, for answers of both kinds";
                        findings.note(&line.place, format!("cache {}", words.join(" ")), why);
                    }
                }
            }
            ["prefetch", "0", ..] => self.cache.prefetch = false,
            ["prefetch", ..] => self.cache.prefetch = true,
            ["serve_stale", args @ ..] => self.stale(line, args, findings)?,
            ["disable", kind @ ("success" | "denial"), except @ ..] => self.disable(kind, except)?,
            ["servfail", ..] => {
                let why = "failures are not kept: the resolvers are asked again";
                findings.note(&line.place, format!("cache {}", words.join(" ")), why);
            }
            ["keepttl"] => return Err("times to live always run down while an answer is kept"),
            ["serve_stale_policy", ..] => {
                return Err("an answer that is over is given whether it has records or not");
            }
            _ => return Err("Netkeel does not know this option"),
        }
        Ok(())
    }

    /// `serve_stale [AGE [immediate [TTL [RECHECK]] | verify [TIMEOUT [TTL [RECHECK]]]]]`
    fn stale(&mut self, line: &Line, args: &[&str], findings: &mut Findings) -> Result<(), &'static str> {
        const TIMES: &str = "spec.dns takes an age up to 168h and a time to live up to 1h";
        let seconds =
            |text: &str, most| milliseconds(text).and_then(|time| whole(time / 1000.0, 0, most)).ok_or(TIMES);
        let mut stale =
            ServeStale { max_age_seconds: 3600, mode: StaleMode::Immediate, response_ttl_seconds: 0 };
        if let Some(age) = args.first() {
            stale.max_age_seconds = seconds(age, 604_800)?;
        }
        let rest = match args.get(1).map(|mode| mode.to_ascii_lowercase()).as_deref() {
            None => &[][..],
            Some("immediate") => &args[2..],
            Some("verify") => {
                stale.mode = StaleMode::Verify;
                if let Some(timeout) = args.get(2) {
                    let why = format!(
                        "the resolvers are waited for as long as spec.dns.forwarding says, not {timeout}"
                    );
                    findings.note(&line.place, "cache serve_stale", why);
                }
                args.get(3..).unwrap_or_default()
            }
            Some(_) => return Err("the mode is immediate or verify"),
        };
        if let Some(ttl) = rest.first() {
            stale.response_ttl_seconds = seconds(ttl, 3600)?;
        }
        self.cache.serve_stale = stale;
        Ok(())
    }

    fn disable(&mut self, kind: &str, except: &[&str]) -> Result<(), &'static str> {
        let zones: Vec<String> = except.iter().flat_map(|word| zones(word)).collect();
        let all = zones.is_empty() || zones.iter().any(String::is_empty);
        match kind {
            "denial" if all => self.cache.negative_max_ttl_seconds = 0,
            _ if all => self.off = true,
            // names of the cluster are never in the cache
            _ if zones
                .iter()
                .all(|zone| is_domain(zone) && crate::migrate::value::within(zone, self.domain)) => {}
            _ => {
                return Err(
                    "the cache is for all names outside the cluster, or, with maxEntries 0, for none",
                );
            }
        }
        Ok(())
    }

    fn done(mut self) -> Cache {
        if self.success.is_some() || self.denial.is_some() {
            let entries = self.success.unwrap_or(ENTRIES).saturating_add(self.denial.unwrap_or(ENTRIES));
            let usual = Cache::default();
            self.cache.max_entries = entries.clamp(1, 1_000_000);
            // as much memory for each as by default
            let bytes =
                u64::from(usual.max_bytes) * u64::from(self.cache.max_entries) / u64::from(usual.max_entries);
            self.cache.max_bytes =
                u32::try_from(bytes.clamp(u64::from(usual.max_bytes), 1 << 30)).unwrap_or(1 << 30);
        }
        if self.off {
            self.cache.max_entries = 0;
        }
        // CoreDNS's longest time counts where the shortest is above it
        self.cache.min_ttl_seconds = self.cache.min_ttl_seconds.min(self.cache.max_ttl_seconds);
        self.cache
    }
}

fn number(text: &str) -> Result<u32, &'static str> {
    text.parse().map_err(|_| "a number was expected")
}
