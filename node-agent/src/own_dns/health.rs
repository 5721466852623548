//! What is known of each server from its answers. Pure.

use std::{collections::BTreeMap, net::SocketAddr};

use super::Servers;

/// So many answers in a row bring a silent server back: one that is overloaded answers now and then.
const BACK: u32 = 2;

/// What is known of the servers.
#[derive(Debug, Default)]
pub(super) struct Health {
    servers: BTreeMap<SocketAddr, State>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Answers,
    /// With so many answers since.
    Silent(u32),
}

impl Health {
    /// Takes in whether each server answered. These are all there are; one that is new is ready by its kubelet's word, and one
    /// unanswered question is enough against it.
    pub(super) fn note(&mut self, answered: impl IntoIterator<Item = (SocketAddr, bool)>) {
        let before = std::mem::take(&mut self.servers);
        self.servers = answered
            .into_iter()
            .map(|(server, answered)| {
                let state = before.get(&server).copied().unwrap_or(State::Answers);
                (server, state.then(answered))
            })
            .collect();
    }

    /// Those that do not answer.
    pub(super) fn silent(&self) -> Servers {
        self.servers
            .iter()
            .filter(|(_, state)| **state != State::Answers)
            .map(|(server, _)| *server)
            .collect()
    }
}

impl State {
    const fn then(self, answered: bool) -> Self {
        match (self, answered) {
            (_, false) => Self::Silent(0),
            (Self::Answers, true) => Self::Answers,
            (Self::Silent(answers), true) if answers + 1 >= BACK => Self::Answers,
            (Self::Silent(answers), true) => Self::Silent(answers + 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    #[test]
    fn one_question_without_an_answer_is_enough_and_two_answers_bring_back() {
        let mut health = Health::default();
        let mut seen = Vec::new();
        for answered in [true, false, true, false, true, true, true] {
            health.note([(server(1), answered), (server(2), true)]);
            seen.push(!health.silent().contains(&server(1)));
            assert!(!health.silent().contains(&server(2)), "each is judged alone");
        }
        assert_eq!(seen, [true, false, false, false, false, true, true]);
    }

    #[test]
    fn a_server_that_is_gone_is_forgotten() {
        let mut health = Health::default();
        health.note([(server(1), false)]);
        health.note([]);
        assert!(health.silent().is_empty());
        health.note([(server(1), true)]);
        assert!(health.silent().is_empty(), "it is a new one, perhaps of another pod");
    }
}
