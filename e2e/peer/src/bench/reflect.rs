//! A name server that costs nothing: each question comes back as its own answer, unread. What is slow about that is the machine.

use std::net::UdpSocket;

use crate::Result;
use crate::flags::Flags;

/// Of a message's third byte (RFC 1035, 4.1.1).
const RESPONSE: u8 = 0x80;

/// Until the process is ended.
pub(crate) fn run(flags: &Flags) -> Result<bool> {
    let port: u16 = flags.get("port", 5300)?;
    let socket = UdpSocket::bind(("127.0.0.1", port)).map_err(|error| format!("UDP port {port}: {error}"))?;
    loop {
        one(&socket);
    }
}

fn one(socket: &UdpSocket) {
    let mut buffer = [0; 1500];
    // A client that has gone away is its own business.
    let Ok((length, client)) = socket.recv_from(&mut buffer) else { return };
    if let Some([_, _, flags, ..]) = buffer.get_mut(..length) {
        *flags |= RESPONSE;
        drop(socket.send_to(buffer.get(..length).unwrap_or_default(), client));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_comes_back_as_a_response() {
        let [server, client] = [0, 1].map(|_| UdpSocket::bind("127.0.0.1:0").unwrap());
        client.send_to(&[7, 8, 0x01, 0, 9], server.local_addr().unwrap()).unwrap();
        one(&server);
        let mut answer = [0; 8];
        assert_eq!(client.recv(&mut answer).unwrap(), 5);
        assert_eq!(answer[..5], [7, 8, 0x81, 0, 9]);
    }
}
