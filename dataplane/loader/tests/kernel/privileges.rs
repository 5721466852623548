//! The loader with what the agent's container has: three capabilities.

use std::net::Ipv4Addr;

use netkeel_dataplane_loader::{Datapath, Table, common::Protocol, probe, remove};

use crate::lab::{Lab, chain, frontend, ifindex, ip, isolated, serve};

const NET_ADMIN: u32 = 12;
const PERFMON: u32 = 38;
const BPF: u32 = 39;

/// Leaves this thread only these capabilities.
fn keep_only(capabilities: &[u32]) {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    #[repr(C)]
    #[derive(Clone, Copy, Default)]
    struct Half {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    const VERSION_3: u32 = 0x2008_0522;
    let mut halves = [Half::default(); 2];
    for capability in capabilities {
        let half = &mut halves[(capability / 32) as usize];
        half.effective |= 1 << (capability % 32);
        half.permitted = half.effective;
    }
    let header = Header { version: VERSION_3, pid: 0 };
    // SAFETY: both structs have the layout of version 3 and outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, halves.as_ptr()) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

fn everything(lab: &Lab) {
    probe(&lab.options).unwrap();
    let datapath = Datapath::load(&lab.options).unwrap_or_else(|error| panic!("{}", chain(&error)));
    datapath.attach_pod(ifindex("nk0"), "nk0").unwrap();
    datapath.attach_overlay(ifindex("nk1"), "nk1").unwrap();
    let service = frontend(Ipv4Addr::new(10, 96, 0, 10), 80, Protocol::Tcp);
    serve(&datapath, 1, service, &[(Ipv4Addr::LOCALHOST, 80)]);
    assert_eq!(datapath.services().unwrap().dump().unwrap().len(), 1);
    datapath.counters().unwrap();
    datapath.map_bytes().unwrap();
    drop(datapath);
    Datapath::load(&lab.options).unwrap();
    remove(&lab.options.bpffs).unwrap();
}

#[test]
fn three_capabilities_are_enough() {
    isolated(|lab| {
        ip("link add nk0 type veth peer name nk1");
        keep_only(&[NET_ADMIN, PERFMON, BPF]);
        everything(lab);
    });
}

#[test]
fn a_missing_capability_is_named() {
    isolated(|lab| {
        keep_only(&[NET_ADMIN, PERFMON]);
        let error = probe(&lab.options).unwrap_err();
        assert!(error.to_string().starts_with("missing capabilities: BPF;"), "{error}");
    });
}
