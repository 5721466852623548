//! What is known of the node's pods and of the maps, and how pods come and go.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use netkeel_core::{
    address::Address,
    name::ObjectName,
    policy::{Isolation, Rules, Table},
};
use netkeel_dataplane_common::{
    endpoints::Endpoint,
    links::Link,
    policies::{CLOSED, OPEN},
    tunnels::Block,
};
use netkeel_dataplane_loader::TableError;

use super::{Attached, Entered, Known, PodRef, maps::Maps, mirror::Mirror, tables::Tables};

/// Numbers of a pod's two tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sides {
    pub(super) ingress: u32,
    pub(super) egress: u32,
}

impl Sides {
    pub(super) const CLOSED: Self = Self { ingress: CLOSED, egress: CLOSED };

    pub(super) fn is_closed(self) -> bool {
        self.ingress == CLOSED || self.egress == CLOSED
    }
}

/// Tables in place, and what they are to have.
pub(super) type Grown = BTreeMap<u32, Arc<Rules>>;

/// Everything behind the lock.
pub(super) struct State {
    pub(super) identities: Mirror<Address, u32>,
    pub(super) cidrs: Mirror<Block, u32>,
    pub(super) endpoints: Mirror<Address, Endpoint>,
    pub(super) links: Mirror<u32, Link>,
    pub(super) epoch: Mirror<u32, u32>,
    pub(super) tables: Tables,
    /// The pods with a link, and the tables that they have.
    pub(super) pods: BTreeMap<Address, (Attached, Sides)>,
    /// The node's pods that the API knows.
    pub(super) known: HashMap<ObjectName, Known>,
    /// Pods that are closed because their tables do not fit.
    pub(super) unfit: BTreeMap<Address, TableError>,
    /// Leaves of CIDRs did not fit: their addresses pass for these identities, those of the leaves around them.
    pub(super) mistaken: BTreeSet<u32>,
    /// The pods with a link are known: until then nothing may change below them.
    pub(super) taken_over: bool,
    /// A write failed: what the maps hold has to be looked at again.
    pub(super) doubtful: bool,
    /// Flows may have been judged by something else than what was wanted: an earlier agent may have ended in the middle of a batch, or a look
    /// found other entries than those that were written.
    pub(super) unsettled: bool,
}

impl State {
    /// The maps as they are.
    pub(super) fn read(maps: Maps) -> Result<Self, TableError> {
        let (endpoints, links) = (Mirror::read(maps.endpoints)?, Mirror::read(maps.links)?);
        let named = named(&endpoints, &links);
        Ok(Self {
            identities: Mirror::read(maps.identities)?,
            cidrs: Mirror::read(maps.cidrs)?,
            epoch: Mirror::read(maps.epoch)?,
            tables: Tables::read(maps.policies, named)?,
            endpoints,
            links,
            pods: BTreeMap::new(),
            known: HashMap::new(),
            unfit: BTreeMap::new(),
            mistaken: BTreeSet::new(),
            taken_over: false,
            doubtful: false,
            unsettled: true,
        })
    }

    /// What the policies say of a pod; `None` while the API has not said who it is, or says it of another pod of that name.
    pub(super) fn isolation(&self, pod: &PodRef) -> Option<&Isolation> {
        let known = self.known.get(&pod.name)?;
        let same = pod.is(&PodRef { name: pod.name.clone(), uid: known.uid.clone() });
        same.then_some(&known.isolation)
    }

    pub(super) fn knows(&self, pod: &PodRef) -> bool {
        self.isolation(pod).is_some()
    }

    /// The tables that a pod gets, written where they are not there yet. Those it has stay where nothing is known of it, and until
    /// everything is known (`complete`) where it has any; `grown` ones have what they are to have. What does not fit is closed.
    pub(super) fn sides(&mut self, pod: &Attached, held: Sides, complete: bool, grown: &Grown) -> Sides {
        let Some(isolation) = self.isolation(&pod.pod).cloned() else { return held };
        self.unfit.remove(&pod.address);
        let mut side = |table: &Table, held: u32| match table {
            _ if !complete && held != CLOSED => held,
            Table::Open => OPEN,
            Table::Rules(rules) if grown.get(&held) == Some(rules) => held,
            Table::Rules(rules) if self.tables.content(held) == Some(rules) => held,
            Table::Rules(rules) => self.tables.ensure(rules).unwrap_or_else(|error| {
                self.unfit.insert(pod.address, error);
                CLOSED
            }),
        };
        Sides {
            ingress: side(&isolation.ingress, held.ingress),
            egress: side(&isolation.egress, held.egress),
        }
    }

    /// The same, closed where a table allows an identity for which addresses of other leaves pass.
    pub(super) fn without_mistakes(&self, pod: &PodRef, sides: Sides) -> Sides {
        let Some(isolation) = self.isolation(pod).filter(|_| !self.mistaken.is_empty()) else { return sides };
        let side = |table: &Table, number: u32| match table {
            Table::Rules(rules) if knows_any(rules, &self.mistaken) => CLOSED,
            _ => number,
        };
        Sides {
            ingress: side(&isolation.ingress, sides.ingress),
            egress: side(&isolation.egress, sides.egress),
        }
    }

    pub(super) fn enter(&mut self, pod: &Attached) -> Result<Entered, TableError> {
        let before = self.pods.get(&pod.address).filter(|(before, _)| before.pod.is(&pod.pod));
        let held = before.map_or(Sides::CLOSED, |(_, sides)| *sides);
        let sides = self.sides(pod, held, true, &Grown::new());
        let sides = self.without_mistakes(&pod.pod, sides);
        let other = |(index, link): (&u32, &Link)| {
            (pod.addresses().any(|address| link.owns(&address)) && *index != pod.ifindex).then_some(*index)
        };
        let stale: Vec<u32> = self.links.entries().iter().filter_map(other).collect();
        stale.iter().try_for_each(|index| self.links.remove(index))?;
        self.place(pod, sides)?;
        self.pods.insert(pod.address, (pod.clone(), sides));
        Ok(if sides.is_closed() { Entered::Closed } else { Entered::InForce })
    }

    /// Writes all entries of a pod.
    pub(super) fn place(&mut self, pod: &Attached, sides: Sides) -> Result<(), TableError> {
        self.links.put(pod.ifindex, pod.link(sides.egress))?;
        let endpoint = pod.endpoint(sides.ingress);
        pod.addresses().try_for_each(|address| self.endpoints.put(address, endpoint))
    }

    /// Forgets the pod that has this address, with all its addresses.
    pub(super) fn forget(&mut self, address: Address) -> Result<(), TableError> {
        let pod = self.pods.values().find(|(pod, _)| pod.has(address)).map(|(pod, _)| pod.clone());
        if let Some(pod) = &pod {
            self.pods.remove(&pod.address);
            self.unfit.remove(&pod.address);
        }
        let all = [address].into_iter().chain(pod.iter().flat_map(Attached::addresses));
        all.collect::<BTreeSet<_>>().into_iter().try_for_each(|address| self.forget_address(address))
    }

    fn forget_address(&mut self, address: Address) -> Result<(), TableError> {
        let Some(endpoint) = self.endpoints.get(&address) else { return Ok(()) };
        // The kernel may have given the index to another pod's link since.
        let ifindex = endpoint.side.ifindex();
        if self.links.get(&ifindex).is_some_and(|link| link.owns(&address)) {
            self.links.remove(&ifindex)?;
        }
        self.endpoints.remove(&address)
    }

    pub(super) fn holds(&self, pod: &Attached) -> bool {
        let first = self.endpoints.get(&pod.address);
        let link = self.links.get(&pod.ifindex);
        first.is_some_and(|endpoint| endpoint == pod.endpoint(endpoint.ingress))
            && pod.addresses().all(|address| self.endpoints.get(&address) == first)
            && link.is_some_and(|link| link == pod.link(link.egress))
    }

    pub(super) fn take_over(&mut self, pods: &[Attached]) -> Result<(), TableError> {
        self.taken_over = true;
        let held = |pod: &Attached| {
            let endpoint = self.endpoints.get(&pod.address).filter(|held| held.side.ifindex() == pod.ifindex);
            let link = self.links.get(&pod.ifindex).filter(|held| held.owns(&pod.address));
            Sides {
                ingress: endpoint.map_or(CLOSED, |held| held.ingress),
                egress: link.map_or(CLOSED, |held| held.egress),
            }
        };
        self.pods = pods.iter().map(|pod| (pod.address, (pod.clone(), held(pod)))).collect();
        let all: Vec<_> = self.pods.values().cloned().collect();
        let placed = all.iter().map(|(pod, sides)| self.place(pod, *sides)).fold(Ok(()), Result::and);
        placed.and(self.remove_strangers())
    }

    /// Takes out of the maps of pods whoever has no link.
    fn remove_strangers(&mut self) -> Result<(), TableError> {
        let indices: BTreeSet<u32> = self.pods.values().map(|(pod, _)| pod.ifindex).collect();
        let links: Vec<u32> =
            self.links.entries().keys().filter(|index| !indices.contains(index)).copied().collect();
        let known: BTreeSet<Address> = self.pods.values().flat_map(|(pod, _)| pod.addresses()).collect();
        let unknown = |address: &&Address| !known.contains(address);
        let endpoints: Vec<Address> = self.endpoints.entries().keys().filter(unknown).copied().collect();
        links.iter().try_for_each(|index| self.links.remove(index))?;
        endpoints.iter().try_for_each(|address| self.endpoints.remove(address))
    }

    /// The highest numbers of an identity and of a rule in the maps.
    pub(super) fn highest_numbers(&self) -> (u32, u32) {
        let (identity, rule) = self.tables.highest_numbers();
        let identities = self.identities.entries().values().chain(self.cidrs.entries().values());
        (identities.copied().fold(identity, u32::max), rule)
    }

    pub(super) fn attached(&self) -> BTreeMap<Address, PodRef> {
        let all =
            self.pods.values().flat_map(|(pod, _)| pod.addresses().map(|address| (address, pod.pod.clone())));
        all.collect()
    }

    /// Removes tables that no entry of a pod names.
    pub(super) fn sweep(&mut self) -> bool {
        self.tables.sweep(&named(&self.endpoints, &self.links))
    }

    /// Looks at what the maps really hold.
    pub(super) fn refresh(&mut self) -> Result<(), TableError> {
        let found = [
            self.identities.refresh()?,
            self.cidrs.refresh()?,
            self.endpoints.refresh()?,
            self.links.refresh()?,
            self.epoch.refresh()?,
            self.tables.repair()?,
        ];
        self.unsettled |= found.contains(&true);
        self.doubtful = false;
        Ok(())
    }
}

/// Whether a table has an entry for one of these identities.
pub(super) fn knows_any(rules: &Rules, identities: &BTreeSet<u32>) -> bool {
    !identities.is_empty() && rules.keys().any(|entry| identities.contains(&entry.traffic.identity))
}

/// The tables that pods' entries name.
fn named(endpoints: &Mirror<Address, Endpoint>, links: &Mirror<u32, Link>) -> BTreeSet<u32> {
    let ingress = endpoints.entries().values().map(|endpoint| endpoint.ingress);
    let egress = links.entries().values().map(|link| link.egress);
    ingress.chain(egress).collect()
}
