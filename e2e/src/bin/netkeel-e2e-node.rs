//! One member of a test cluster: started by the harness, not by hand.
#![forbid(unsafe_code)]

fn main() -> anyhow::Result<()> {
    netkeel_e2e::node::main(&std::env::args().skip(1).collect::<Vec<_>>())
}
