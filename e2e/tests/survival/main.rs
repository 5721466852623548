//! What users never notice: agents killed and replaced, operators killed, the API server away, a watch that went silent,
//! a node that starts anew. Every test prints what its probers counted. All share one cluster, which no other test uses,
//! with Netkeel installed without values.

mod agents;
mod bed;
mod control;
mod probes;
mod reboot;
