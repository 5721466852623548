//! Services in the kernel's maps: what changed is written by difference, what could not be written is told and tried again.

use std::collections::BTreeMap;

use netkeel_core::{
    name::ObjectName,
    service::{
        Backend, Frontend,
        endpoints::Frontends,
        layout::{Dump, Layout, Write},
    },
};
use netkeel_dataplane_common::{backends::Slot, services::Service};
use netkeel_dataplane_loader::{Table, TableError};

/// The two maps of services, and what they hold.
pub struct ServiceTables<S, B> {
    services: S,
    backends: B,
    layout: Layout,
    failed: BTreeMap<ObjectName, String>,
    writes: u64,
}

impl<S: Table<Frontend, Service>, B: Table<Slot, Backend>> ServiceTables<S, B> {
    /// Takes the maps over with what they hold.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn restore(services: S, backends: B) -> Result<Self, TableError> {
        let layout = read(&services, &backends)?;
        Ok(Self { services, backends, layout, failed: BTreeMap::new(), writes: 0 })
    }

    /// Makes each of these Services have exactly these frontends. One that cannot be written keeps what it has and is named in
    /// [`Self::failed`]; the others go on.
    pub fn update(&mut self, wanted: impl IntoIterator<Item = (ObjectName, Frontends)>) {
        for (name, frontends) in wanted {
            // The maps of a failed one are in between: only `repair` knows how to go on from there.
            if !self.failed.contains_key(&name) {
                self.update_one(name, &frontends);
            }
        }
    }

    /// Makes the maps hold these Services and nothing else, starting from what they really hold: repairs drift and failed writes.
    ///
    /// # Errors
    /// When the maps cannot be read or an entry cannot be deleted.
    pub fn repair(
        &mut self,
        wanted: impl IntoIterator<Item = (ObjectName, Frontends)>,
    ) -> Result<(), TableError> {
        self.layout = read(&self.services, &self.backends)?;
        self.failed.clear();
        let unreached = self.layout.sweep_slots();
        self.write(&unreached)?;
        for (name, frontends) in wanted {
            self.update_one(name, &frontends);
        }
        let writes = self.layout.sweep();
        self.write(&writes)
    }

    /// The Services that could not be written, and why. [`Self::repair`] tries them again.
    pub fn failed(&self) -> &BTreeMap<ObjectName, String> {
        &self.failed
    }

    /// The number of frontends.
    pub fn frontends(&self) -> usize {
        self.layout.len()
    }

    /// Map writes since the start.
    pub fn writes(&self) -> u64 {
        self.writes
    }

    /// The maps.
    pub fn tables(&self) -> (&S, &B) {
        (&self.services, &self.backends)
    }

    fn update_one(&mut self, name: ObjectName, frontends: &Frontends) {
        let writes = self.layout.update(&name, frontends);
        if let Err(error) = self.write(&writes) {
            tracing::warn!(service = %name, %error, "the service is not programmed");
            self.failed.insert(name, error.to_string());
        }
    }

    /// Does the writes in order, up to the first that fails: a count is never written without its slots.
    fn write(&mut self, writes: &[Write]) -> Result<(), TableError> {
        for (done, write) in writes.iter().enumerate() {
            let written = match write {
                Write::PutBackend(slot, backend) => self.backends.put(slot, backend),
                Write::PutService(frontend, service) => self.services.put(frontend, service),
                Write::DeleteService(frontend) => self.services.remove(frontend),
                Write::DeleteBackend(slot) => self.backends.remove(slot),
            };
            if let Err(error) = written {
                self.give_back(writes, done);
                return Err(error);
            }
            self.writes += 1;
        }
        Ok(())
    }

    /// Empties the slots that were filled for a count that could not be written: others need the room.
    fn give_back(&mut self, writes: &[Write], done: usize) {
        let (done, open) = writes.split_at(done);
        let intended = open.iter().find_map(|write| match write {
            Write::PutService(frontend, service) => Some((frontend, service.id)),
            _ => None,
        });
        let Some((frontend, id)) = intended else { return };
        let reached = match self.services.get(frontend) {
            Ok(found) => found.filter(|service| service.id == id).map_or(0, |service| service.count),
            Err(_) => return,
        };
        for write in done {
            if let Write::PutBackend(slot, _) = write
                && slot.service == id
                && slot.slot >= reached
                && let Err(error) = self.backends.remove(slot)
            {
                tracing::warn!(%error, "a slot that nothing reaches stays full until the next repair");
            }
        }
    }
}

fn read(
    services: &impl Table<Frontend, Service>,
    backends: &impl Table<Slot, Backend>,
) -> Result<Layout, TableError> {
    Ok(Layout::restore(&Dump { services: services.dump()?, backends: backends.dump()? }))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use netkeel_core::{address::Address, service::Protocol};
    use netkeel_dataplane_loader::FakeTable;

    use super::*;

    type Tables = ServiceTables<FakeTable<Frontend, Service>, FakeTable<Slot, Backend>>;

    fn wanted(number: u8, endpoints: u8) -> (ObjectName, Frontends) {
        let address = |last| Address::from(Ipv4Addr::new(10, 0, number, last));
        let backends = (1..=endpoints).map(|last| Backend::new(address(last), 8080)).collect();
        let frontend = Frontend::new(Ipv4Addr::new(10, 96, 0, number).into(), 80, Protocol::Tcp);
        (ObjectName::new("shop", &format!("service-{number}")), [(frontend, backends)].into())
    }

    fn tables(slots: u32) -> Tables {
        ServiceTables::restore(FakeTable::new("SERVICES"), FakeTable::with_capacity("BACKENDS", slots))
            .unwrap()
    }

    #[test]
    fn one_endpoint_is_at_most_four_map_writes_among_many_services() {
        let mut tables = tables(u32::MAX);
        tables.update((0..200).map(|number| wanted(number, 3)));
        let before = tables.writes();
        tables.update([wanted(7, 4)]);
        assert_eq!(tables.writes() - before, 2);
        tables.update([wanted(7, 3)]);
        assert!(tables.writes() - before <= 2 + 4);
    }

    #[test]
    fn a_service_that_does_not_fit_is_named_and_the_others_are_served() {
        let mut tables = tables(5);
        tables.update([wanted(1, 2), wanted(2, 9), wanted(3, 1)]);
        let failed: Vec<_> = tables.failed().iter().map(|(name, why)| format!("{name}: {why}")).collect();
        assert_eq!(failed, ["shop/service-2: table BACKENDS is full: it has room for 5 entries"]);
        assert_eq!(tables.tables().0.entries().len(), 2);
        assert_eq!(tables.tables().1.entries().len(), 3, "what did not fit was given back");
    }

    #[test]
    fn a_repair_serves_what_fits_again() {
        let mut tables = tables(6);
        tables.update([wanted(1, 2), wanted(2, 9)]);
        assert_eq!(tables.failed().len(), 1);
        tables.repair([wanted(1, 2), wanted(2, 4)]).unwrap();
        assert!(tables.failed().is_empty());
        assert_eq!(tables.tables().1.entries().len(), 6);
    }

    #[test]
    fn drift_is_repaired_and_what_is_right_is_not_written() {
        let mut tables = tables(u32::MAX);
        tables.update([wanted(1, 2), wanted(2, 2)]);
        let lost = *tables.services.entries().keys().next().unwrap();
        tables.services.remove(&lost).unwrap();
        let before = tables.writes();
        tables.repair([wanted(1, 2), wanted(2, 2)]).unwrap();
        assert_eq!(tables.services.entries().len(), 2);
        assert!(tables.writes() - before <= 5, "only the lost frontend is written anew");
    }
}
