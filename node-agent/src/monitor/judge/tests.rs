use std::net::Ipv4Addr;

use proptest::prelude::*;
use rtnetlink::{RouteMessageBuilder, packet_route::address::AddressAttribute};

use super::*;

const OVERLAY: u32 = 5;
const POD: u32 = 6;
const UPLINK: u32 = 2;

fn notice(message: RouteNetlinkMessage) -> Notice {
    Notice::Route { message: Box::new(message), replaces: false }
}

fn link_message(index: u32, name: &str, up: bool, mtu: u32) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
    link.attributes = vec![LinkAttribute::IfName(name.to_owned()), LinkAttribute::Mtu(mtu)];
    link
}

fn link(index: u32, name: &str, up: bool, mtu: u32) -> Notice {
    notice(RouteNetlinkMessage::NewLink(link_message(index, name, up, mtu)))
}

fn gone(index: u32) -> Notice {
    notice(RouteNetlinkMessage::DelLink(link_message(index, "", false, 0)))
}

fn address_message(index: u32) -> AddressMessage {
    let mut address = AddressMessage::default();
    address.header.index = index;
    address.attributes = vec![AddressAttribute::Local(Ipv4Addr::new(192, 0, 2, 1).into())];
    address
}

fn route_message(protocol: u8, prefix: u8) -> RouteMessage {
    RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(Ipv4Addr::new(10, 244, 2, 0), prefix)
        .protocol(RouteProtocol::Other(protocol))
        .build()
}

fn new_route(protocol: u8, prefix: u8, replaces: bool) -> Notice {
    let message = Box::new(RouteNetlinkMessage::NewRoute(route_message(protocol, prefix)));
    Notice::Route { message, replaces }
}

fn route_gone(protocol: u8, prefix: u8) -> Notice {
    notice(RouteNetlinkMessage::DelRoute(route_message(protocol, prefix)))
}

fn setting(ifindex: i32, forwarding: Option<bool>, rp_filter: Option<i32>) -> Notice {
    Notice::Setting { ifindex, forwarding, rp_filter }
}

/// A node that is up: all that the kernel told while it was set up.
fn node() -> Judge {
    Judge::of(&[
        link(UPLINK, "uplink", true, 1500),
        link(OVERLAY, overlay::DEVICE, true, 1450),
        link(POD, "nk0123456789ab", true, 1450),
        notice(RouteNetlinkMessage::NewAddress(address_message(UPLINK))),
        new_route(PROTOCOL, 26, false),
        new_route(PROTOCOL, 32, false),
    ])
}

#[test]
fn what_takes_something_of_ours_stirs_its_own_part_alone() {
    let deleted_address = |index| notice(RouteNetlinkMessage::DelAddress(address_message(index)));
    let table = |name: &str| Notice::Table { name: name.to_owned() };
    for (what, notice, stirs) in [
        ("the overlay's device is deleted", gone(OVERLAY), Stir::NETWORK),
        ("it is down", link(OVERLAY, overlay::DEVICE, false, 1450), Stir::NETWORK),
        ("it has another MTU", link(OVERLAY, overlay::DEVICE, true, 1400), Stir::NETWORK),
        ("it is told again", link(OVERLAY, overlay::DEVICE, true, 1450), Stir::NONE),
        ("a pod's link is down", link(POD, "nk0123456789ab", false, 1450), Stir::ROUTES),
        ("a pod's link is told again", link(POD, "nk0123456789ab", true, 1450), Stir::NONE),
        ("a pod's link went with its namespace", gone(POD), Stir::NONE),
        ("the underlay has another MTU", link(UPLINK, "uplink", true, 1400), Stir::NETWORK),
        ("the underlay is down", link(UPLINK, "uplink", false, 1500), Stir::NETWORK),
        ("the underlay is told again", link(UPLINK, "uplink", true, 1500), Stir::NONE),
        ("a device is new", link(9, "docker0", true, 1500), Stir::NONE),
        ("somebody's device is gone", gone(UPLINK), Stir::NONE),
        ("the node's address is deleted", deleted_address(UPLINK), Stir::NETWORK | Stir::ROUTES),
        (
            "an address is told again",
            notice(RouteNetlinkMessage::NewAddress(address_message(UPLINK))),
            Stir::NONE,
        ),
        (
            "an address is new",
            notice(RouteNetlinkMessage::NewAddress(address_message(OVERLAY))),
            Stir::NETWORK | Stir::ROUTES,
        ),
        ("a pod's host side loses an address", deleted_address(POD), Stir::NONE),
        ("a route to a block is deleted", route_gone(PROTOCOL, 26), Stir::NETWORK),
        ("a route to a pod is deleted", route_gone(PROTOCOL, 32), Stir::ROUTES),
        ("somebody's route is deleted", route_gone(4, 26), Stir::NONE),
        ("a route to a block is replaced by somebody", new_route(4, 26, true), Stir::NETWORK),
        ("a route to a pod is replaced by somebody", new_route(4, 32, true), Stir::ROUTES),
        ("a route of nobody of ours is replaced", new_route(4, 24, true), Stir::NONE),
        ("somebody adds a route", new_route(4, 26, false), Stir::NONE),
        ("we replace a route", new_route(PROTOCOL, 26, true), Stir::NONE),
        ("a pod's link loses its programs", Notice::FilterGone { ifindex: POD }, Stir::PODS),
        ("somebody's link loses a filter", Notice::FilterGone { ifindex: UPLINK }, Stir::NONE),
        ("our table changes", table("netkeel"), Stir::NETWORK),
        ("another table changes", table("docker"), Stir::NONE),
        ("the node forwards no more", setting(-1, Some(false), None), Stir::NETWORK),
        ("the underlay forwards no more", setting(2, Some(false), None), Stir::NETWORK),
        ("a pod's link forwards no more", setting(6, Some(false), None), Stir::PODS),
        ("a pod's link forwards", setting(6, Some(true), None), Stir::NONE),
        ("a pod's link checks sources loosely", setting(6, None, Some(2)), Stir::PODS),
        ("the overlay checks sources strictly", setting(5, None, Some(1)), Stir::NETWORK),
        ("the overlay checks sources loosely", setting(5, None, Some(2)), Stir::NONE),
        ("devices to come do not forward", setting(-2, Some(false), None), Stir::NONE),
        ("a device that nobody knows yet", setting(9, Some(false), Some(0)), Stir::NONE),
    ] {
        assert_eq!(node().judge(&notice), stirs, "{what}");
    }
}

#[test]
fn a_port_that_leaves_a_bridge_is_no_link_that_goes() {
    let mut message = link_message(OVERLAY, overlay::DEVICE, true, 1450);
    message.header.interface_family = AddressFamily::Bridge;
    let mut judge = node();
    assert_eq!(judge.judge(&notice(RouteNetlinkMessage::DelLink(message))), Stir::NONE);
    assert_eq!(judge.judge(&gone(OVERLAY)), Stir::NETWORK, "it is known still");
}

/// Any notice about a node's devices, addresses and routes.
fn any_notice() -> impl Strategy<Value = Notice> {
    let names = [(UPLINK, "uplink"), (OVERLAY, overlay::DEVICE), (POD, "nk0123456789ab")];
    prop_oneof![
        (prop::sample::select(names.to_vec()), any::<bool>(), 1400_u32..1403)
            .prop_map(|((index, name), up, mtu)| link(index, name, up, mtu)),
        prop::sample::select(vec![UPLINK, OVERLAY, POD])
            .prop_map(|index| notice(RouteNetlinkMessage::NewAddress(address_message(index)))),
        (prop::sample::select(vec![4, PROTOCOL]), prop::sample::select(vec![24, 26, 32]), any::<bool>())
            .prop_map(|(protocol, prefix, replaces)| new_route(protocol, prefix, replaces)),
    ]
}

proptest! {
    /// What stays as it is may be told as often as the kernel likes: so no write of ours can lead to another one for ever.
    #[test]
    fn the_same_state_told_again_stirs_nothing(notices in prop::collection::vec(any_notice(), 0..40)) {
        let mut judge = Judge::of(&notices);
        for again in notices.iter().rev().take(1) {
            let taken = matches!(again, Notice::Route { replaces: true, .. });
            prop_assert!(taken || judge.judge(again) == Stir::NONE, "{again:?}");
        }
    }
}
