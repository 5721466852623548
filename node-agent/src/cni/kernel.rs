//! The real data path of pod links: `from_pod` on each host side, and the tables `ENDPOINTS` and `LINKS`.

use std::{collections::HashMap, sync::Arc};

use netkeel_core::address::Address;
use netkeel_dataplane_common::{endpoints::Endpoint, links::Link, policies::OPEN};
use netkeel_dataplane_loader::{Datapath, Error as LoaderError, Table, converge};

use super::datapath::{Error, PodDatapath, PodLink};

/// The loaded programs, as the CNI server uses them.
pub struct KernelDatapath {
    datapath: Arc<Datapath>,
}

impl KernelDatapath {
    /// Over programs that are loaded.
    #[must_use]
    pub fn new(datapath: Arc<Datapath>) -> Self {
        Self { datapath }
    }

    fn forget(&self, address: Address) -> Result<(), LoaderError> {
        let mut endpoints = self.datapath.endpoints()?;
        let Some(endpoint) = endpoints.get(&address)? else { return Ok(()) };
        let mut links = self.datapath.links()?;
        // The kernel may have given the index to another pod's link since.
        if links.get(&endpoint.ifindex)?.is_some_and(|link| link.address == address) {
            links.remove(&endpoint.ifindex)?;
        }
        Ok(endpoints.remove(&address)?)
    }

    fn converge(&self, pods: &[PodLink]) -> Result<(), LoaderError> {
        let links: HashMap<_, _> = pods.iter().map(|pod| (pod.host_ifindex, link(pod))).collect();
        let endpoints: HashMap<_, _> = pods.iter().map(|pod| (pod.pod_address, endpoint(pod))).collect();
        converge(&mut self.datapath.links()?, &links)?;
        converge(&mut self.datapath.endpoints()?, &endpoints).map(drop)?;
        Ok(())
    }

    fn enter(&self, pod: &PodLink) -> Result<(), LoaderError> {
        self.datapath.links()?.put(&pod.host_ifindex, &link(pod))?;
        Ok(self.datapath.endpoints()?.put(&pod.pod_address, &endpoint(pod))?)
    }

    fn read(&self, pod: &PodLink) -> Result<bool, LoaderError> {
        let link_held = self.datapath.links()?.get(&pod.host_ifindex)? == Some(link(pod));
        let endpoint_held = self.datapath.endpoints()?.get(&pod.pod_address)? == Some(endpoint(pod));
        Ok(link_held && endpoint_held && self.datapath.pod_attached(pod.host_ifindex)?)
    }
}

impl PodDatapath for KernelDatapath {
    fn add(&self, pod: &PodLink) -> Result<(), Error> {
        let attached = self.datapath.attach_pod(pod.host_ifindex, &pod.host_name);
        attached.map_err(|error| failed(format!("attach from_pod to {}", pod.host_name), error))?;
        self.enter(pod).map_err(|error| failed(format!("enter {} in the tables", pod.pod_address), error))
    }

    fn remove(&self, pod_address: Address) -> Result<(), Error> {
        self.forget(pod_address)
            .map_err(|error| failed(format!("take {pod_address} out of the tables"), error))
    }

    fn holds(&self, pod: &PodLink) -> Result<bool, Error> {
        self.read(pod).map_err(|error| failed(format!("look for {} in the tables", pod.pod_address), error))
    }

    fn restore(&self, pods: &[PodLink]) -> Result<(), Error> {
        let attach = |pod: &PodLink| {
            let attached = self.datapath.attach_pod(pod.host_ifindex, &pod.host_name);
            attached.map_err(|error| failed(format!("attach from_pod to {}", pod.host_name), error))
        };
        let attached = pods.iter().map(attach).fold(Ok(()), Result::and);
        let entered = self.converge(pods);
        attached.and(entered.map_err(|error| failed("bring the tables of pods in line".to_owned(), error)))
    }
}

fn link(pod: &PodLink) -> Link {
    Link::new(pod.pod_address, pod.pod_mac, OPEN)
}

fn endpoint(pod: &PodLink) -> Endpoint {
    Endpoint { ifindex: pod.host_ifindex, ingress: OPEN }
}

fn failed(what: String, source: LoaderError) -> Error {
    Error { what, source: Box::new(source) }
}
