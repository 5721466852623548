use super::*;
use crate::policies::OPEN;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];
const POD: Address = Address::v4([10, 244, 0, 7]);

fn head(ethertype: [u8; 2], first: u8) -> Head {
    let mut head = [0; IPV4_LEN];
    head[6..12].copy_from_slice(&MAC);
    head[12..14].copy_from_slice(&ethertype);
    head[14] = first;
    head[18..20].copy_from_slice(&[0x12, 0x34]);
    head[23] = 17;
    head[26..30].copy_from_slice(&[10, 244, 0, 7]);
    head[30..34].copy_from_slice(&[10, 244, 1, 9]);
    head
}

fn arp() -> [u8; ARP_LEN] {
    let mut frame = [0; ARP_LEN];
    frame[6..12].copy_from_slice(&MAC);
    frame[12..14].copy_from_slice(&ETHERTYPE_ARP);
    frame[14..20].copy_from_slice(&[0, 1, 8, 0, 6, 4]);
    frame[22..28].copy_from_slice(&MAC);
    frame[28..32].copy_from_slice(&[10, 244, 0, 7]);
    frame
}

#[test]
fn an_ipv4_packet_is_read() {
    let wanted = Ip {
        source_mac: MAC,
        source: POD,
        destination: Address::v4([10, 244, 1, 9]),
        protocol: 17,
        payload: 34,
        id: 0x1234_1234_u32.to_be(),
        part: Part::Whole,
    };
    assert_eq!(ipv4(&head(ETHERTYPE_IPV4, 0x45)), Ok(wanted));
    let with_options = Ip { payload: 74, ..wanted };
    assert_eq!(ipv4(&head(ETHERTYPE_IPV4, 0x4f)), Ok(with_options));
}

#[test]
fn fragments_are_told_apart() {
    const DONT_FRAGMENT: u16 = 0x4000;
    for (word, part) in [
        (0, Part::Whole),
        (DONT_FRAGMENT, Part::Whole),
        (0x2000, Part::First),
        (0x2001, Part::Second),
        (1, Part::Second),
        (0x2002, Part::Later),
        (0x1fff, Part::Later),
    ] {
        let mut head = head(ETHERTYPE_IPV4, 0x45);
        head[20..22].copy_from_slice(&u16::to_be_bytes(word));
        assert_eq!(ipv4(&head).unwrap().part, part, "{word:#06x}");
    }
}

#[test]
fn a_header_that_is_not_one_is_malformed() {
    assert_eq!(ipv4(&head(ETHERTYPE_IPV4, 0x44)), Err(Reason::Malformed));
    assert_eq!(ipv4(&head(ETHERTYPE_IPV4, 0x65)), Err(Reason::Malformed));
}

#[test]
fn protocols_are_told_apart() {
    for (ethertype, expected) in [
        (ETHERTYPE_IPV4, Ok(Packet::Ipv4)),
        (ETHERTYPE_IPV6, Ok(Packet::Ipv6)),
        (ETHERTYPE_ARP, Ok(Packet::Arp)),
        ([0x88, 0xcc], Err(Reason::UnknownProtocol)),
    ] {
        assert_eq!(kind(head(ethertype, 0x45).first_chunk().unwrap()), expected);
    }
}

#[test]
fn a_pod_sends_only_as_itself() {
    let packet = ipv4(&head(ETHERTYPE_IPV4, 0x45)).unwrap();
    assert!(is_from(&packet, &Link::new(POD, MAC, OPEN)));
    assert!(!is_from(&packet, &Link::new(Address::v4([10, 244, 0, 8]), MAC, OPEN)));
    assert!(!is_from(&packet, &Link::new(POD, [2, 0, 0, 0, 0, 8], OPEN)));
}

#[test]
fn a_pod_asks_by_arp_only_as_itself() {
    let link = Link::new(POD, MAC, OPEN);
    assert!(arp_is_from(&arp(), &link));
    for forged in [8, 14, 24, 31] {
        let mut frame = arp();
        frame[forged] ^= 1;
        assert!(!arp_is_from(&frame, &link), "byte {forged} changed");
    }
}

#[test]
fn a_tunnel_packet_must_come_from_the_owner_of_its_source() {
    let (owner, other) = (Address::v4([172, 18, 0, 3]), Address::v4([172, 18, 0, 4]));
    assert_eq!(check_tunnel(Some(owner), owner, crate::VNI), Ok(()));
    assert_eq!(check_tunnel(Some(owner), other, crate::VNI), Err(Reason::ForgedTunnel));
    assert_eq!(check_tunnel(Some(owner), owner, crate::VNI + 1), Err(Reason::ForgedTunnel));
    assert_eq!(check_tunnel(None, owner, crate::VNI), Err(Reason::UnknownSource));
}
