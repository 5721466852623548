//! Questions for the server's own status (opcode 2, RFC 1035 section 4.1.1), which concern no name: the node's agent asks once a second
//! whether its server answers. They are answered before anything else, are not counted, and the reply is as long as the question.

use crate::wire::HEADER;

/// A header's third byte but for its last three bits: answer or question, and the opcode.
const KIND: u8 = 0xf8;
const ANSWER: u8 = 0x80;
const STATUS: u8 = 2 << 3;

/// The reply to a question for the status: a header alone, without counts.
pub(crate) fn answer(packet: &[u8]) -> Option<[u8; HEADER]> {
    let [first, second, kind, _, counts @ ..] = packet else { return None };
    let asks = packet.len() == HEADER && kind & KIND == STATUS && counts.iter().all(|count| *count == 0);
    asks.then(|| {
        let mut reply = [0; HEADER];
        reply[..3].copy_from_slice(&[*first, *second, STATUS | ANSWER]);
        reply
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_question_for_the_status_is_answered_with_its_number() {
        let reply = answer(&[0x12, 0x34, STATUS, 0, 0, 0, 0, 0, 0, 0, 0, 0]).expect("an answer");
        assert_eq!(reply, [0x12, 0x34, 0x90, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(answer(&reply), None, "an answer is not answered: it would go round in circles");
    }

    #[test]
    fn all_else_is_left_to_others() {
        let bare = |kind: u8| [0, 1, kind, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        for kind in [0, 1 << 3, 4 << 3, 5 << 3] {
            assert_eq!(answer(&bare(kind)), None, "opcode {}", kind >> 3);
        }
        let mut with_question = bare(STATUS);
        with_question[5] = 1;
        assert_eq!(answer(&with_question), None);
        assert_eq!(answer(&bare(STATUS)[..HEADER - 1]), None, "cut off");
        assert_eq!(answer(&[&bare(STATUS)[..], &[0]].concat()), None, "with something behind");
        assert_eq!(answer(&[]), None);
    }
}
