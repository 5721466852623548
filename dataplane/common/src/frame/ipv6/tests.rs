use super::*;

const POD: [u8; 16] = [0xfd, 0, 0, 0x10, 2, 0x44, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
const UDP: u8 = 17;

fn head(next: u8) -> Head {
    let mut head = [0; IPV6_LEN];
    head[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 7]);
    head[12..14].copy_from_slice(&[0x86, 0xdd]);
    head[14] = 0x60;
    head[20] = next;
    head[22..38].copy_from_slice(&POD);
    head[38..54].copy_from_slice(&[0x20; 16]);
    head
}

/// The bytes of an extension header: what follows, and its own length in units of 8 bytes less one.
fn options(next: u8, length: u8) -> [u8; 8] {
    [next, length, 0, 0, 0, 0, 0, 0]
}

fn fragment(next: u8, offset: u16, more: bool) -> [u8; 8] {
    let [high, low] = (offset << 3 | u16::from(more)).to_be_bytes();
    [next, 0, high, low, 1, 2, 3, 4]
}

/// Walks as the kernel program does.
fn walk(next: u8, headers: &[[u8; 8]]) -> Result<Walk, Reason> {
    let mut walk = Walk::new(next, IPV6_LEN);
    for header in headers.iter().take(EXTENSIONS) {
        if walk.is_done() {
            return Ok(walk);
        }
        walk = walk.step(header)?;
    }
    if walk.is_done() { Ok(walk) } else { Err(Reason::ExtensionHeader) }
}

#[test]
fn an_ipv6_packet_is_read() {
    let packet = parse(&head(UDP)).unwrap();
    assert_eq!((packet.source, packet.destination), (Address(POD), Address([0x20; 16])));
    assert_eq!((packet.protocol, packet.payload, packet.part), (UDP, IPV6_LEN, Part::Whole));
    assert_eq!(packet.source_mac, [2, 0, 0, 0, 0, 7]);
}

#[test]
fn a_header_of_another_version_or_with_a_mapped_address_is_malformed() {
    let mut other = head(UDP);
    other[14] = 0x45;
    let mapped = Address::v4([10, 0, 0, 1]).0;
    let (mut from, mut to) = (head(UDP), head(UDP));
    from[22..38].copy_from_slice(&mapped);
    to[38..54].copy_from_slice(&mapped);
    for head in [other, from, to] {
        assert_eq!(parse(&head), Err(Reason::Malformed));
    }
}

#[test]
fn options_are_passed_over_and_fragments_read() {
    for (story, next, headers, wanted) in [
        ("none", UDP, &[][..], (UDP, 54, Part::Whole)),
        ("options for all", 0, &[options(UDP, 0)], (UDP, 62, Part::Whole)),
        ("long ones", 60, &[options(UDP, 3)], (UDP, 86, Part::Whole)),
        ("both", 0, &[options(60, 0), options(6, 1)], (6, 78, Part::Whole)),
        ("nothing behind", 0, &[options(59, 0)], (59, 62, Part::Whole)),
        ("encrypted", 0, &[options(50, 0)], (50, 62, Part::Whole)),
        ("a fragment that is whole", 44, &[fragment(UDP, 0, false)], (UDP, 62, Part::Whole)),
        ("a first one", 0, &[options(44, 0), fragment(UDP, 0, true)], (UDP, 70, Part::First)),
        ("the second one", 44, &[fragment(6, 1, true)], (6, 62, Part::Second)),
        ("a later one", 44, &[fragment(UDP, 100, false)], (UDP, 62, Part::Later)),
    ] {
        let Walk { next, at, part, .. } = walk(next, headers).unwrap();
        assert_eq!((next, at, part), wanted, "{story}");
    }
    let walked = walk(44, &[fragment(UDP, 100, false)]).unwrap();
    assert_eq!(walked.id.to_ne_bytes(), [1, 2, 3, 4]);
    let packet = walked.packet(&parse(&head(44)).unwrap());
    assert_eq!((packet.protocol, packet.payload, packet.part), (UDP, 62, Part::Later));
}

#[test]
fn what_is_not_known_is_not_passed_over() {
    for (story, next, headers) in [
        ("a route", 43, &[options(UDP, 0)][..]),
        ("a route behind options", 0, &[options(43, 0), options(UDP, 2)]),
        ("mobility", 135, &[options(UDP, 0)]),
        ("an experiment", 253, &[options(UDP, 0)]),
        ("two fragments", 44, &[fragment(44, 0, false), fragment(UDP, 0, true)]),
        ("options behind a first fragment", 44, &[fragment(60, 0, true), options(UDP, 0)]),
        ("options in a later fragment", 44, &[fragment(60, 100, false), options(UDP, 0)]),
        ("too many", 60, &[options(60, 0); 9]),
        ("too long", 60, &[options(60, 255); 4]),
    ] {
        assert_eq!(walk(next, headers), Err(Reason::ExtensionHeader), "{story}");
    }
}

#[test]
fn a_walk_fits_into_a_word() {
    for part in [Part::Whole, Part::First, Part::Later, Part::Second] {
        for (next, at, id) in [(0, IPV6_LEN, 0), (255, LONGEST, u32::MAX), (17, 62, 0x0102_0304)] {
            let walk = Walk { next, at, id, part };
            assert_eq!(Walk::from_word(walk.to_word()), walk);
            assert_ne!(walk.to_word(), 0);
        }
    }
}
