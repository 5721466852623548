//! A real Kubernetes cluster in namespaces of this machine, for tests and for development.
//! etcd, kube-apiserver, kube-controller-manager and kube-scheduler run inside the first node; every node is
//! a set of namespaces with its own root file system, cgroups, containerd and kubelet. docs/testing.md explains it.
#![forbid(unsafe_code)]

pub mod assertions;
mod binaries;
pub mod cgroup;
pub mod cilium;
mod cluster;
mod config;
mod http;
pub mod images;
pub mod node;
pub mod observe;
mod pki;
pub mod process;
mod progress;
pub mod snapshot;
mod wait;
pub mod workload;

pub use binaries::helm;
pub use binaries::{coredns, fetch_go, flannel, go_command, installed_go};
pub use cluster::{Cluster, DEFAULT_NAME, IpFamily, Node, Options};
pub use observe::dashboard;
pub use observe::jaeger;
pub use observe::prometheus;
pub use progress::Progress;
pub use wait::wait_until;
