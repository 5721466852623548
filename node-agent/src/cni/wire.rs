//! Messages over the agent's socket, with descriptors beside the first byte (`SCM_RIGHTS`). Blocking; the caller sets
//! the socket's time limits. With those a process that is stopped and goes on sees EINTR (signal(7)), which ends nothing here.
#![expect(unsafe_code, reason = "a received descriptor is a bare number until somebody owns it")]

use std::{
    io::{self, IoSlice, IoSliceMut, Read, Write},
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
};

use nix::{
    cmsg_space,
    errno::Errno,
    sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg},
};

use super::protocol::LIMIT;

/// Sends one message; the descriptors travel with it and stay the sender's own as well.
///
/// # Errors
/// When the other side is gone or takes too long.
pub fn send(mut stream: &UnixStream, message: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let length = u32::try_from(message.len()).map_err(io::Error::other)?;
    let bytes = [&length.to_be_bytes(), message].concat();
    let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let control = if raw.is_empty() { vec![] } else { vec![ControlMessage::ScmRights(&raw)] };
    let slices = [IoSlice::new(&bytes)];
    let flags = MsgFlags::MSG_NOSIGNAL;
    let sent = loop {
        match sendmsg::<()>(stream.as_raw_fd(), &slices, &control, flags, None) {
            Err(Errno::EINTR) => {}
            sent => break sent?,
        }
    };
    stream.write_all(&bytes[sent..])
}

/// Receives one message and the descriptors that came with it.
///
/// # Errors
/// `UnexpectedEof` when the other side went away before it had said all.
pub fn receive(mut stream: &UnixStream) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut first = [0; 4096];
    let (got, descriptors) = receive_first(stream, &mut first)?;
    if got == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut bytes = first[..got].to_vec();
    if got < 4 {
        bytes.resize(4, 0);
        stream.read_exact(&mut bytes[got..])?;
    }
    let length = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
    if length > LIMIT {
        return Err(io::Error::other(format!(
            "a message of {length} bytes is larger than the limit of {LIMIT}"
        )));
    }
    let have = bytes.len() - 4;
    if have > length {
        return Err(io::Error::other("more than one message was sent"));
    }
    bytes.resize(4 + length, 0);
    stream.read_exact(&mut bytes[4 + have..])?;
    Ok((bytes.split_off(4), descriptors))
}

fn receive_first(stream: &UnixStream, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut control = cmsg_space!([RawFd; 2]);
    let mut slices = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let received = match recvmsg::<()>(stream.as_raw_fd(), &mut slices, Some(&mut control), flags) {
        Err(Errno::EINTR) => return receive_first(stream, buffer),
        received => received?,
    };
    let mut descriptors = Vec::new();
    for message in received.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = message {
            // SAFETY: the kernel has just made these descriptors for this process; nothing else knows their numbers.
            descriptors.extend(raw.into_iter().map(|raw| unsafe { OwnedFd::from_raw_fd(raw) }));
        }
    }
    Ok((received.bytes, descriptors))
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        os::{fd::AsFd, unix::thread::JoinHandleExt},
        thread,
        time::Duration,
    };

    use nix::{
        libc,
        sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction},
    };

    use super::*;

    #[test]
    fn a_large_message_and_its_descriptors_arrive() {
        let (left, right) = UnixStream::pair().unwrap();
        let message = vec![7; 300_000];
        let sender = {
            let message = message.clone();
            thread::spawn(move || {
                let file = File::open("/proc/self/comm").unwrap();
                send(&left, &message, &[file.as_fd(), file.as_fd()]).unwrap();
            })
        };
        let (received, descriptors) = receive(&right).unwrap();
        sender.join().unwrap();
        assert_eq!(received, message);
        let mut text = String::new();
        File::from(descriptors.into_iter().next_back().unwrap()).read_to_string(&mut text).unwrap();
        assert!(!text.is_empty());
    }

    #[test]
    fn a_peer_that_leaves_is_told_apart_from_an_empty_message() {
        let (left, right) = UnixStream::pair().unwrap();
        send(&left, b"", &[]).unwrap();
        assert!(receive(&right).unwrap().0.is_empty());
        drop(left);
        assert_eq!(receive(&right).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    fn ignore_the_signal() {
        extern "C" fn nothing(_: i32) {}
        let action = SigAction::new(SigHandler::Handler(nothing), SaFlags::empty(), SigSet::empty());
        // SAFETY: the handler does nothing.
        unsafe { sigaction(Signal::SIGUSR2, &action) }.unwrap();
    }

    /// What waits in the thread ends with EINTR, as after SIGSTOP and SIGCONT.
    fn stop_for_a_moment<T>(waiting: &thread::JoinHandle<T>) {
        thread::sleep(Duration::from_millis(50));
        // SAFETY: the thread has not been joined yet.
        unsafe { libc::pthread_kill(waiting.as_pthread_t(), libc::SIGUSR2) };
        thread::sleep(Duration::from_millis(50));
    }

    #[test]
    fn a_process_that_is_stopped_and_goes_on_still_gets_its_message() {
        ignore_the_signal();
        let (mut left, right) = UnixStream::pair().unwrap();
        right.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let receiver = thread::spawn(move || receive(&right));
        for bytes in [[0, 0].as_slice(), &[0, 2, 7], &[8]] {
            stop_for_a_moment(&receiver);
            left.write_all(bytes).unwrap();
        }
        assert_eq!(receiver.join().unwrap().unwrap().0, [7, 8]);
    }

    #[test]
    fn a_process_that_is_stopped_and_goes_on_still_says_its_message() {
        let (left, mut right) = UnixStream::pair().unwrap();
        left.set_nonblocking(true).unwrap();
        let mut filler = 0;
        while let Ok(written) = (&left).write(&[0; 4096]) {
            filler += written;
        }
        left.set_nonblocking(false).unwrap();
        left.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
        ignore_the_signal();
        let sender = thread::spawn(move || send(&left, b"said", &[]));
        stop_for_a_moment(&sender);
        right.read_exact(&mut vec![0; filler]).unwrap();
        assert_eq!(receive(&right).unwrap().0, b"said");
        sender.join().unwrap().unwrap();
    }

    #[test]
    fn an_absurd_length_is_refused() {
        let (mut left, right) = UnixStream::pair().unwrap();
        left.write_all(&u32::MAX.to_be_bytes()).unwrap();
        assert!(receive(&right).unwrap_err().to_string().contains("limit"));
    }
}
