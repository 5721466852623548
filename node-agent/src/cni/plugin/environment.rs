//! The environment variables of a CNI call, and what they must look like.

use std::{env, fs::File, io::Read};

use crate::cni::{
    config::is_network_name,
    failure::{Failure, INVALID_ENVIRONMENT},
    protocol::Verb,
};

#[derive(Clone, Debug, Default)]
pub(super) struct Environment {
    pub(super) command: String,
    pub(super) container_id: String,
    pub(super) netns: String,
    pub(super) interface: String,
    pub(super) arguments: String,
    /// `TRACEPARENT` of the runtime; libcni passes it on from 1.4.
    pub(super) parent: String,
}

impl Environment {
    pub(super) fn of_process() -> Self {
        let get =
            |name| env::var_os(name).map(|value| value.to_string_lossy().into_owned()).unwrap_or_default();
        Self {
            command: get("CNI_COMMAND"),
            container_id: get("CNI_CONTAINERID"),
            netns: get("CNI_NETNS"),
            interface: get("CNI_IFNAME"),
            arguments: get("CNI_ARGS"),
            parent: get("TRACEPARENT"),
        }
    }

    /// Whether all that `verb` needs is there and makes sense; the failure names every variable that does not.
    pub(super) fn check(&self, verb: Verb) -> Result<(), Failure> {
        let of_pod = !matches!(verb, Verb::Status | Verb::Gc);
        let rules = [
            ("CNI_CONTAINERID", of_pod && !is_network_name(&self.container_id), &self.container_id),
            ("CNI_IFNAME", of_pod && !is_interface(&self.interface), &self.interface),
            ("CNI_NETNS", verb.needs_pod() && self.netns.is_empty(), &self.netns),
        ];
        let wrong = rules.iter().filter(|(_, wrong, _)| *wrong);
        let wrong: Vec<_> = wrong.map(|(name, _, value)| format!("{name}={value:?}")).collect();
        if wrong.is_empty() {
            return Ok(());
        }
        let msg = format!("{} needs other environment variables than {}", verb.as_str(), wrong.join(", "));
        Err(Failure::new(INVALID_ENVIRONMENT, msg))
    }

    /// The trace context of the runtime, if it gave one.
    pub(super) fn parent(&self) -> Option<String> {
        is_traceparent(&self.parent).then(|| self.parent.clone())
    }

    /// A trace context for this call: in the runtime's trace, or in a new one.
    pub(super) fn traceparent(&self) -> String {
        let new = new_traceparent();
        match self.parent() {
            // version and trace are the runtime's, the span is this call's, the flags are the runtime's
            Some(parent) => format!("{}{}{}", &parent[..36], &new[36..52], &parent[52..]),
            None => new,
        }
    }
}

/// The kernel's rules for names of links.
fn is_interface(name: &str) -> bool {
    let forbidden = |byte: u8| byte == b'/' || byte == b':' || byte.is_ascii_whitespace() || byte == 0;
    !name.is_empty() && name.len() < 16 && !matches!(name, "." | "..") && !name.bytes().any(forbidden)
}

fn is_traceparent(text: &str) -> bool {
    let lengths: Vec<_> = text.split('-').take(4).map(str::len).collect();
    lengths == [2, 32, 16, 2] && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// A recorded trace with random ids. Zero ids, should there be no randomness, are valid nowhere and so ignored.
fn new_traceparent() -> String {
    let mut random = [0; 24];
    let _ = File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut random));
    let hex = random.map(|byte| format!("{byte:02x}")).concat();
    format!("00-{}-{}-01", &hex[..32], &hex[32..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Environment {
        Environment {
            container_id: "0a-b_c.d".to_owned(),
            netns: "/run/netns/a".to_owned(),
            interface: "eth0".to_owned(),
            ..Environment::default()
        }
    }

    #[test]
    fn every_wrong_variable_is_named() {
        assert!(good().check(Verb::Add).is_ok());
        let none = Environment::default();
        let failure = none.check(Verb::Add).unwrap_err();
        assert_eq!(failure.code, INVALID_ENVIRONMENT);
        assert!(["CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS"].iter().all(|name| failure.msg.contains(name)));
        assert!(none.check(Verb::Status).is_ok() && none.check(Verb::Gc).is_ok());
    }

    #[test]
    fn del_needs_no_namespace() {
        assert!(Environment { netns: String::new(), ..good() }.check(Verb::Del).is_ok());
    }

    #[test]
    fn ids_and_names_that_could_leave_their_folder_are_refused() {
        for id in ["", "../x", "a/b", "-a", "a b"] {
            assert!(Environment { container_id: id.to_owned(), ..good() }.check(Verb::Del).is_err(), "{id}");
        }
        for interface in ["", ".", "..", "a/b", "a:b", "a b", "sixteen-letters-"] {
            assert!(
                Environment { interface: interface.to_owned(), ..good() }.check(Verb::Del).is_err(),
                "{interface}"
            );
        }
    }

    #[test]
    fn the_runtimes_trace_is_taken_up_and_none_makes_a_new_one() {
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let given = Environment { parent: parent.to_owned(), ..good() };
        assert_eq!(given.parent().as_deref(), Some(parent));
        let child = given.traceparent();
        assert!(netkeel_telemetry::context::is_valid(&child), "{child}");
        assert_eq!((&child[..36], &child[52..]), (&parent[..36], &parent[52..]));
        assert_ne!(child, parent, "the call is a span of its own");
        let new = good().traceparent();
        assert_eq!(good().parent(), None);
        assert!(netkeel_telemetry::context::is_valid(&new), "{new}");
        assert_ne!(new, good().traceparent());
    }
}
