//! The queue that keeps a limit on the rate of what a link sends: `tbf` (`CONFIG_NET_SCH_TBF`) as its root, instead of none. It is
//! beside `clsact`, whose programs see a packet first.

use rtnetlink::{
    packet_core::DefaultNla,
    packet_route::{
        RouteNetlinkMessage,
        tc::{TcAttribute, TcHandle, TcMessage, TcOption},
    },
};

use super::{
    Error,
    attribute::{put as put_attribute, within},
    netlink::{Change, Rtnetlink},
};
use crate::bandwidth::Bucket;

/// Name of the queueing discipline.
pub const KIND: &str = "tbf";

/// How the step is named.
const STEP: &str = "limit ";

/// Of `rtnetlink.h`.
const TCA_OPTIONS: u16 = 2;
/// Of `pkt_sched.h`; numbers are in host byte order.
const TCA_TBF_PARMS: u16 = 1;
const TCA_TBF_RATE64: u16 = 4;
const TCA_TBF_BURST: u16 = 6;
const TC_LINKLAYER_ETHERNET: u8 = 1;
/// Where `struct tc_tbf_qopt` has its numbers: the rate ends the first `tc_ratespec`, the limit comes after the second.
const QOPT_LEN: usize = 36;
const LINKLAYER: usize = 1;
const RATE: usize = 8;
const LIMIT: usize = 24;

/// What a queue that is there says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Bytes per second.
    pub rate: u64,
    /// Bytes that wait at most; it follows from rate and burst, but at low rates, where it is the floor.
    pub limit: u32,
}

impl Held {
    /// Whether it is this bucket.
    #[must_use]
    pub const fn is(&self, bucket: &Bucket) -> bool {
        self.rate == bucket.rate && self.limit == bucket.limit
    }
}

/// Gives the link with this index the queue, whatever it has, and limits `what` by it.
#[must_use]
pub fn put(what: &str, index: u32, bucket: &Bucket) -> Change {
    let mut message = root(index);
    let options = TcAttribute::Other(DefaultNla::new(TCA_OPTIONS, options(bucket)));
    message.attributes = vec![TcAttribute::Kind(KIND.to_owned()), options];
    Change::put(format!("{STEP}{what}"), RouteNetlinkMessage::NewQueueDiscipline(message))
}

/// Whether the kernel refused [`put`] because it does not know the kind: `ENOENT`.
#[must_use]
pub fn is_unknown(error: &Error) -> bool {
    let is_ours = matches!(error, Error::Refused { what, .. } if what.starts_with(STEP));
    is_ours && error.errno() == Some(nix::libc::ENOENT)
}

/// The queue of the link with this index; `None` when it has another or none, or is gone.
///
/// # Errors
/// What the kernel says.
pub fn held(socket: &mut Rtnetlink, index: u32) -> Result<Option<Held>, Error> {
    let question = RouteNetlinkMessage::GetQueueDiscipline(root(index));
    match socket.get(&format!("look for the queue of link {index}"), question) {
        Ok(answer) => Ok(read(&answer)),
        // The kernel says nothing of what it gives to a link that is down.
        Err(Error::Answer { .. }) => Ok(None),
        Err(error) if matches!(error.errno(), Some(nix::libc::ENOENT | nix::libc::ENODEV)) => Ok(None),
        Err(error) => Err(error),
    }
}

fn root(index: u32) -> TcMessage {
    let mut message = TcMessage::with_index(index.cast_signed());
    message.header.parent = TcHandle::ROOT;
    message
}

/// With `TCA_TBF_BURST`, and the link layer said, the kernel computes everything else by itself, from the whole of the rate.
fn options(bucket: &Bucket) -> Vec<u8> {
    let mut parameters = [0; QOPT_LEN];
    parameters[LINKLAYER] = TC_LINKLAYER_ETHERNET;
    let short = u32::try_from(bucket.rate).unwrap_or(u32::MAX);
    parameters[RATE..RATE + 4].copy_from_slice(&short.to_ne_bytes());
    parameters[LIMIT..LIMIT + 4].copy_from_slice(&bucket.limit.to_ne_bytes());
    let mut bytes = Vec::new();
    put_attribute(&mut bytes, TCA_TBF_PARMS, &parameters);
    put_attribute(&mut bytes, TCA_TBF_RATE64, &bucket.rate.to_ne_bytes());
    put_attribute(&mut bytes, TCA_TBF_BURST, &bucket.burst.to_ne_bytes());
    bytes
}

fn read(message: &RouteNetlinkMessage) -> Option<Held> {
    let RouteNetlinkMessage::NewQueueDiscipline(message) = message else { return None };
    let is_ours = |attribute: &TcAttribute| matches!(attribute, TcAttribute::Kind(kind) if kind == KIND);
    let options = message.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Options(options) => options.first(),
        _ => None,
    });
    match options {
        Some(TcOption::Other(options)) if message.attributes.iter().any(is_ours) => read_options(options),
        _ => None,
    }
}

fn read_options(options: &DefaultNla) -> Option<Held> {
    use rtnetlink::packet_core::Nla as _;
    let mut bytes = vec![0; options.value_len()];
    options.emit_value(&mut bytes);
    let parameters = within(&bytes, TCA_TBF_PARMS)?;
    let number = |at: usize| Some(u32::from_ne_bytes(*parameters.get(at..)?.first_chunk()?));
    let long =
        within(&bytes, TCA_TBF_RATE64).and_then(|value| Some(u64::from_ne_bytes(*value.first_chunk()?)));
    Some(Held { rate: long.unwrap_or(number(RATE)?.into()), limit: number(LIMIT)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_written_as_the_kernel_reads_it() {
        let bytes = options(&Bucket { rate: 0x0102_0304, burst: 0x0a0b, limit: 0x0c0d_0e0f });
        let mut wanted = [40, 0, 1, 0].to_vec();
        wanted.extend([0, 1, 0, 0, 0, 0, 0, 0, 4, 3, 2, 1]); // tc_ratespec
        wanted.extend([0; 12]); // no peak rate
        wanted.extend([0x0f, 0x0e, 0x0d, 0x0c, 0, 0, 0, 0, 0, 0, 0, 0]); // limit, buffer, mtu
        wanted.extend([12, 0, 4, 0, 4, 3, 2, 1, 0, 0, 0, 0]);
        wanted.extend([8, 0, 6, 0, 0x0b, 0x0a, 0, 0]);
        assert_eq!(bytes, wanted);
    }

    #[test]
    fn a_rate_above_34_gbit_is_told_in_64_bits_and_read_back() {
        for rate in [125, u64::from(u32::MAX), 1 << 32, 125_000_000_000_000] {
            let bucket = Bucket { rate, burst: 3000, limit: 48_000 };
            let held = read_options(&DefaultNla::new(TCA_OPTIONS, options(&bucket))).unwrap();
            assert!(held.is(&bucket), "{held:?}");
            assert!(
                !held.is(&Bucket { rate: rate + 1, ..bucket }) && !held.is(&Bucket { limit: 1, ..bucket })
            );
        }
    }

    #[test]
    fn another_queue_and_half_of_one_are_none_of_ours() {
        let bucket = Bucket { rate: 125, burst: 3000, limit: 48_000 };
        for length in [0, 3, 8, 39] {
            let bytes = options(&bucket)[..length].to_vec();
            assert_eq!(read_options(&DefaultNla::new(TCA_OPTIONS, bytes)), None, "{length}");
        }
        let mut message = root(7);
        let other = TcOption::Other(DefaultNla::new(TCA_OPTIONS, options(&bucket)));
        message.attributes = vec![TcAttribute::Kind("fq".to_owned()), TcAttribute::Options(vec![other])];
        assert_eq!(read(&RouteNetlinkMessage::NewQueueDiscipline(message)), None);
    }
}
