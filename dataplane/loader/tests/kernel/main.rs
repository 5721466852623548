//! The programs in the real kernel. Every test runs in a process of its own, with its own network and mount
//! namespaces, BPF file system and cgroup; see `lab`.

#[cfg(test)]
mod flows;
#[cfg(test)]
mod forged;
#[cfg(test)]
mod host_ports;
#[cfg(test)]
mod ipv6;
#[cfg(test)]
mod lab;
#[cfg(test)]
mod native;
#[cfg(test)]
mod overlay;
#[cfg(test)]
mod packet;
#[cfg(test)]
mod pins;
#[cfg(test)]
mod pods;
#[cfg(test)]
mod policy;
#[cfg(test)]
mod privileges;
#[cfg(test)]
mod scene;
#[cfg(test)]
mod shaped;
#[cfg(test)]
mod sockets;
#[cfg(test)]
mod too_big;
#[cfg(test)]
mod verdicts;
