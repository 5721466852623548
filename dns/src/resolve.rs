//! What rules and zone make of a question, and what becomes of an upstream resolver's answer. Values in, values out.

use std::net::IpAddr;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Name, Record, RecordType};
use rand::seq::SliceRandom;

use crate::answer::{self, Answer, answer_within};
use crate::message::Question;
use crate::metrics::By;
use crate::rules::{Impossible, Rewritten, Rules, Told, Verdict};
use crate::search;
use crate::zone::Zone;

/// How many aliases are followed within the cluster before a chain counts as endless.
const ALIASES: usize = 8;

/// The answer, authority and additional records of an answer.
pub(crate) type Sections = [Vec<Record>; 3];

/// What rules and zone make of a question.
#[derive(Debug)]
pub(crate) enum Resolved {
    /// The whole answer: whose it is, its code and its records.
    Own(By, ResponseCode, Sections),
    /// It needs an upstream resolver.
    Ask(Ask),
    /// No answer.
    Nothing,
}

/// What an upstream resolver is asked, and what its answer is held against.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    /// CNAME records that led to the name to ask for.
    pub(crate) aliases: Vec<Record>,
    pub(crate) name: Name,
    /// Set where a rewrite made `name` of the one that was asked for: whether answers carry that one.
    back: Option<bool>,
    /// What is said if `name`, which the client did not ask for, does not exist.
    denied: Option<Sections>,
}

impl Resolved {
    /// The same after a rewrite of `asked`: where answers carry that name, it takes the place of the other one.
    fn rewritten(self, to: &Rewritten, asked: &Name) -> Self {
        let restored = |mut records: Vec<Record>| {
            if to.back {
                restore(&mut records, &to.name, asked);
            }
            records
        };
        match self {
            Self::Own(by, code, sections) => Self::Own(by, code, sections.map(restored)),
            Self::Ask(ask) => Self::Ask(Ask { aliases: restored(ask.aliases), back: Some(to.back), ..ask }),
            Self::Nothing => Self::Nothing,
        }
    }
}

/// Puts the name that was asked for in the place of the one that was asked for instead.
fn restore(records: &mut [Record], from: &Name, to: &Name) {
    records.iter_mut().filter(|record| record.name == *from).for_each(|record| record.name.clone_from(to));
}

/// Answers from rules and zone, for the name that a rewrite makes of the one that is asked for. With `searches` a name that there is not
/// is looked for along the client's search list.
pub(crate) fn resolve(
    zone: &Zone,
    rules: &Rules,
    question: &Question,
    (client, searches): (IpAddr, bool),
) -> Resolved {
    let Question { name, rtype, .. } = question;
    if let Some(denied) = denied(rules.verdict(client, name, *rtype), vec![]) {
        return denied;
    }
    let to = |name: &Name| follow_aliases(zone, rules, name.clone(), (question, client));
    match rules.rewrite(name) {
        Some(Ok(rewritten)) => to(&rewritten.name).rewritten(&rewritten, name),
        Some(Err(Impossible)) => failure(By::Rewrite, ResponseCode::ServFail),
        None => match to(name) {
            Resolved::Own(By::Zone, ResponseCode::NXDomain, sections) if searches => {
                search(zone, rules, question, (client, sections))
            }
            resolved => resolved,
        },
    }
}

/// Answers a question for a name that there is not, `denied` so, with the next name of the client's search list that there is. It is an alias
/// then, as in CoreDNS. The last name is not the zone's to know: if it turns out not to exist, `denied` is the answer.
fn search(zone: &Zone, rules: &Rules, question: &Question, (client, absent): (IpAddr, Sections)) -> Resolved {
    let Question { name: asked, rtype, .. } = question;
    if !absent[0].is_empty() {
        return Resolved::Own(By::Zone, ResponseCode::NXDomain, absent); // an alias that leads nowhere is there
    }
    for name in search::names(zone, client, asked) {
        let alias = answer::alias(zone, asked, &name);
        if let Some(denied) = denied(rules.verdict(client, &name, *rtype), vec![alias.clone()]) {
            return denied;
        }
        match follow_aliases(zone, rules, name, (question, client)) {
            Resolved::Own(_, ResponseCode::NXDomain, [answers, ..]) if answers.is_empty() => {}
            Resolved::Own(by, code, [answers, authorities, additionals]) => {
                let failed = matches!(code, ResponseCode::ServFail | ResponseCode::Refused);
                let answers = if failed { vec![] } else { [vec![alias], answers].concat() };
                return Resolved::Own(by, code, [answers, authorities, additionals]);
            }
            Resolved::Ask(ask) => {
                let denied = ask.aliases.is_empty().then_some(absent);
                return Resolved::Ask(Ask { aliases: [vec![alias], ask.aliases].concat(), denied, ..ask });
            }
            Resolved::Nothing => return Resolved::Nothing,
        }
    }
    Resolved::Own(By::Zone, ResponseCode::NXDomain, absent)
}

/// What the ACL makes of a question that it does not allow, with the aliases up to there.
fn denied(verdict: Verdict, aliases: Vec<Record>) -> Option<Resolved> {
    match verdict {
        Verdict::Allow => None,
        Verdict::Block => Some(failure(By::Acl, ResponseCode::Refused)),
        Verdict::Filter => Some(Resolved::Own(By::Acl, ResponseCode::NoError, [aliases, vec![], vec![]])),
        Verdict::Drop => Some(Resolved::Nothing),
    }
}

fn failure(by: By, code: ResponseCode) -> Resolved {
    Resolved::Own(by, code, [vec![], vec![], vec![]])
}

/// Answers from rules and zone, following aliases as far as they stay in them. Who may not ask for a name is not led to it by an alias.
fn follow_aliases(
    zone: &Zone,
    rules: &Rules,
    mut name: Name,
    (question, client): (&Question, IpAddr),
) -> Resolved {
    let (mut aliases, rtype) = (vec![], question.rtype);
    while aliases.len() < ALIASES {
        let (by, answer) = match rules.answer(zone, &name, rtype) {
            Some(Told { by, answer: Ok(answer) }) => (by, answer),
            Some(Told { by, answer: Err(code) }) => return failure(by, code),
            None => (By::Zone, answer_within(zone, &name, rtype, question.most())),
        };
        match answer {
            Answer::Records { mut answers, additionals } => {
                if matches!(rtype, RecordType::A | RecordType::AAAA) {
                    answers.shuffle(&mut rand::rng()); // clients tend to take the first
                }
                aliases.extend(answers);
                return Resolved::Own(by, ResponseCode::NoError, [aliases, vec![], additionals]);
            }
            Answer::Alias { cname, target } => {
                aliases.push(cname);
                if matches!(rtype, RecordType::CNAME | RecordType::ANY) {
                    return Resolved::Own(by, ResponseCode::NoError, [aliases, vec![], vec![]]);
                }
                name = target;
                if let Some(denied) = denied(rules.verdict(client, &name, rtype), aliases.clone()) {
                    return denied;
                }
            }
            Answer::NoData(soa) => {
                return Resolved::Own(by, ResponseCode::NoError, [aliases, vec![soa], vec![]]);
            }
            Answer::NxDomain(soa) => {
                return Resolved::Own(by, ResponseCode::NXDomain, [aliases, vec![soa], vec![]]);
            }
            Answer::Refused => return failure(by, ResponseCode::Refused),
            Answer::Failure => return failure(by, ResponseCode::ServFail),
            Answer::Forward => return Resolved::Ask(Ask { aliases, name, back: None, denied: None }),
        }
    }
    failure(By::Zone, ResponseCode::ServFail)
}

/// The client's reply, made of that of an upstream resolver to what was asked.
pub(crate) fn conclude(question: &Question, ask: Ask, reply: Vec<u8>) -> (ResponseCode, Vec<u8>) {
    let Ask { aliases, name, back, denied } = ask;
    match back {
        _ if !aliases.is_empty() => follow(question, (aliases, denied), &reply),
        None => (ResponseCode::from(0, reply.get(3).map_or(2, |byte| byte & 0x0f)), question.relay(reply)),
        Some(back) => {
            let Ok(mut reply) = Message::from_vec(&reply) else {
                return (ResponseCode::ServFail, question.error(ResponseCode::ServFail));
            };
            if back {
                restore(&mut reply.answers, &name, &question.name);
                restore(&mut reply.authorities, &name, &question.name);
            }
            let code = reply.metadata.response_code;
            (code, question.reply(code, false, [reply.answers, reply.authorities, reply.additionals]))
        }
    }
}

/// The answer to a question whose `aliases` lead to a name that an upstream resolver has answered for; `denied` if there is no such name.
fn follow(
    question: &Question,
    (mut aliases, denied): (Vec<Record>, Option<Sections>),
    reply: &[u8],
) -> (ResponseCode, Vec<u8>) {
    let Ok(reply) = Message::from_vec(reply) else {
        return (ResponseCode::ServFail, question.error(ResponseCode::ServFail));
    };
    let code = reply.metadata.response_code;
    if !matches!(code, ResponseCode::NoError | ResponseCode::NXDomain) {
        return (ResponseCode::ServFail, question.error(ResponseCode::ServFail));
    }
    if let Some(denied) = denied.filter(|_| code == ResponseCode::NXDomain && reply.answers.is_empty()) {
        return (code, question.reply(code, true, denied));
    }
    aliases.extend(reply.answers);
    // Authoritative for the first owner name, which is the alias (RFC 1035 section 4.1.1).
    (code, question.reply(code, true, [aliases, reply.authorities, vec![]]))
}
