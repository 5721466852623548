//! The programs of one node: loaded, pinned, replaced in place, detached only with their pods or by [`crate::remove`].
//! Everything that makes up the data path outlives this process in its pins.

mod attach;
mod trial;

pub use trial::{Verdict, Way};

use std::{
    collections::HashMap,
    fs, io, mem,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::PathBuf,
};

use aya::{
    Pod,
    programs::{ProgramError, ProgramFd},
};
use netkeel_dataplane_common::{
    Address, Config, Reason, backends, cidrs, config, conntrack, counters, endpoints, epoch, flow, fragments,
    host_ports, identities, links, policies, reverse, services, tunnels,
};

use crate::{
    pins::{PinError, Pins, unpin},
    probe::{Facts, Options, probe},
    sys::{self, Direction, Hook},
    tables::{KernelTable, TableError},
};

/// Every map.
const MAPS: [&str; 16] = [
    config::NAME,
    endpoints::NAME,
    links::NAME,
    tunnels::NAME,
    services::NAME,
    backends::NAME,
    host_ports::NAME,
    reverse::NAME,
    counters::NAME,
    identities::NAME,
    cidrs::NAME,
    policies::NAME,
    epoch::NAME,
    conntrack::TCP_NAME,
    conntrack::ANY_NAME,
    fragments::NAME,
];

/// The filters of a pod's host side.
const POD_PROGRAMS: [(&str, Direction); 2] =
    [("from_pod", Direction::Ingress), ("to_pod", Direction::Egress)];
const FROM_OVERLAY: &str = "from_overlay";
const TO_OVERLAY: &str = "to_overlay";
const FROM_UNDERLAY: &str = "from_underlay";

/// Why the datapath could not be loaded or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This program was built without the kernel side.
    #[error("built without eBPF programs: run `cargo xtask ebpf` and build again")]
    Stub,
    /// The node lacks something.
    #[error(transparent)]
    Probe(#[from] crate::probe::Error),
    /// The object or one of its maps was refused.
    #[error("load maps and programs")]
    Object(#[source] Box<aya::EbpfError>),
    /// A program was refused; those that ran before still run.
    #[error("load program {name}: the kernel refuses it, what ran before still runs")]
    Program {
        /// The program.
        name: String,
        /// Why, with the verifier's log.
        #[source]
        source: Box<ProgramError>,
    },
    /// The object lacks a program.
    #[error("the object holds no program {name}: run `cargo xtask ebpf` and build again")]
    NoProgram {
        /// The program.
        name: String,
    },
    /// A program could not be attached.
    #[error("attach {program} to {target}")]
    Attach {
        /// The program.
        program: String,
        /// The device or the cgroup.
        target: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A pinned object could not be opened or read.
    #[error("open {path}")]
    Open {
        /// The pin, or the cgroup's folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A dry run failed.
    #[error("run program {name} over a frame")]
    Run {
        /// The program.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something about pins.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// Something about tables.
    #[error(transparent)]
    Table(#[from] TableError),
}

/// The loaded programs, and the way to their maps.
#[derive(Debug)]
pub struct Datapath {
    facts: Facts,
    pins: Pins,
    programs: HashMap<String, ProgramFd>,
}

impl Datapath {
    /// Probes the node, loads the programs over the pinned maps of this layout (made where they are missing), attaches the
    /// socket hooks, and puts the new programs into every link that is pinned already; pods' filters follow with `attach_pod`. Nothing is changed
    /// before the kernel has taken all programs.
    ///
    /// # Errors
    /// When the node lacks something, a map or a program is refused, or a link cannot be made or pinned.
    pub fn load(options: &Options) -> Result<Self, Error> {
        crate::built()?;
        let facts = probe(options)?;
        let pins = Pins::at(&options.bpffs);
        pins.create()?;
        let datapath = Self { facts, programs: attach::load_programs(&pins)?, pins };
        datapath.attach_cgroup(&options.cgroup)?;
        datapath.refresh_devices()?;
        datapath.pins.remove_other_layouts()?;
        Ok(datapath)
    }

    /// What was found out about the node.
    #[must_use]
    pub const fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Tells the programs about their node.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn set_config(&self, config: &Config) -> Result<(), Error> {
        use crate::tables::Table as _;
        Ok(self.table::<u32, Config>(config::NAME, 1)?.put(&0, config)?)
    }

    /// Attaches both programs of the VXLAN device, or replaces them.
    ///
    /// # Errors
    /// When the device cannot take them.
    pub fn attach_overlay(&self, ifindex: u32, device: &str) -> Result<(), Error> {
        self.attach_device(FROM_OVERLAY, device, Hook::Ingress(ifindex), ifindex)?;
        self.attach_device(TO_OVERLAY, device, Hook::Egress(ifindex), ifindex)
    }

    /// Attaches the program of the node's own interfaces to these, by index and name, or replaces it, and takes it from all others.
    ///
    /// # Errors
    /// When a device cannot take it, or a pin cannot be removed.
    pub fn attach_underlay(&self, devices: &[(u32, String)]) -> Result<(), Error> {
        for (ifindex, device) in devices {
            self.attach_device(FROM_UNDERLAY, device, Hook::Ingress(*ifindex), *ifindex)?;
        }
        for (program, pinned) in self.pins.device_links()? {
            if program == FROM_UNDERLAY && devices.iter().all(|(_, device)| *device != pinned) {
                unpin(&self.pins.link(&program, Some(&pinned)))?;
            }
        }
        Ok(())
    }

    /// Makes `from_pod` and `to_pod` the filters at the ingress and the egress of a pod's host side, or replaces those of an
    /// earlier load, each in one step. They go with the device; nothing is pinned (docs/adr/0006).
    ///
    /// # Errors
    /// When the device cannot take one of them.
    pub fn attach_pod(&self, ifindex: u32, device: &str) -> Result<(), Error> {
        POD_PROGRAMS.iter().try_for_each(|(name, direction)| {
            sys::filter_attach(self.program(name)?, ifindex, *direction, name).map_err(|source| {
                Error::Attach { program: (*name).to_owned(), target: device.to_owned(), source }
            })
        })
    }

    /// Whether `from_pod` and `to_pod` filter what comes from a device and what goes to it.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn pod_attached(&self, ifindex: u32) -> Result<bool, Error> {
        for (name, direction) in POD_PROGRAMS {
            let attached = sys::filter_attached(ifindex, direction).map_err(|source| Error::Attach {
                program: name.to_owned(),
                target: format!("device {ifindex}"),
                source,
            })?;
            if !attached {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Packets and connections that were not let through, by reason, summed over all processors.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn counters(&self) -> Result<Vec<(Reason, u64)>, Error> {
        let map = self.open(counters::NAME)?;
        let read = |source| TableError::Read { table: counters::NAME, source };
        let mut values = vec![0; possible_processors().map_err(read)? * mem::size_of::<u64>()];
        let mut counts = Vec::with_capacity(Reason::ALL.len());
        for reason in Reason::ALL {
            sys::lookup(map.as_fd(), &(*reason as u32).to_ne_bytes(), &mut values).map_err(read)?;
            let (each, _) = values.as_chunks();
            counts.push((*reason, each.iter().map(|bytes| u64::from_ne_bytes(*bytes)).sum()));
        }
        Ok(counts)
    }

    /// Memory that the kernel holds for each map, in bytes.
    ///
    /// # Errors
    /// When a map cannot be opened.
    pub fn map_bytes(&self) -> Result<Vec<(&'static str, u64)>, Error> {
        MAPS.iter().map(|name| Ok((*name, memory(&self.open(name)?)?))).collect()
    }

    /// Pods of this node.
    ///
    /// # Errors
    /// When the map cannot be opened; the same for all tables.
    pub fn endpoints(&self) -> Result<KernelTable<Address, endpoints::Endpoint>, Error> {
        self.table(endpoints::NAME, endpoints::MAX)
    }

    /// Links of pods, for the source check.
    ///
    /// # Errors
    /// When the map cannot be opened.
    pub fn links(&self) -> Result<KernelTable<u32, links::Link>, Error> {
        self.table(links::NAME, links::MAX)
    }

    /// Blocks of other nodes.
    ///
    /// # Errors
    /// When the map cannot be opened.
    pub fn tunnels(&self) -> Result<KernelTable<tunnels::Block, tunnels::Tunnel>, Error> {
        self.table(tunnels::NAME, tunnels::MAX)
    }

    /// Who has an address, by number.
    ///
    /// # Errors
    /// When the map cannot be opened.
    pub fn identities(&self) -> Result<KernelTable<Address, u32>, Error> {
        self.table(identities::NAME, identities::MAX)
    }

    /// CIDRs of policies, by the number of their leaf.
    ///
    /// # Errors
    /// When the map cannot be opened.
    pub fn cidrs(&self) -> Result<KernelTable<tunnels::Block, u32>, Error> {
        self.table(cidrs::NAME, cidrs::MAX)
    }

    /// Entries of all policy tables.
    ///
    /// # Errors
    /// When the map cannot be opened.
    pub fn policies(&self) -> Result<KernelTable<policies::Match, policies::Verdict>, Error> {
        self.table(policies::NAME, policies::MAX)
    }

    /// The epoch of policy and identity, at key 0. Whoever changes either raises it afterwards.
    ///
    /// # Errors
    /// When the map cannot be opened.
    pub fn epoch(&self) -> Result<KernelTable<u32, u32>, Error> {
        self.table(epoch::NAME, 1)
    }

    /// Known TCP connections.
    ///
    /// # Errors
    /// When the map cannot be opened.
    pub fn connections(&self) -> Result<KernelTable<flow::Flow, conntrack::Entry>, Error> {
        self.table(conntrack::TCP_NAME, conntrack::TCP_MAX)
    }

    /// Known flows of other protocols.
    ///
    /// # Errors
    /// When the map cannot be opened.
    pub fn flows(&self) -> Result<KernelTable<flow::Flow, conntrack::Entry>, Error> {
        self.table(conntrack::ANY_NAME, conntrack::ANY_MAX)
    }

    /// Addresses of services.
    ///
    /// # Errors
    /// When the map cannot be opened.
    pub fn services(&self) -> Result<KernelTable<services::Frontend, services::Service>, Error> {
        self.table(services::NAME, services::MAX)
    }

    /// Backends of services.
    ///
    /// # Errors
    /// When the map cannot be opened.
    pub fn backends(&self) -> Result<KernelTable<backends::Slot, backends::Backend>, Error> {
        self.table(backends::NAME, backends::MAX)
    }

    /// Ports of this node that lead to pods of it.
    ///
    /// # Errors
    /// When the map cannot be opened.
    pub fn host_ports(&self) -> Result<KernelTable<host_ports::HostPort, backends::Backend>, Error> {
        self.table(host_ports::NAME, host_ports::MAX)
    }

    /// Names of the loaded programs, in order.
    #[must_use]
    pub fn programs(&self) -> Vec<String> {
        let mut names: Vec<_> = self.programs.keys().cloned().collect();
        names.sort();
        names
    }

    fn program(&self, name: &str) -> Result<BorrowedFd<'_>, Error> {
        let program = self.programs.get(name).ok_or_else(|| Error::NoProgram { name: name.to_owned() })?;
        Ok(program.as_fd())
    }

    fn table<K: Pod, V: Pod>(&self, name: &'static str, capacity: u32) -> Result<KernelTable<K, V>, Error> {
        Ok(KernelTable::new(name, capacity, self.open(name)?))
    }

    fn open(&self, map: &str) -> Result<OwnedFd, Error> {
        let path = self.pins.map(map);
        sys::object_get(&path).map_err(|source| Error::Open { path, source })
    }
}

/// Bytes that the kernel accounts to a map.
fn memory(map: &OwnedFd) -> Result<u64, Error> {
    let path = PathBuf::from(format!("/proc/self/fdinfo/{}", map.as_raw_fd()));
    let text = fs::read_to_string(&path).map_err(|source| Error::Open { path, source })?;
    Ok(memlock(&text).unwrap_or(0))
}

/// The bytes in the text of a map's fdinfo file.
fn memlock(fdinfo: &str) -> Option<u64> {
    fdinfo.lines().find_map(|line| line.strip_prefix("memlock:"))?.trim().parse().ok()
}

/// The number of processors that a per-CPU map has values for.
fn possible_processors() -> io::Result<usize> {
    let text = fs::read_to_string("/sys/devices/system/cpu/possible")?;
    highest(&text)
        .map(|last| last + 1)
        .ok_or_else(|| io::Error::other("no processor numbers in cpu/possible"))
}

/// The highest number in a list of ranges such as `0-3,8-11`.
fn highest(ranges: &str) -> Option<usize> {
    ranges.trim().rsplit([',', '-']).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_processor_ends_the_last_range() {
        assert_eq!(highest("0-3,8-11\n"), Some(11));
        assert_eq!(highest("0\n"), Some(0));
        assert_eq!(highest("\n"), None);
    }

    #[test]
    fn the_memory_of_a_map_is_read_from_its_fdinfo() {
        assert_eq!(memlock("pos:\t0\nmap_type:\t1\nmemlock:\t1312\nmap_id:\t9\n"), Some(1312));
        assert_eq!(memlock("pos:\t0\n"), None);
    }

    #[test]
    fn a_build_without_programs_says_how_to_get_them() {
        assert_eq!(
            Error::Stub.to_string(),
            "built without eBPF programs: run `cargo xtask ebpf` and build again"
        );
    }
}
