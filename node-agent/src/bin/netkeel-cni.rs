//! The CNI plugin; see `netkeel_agent::cni::plugin`.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    netkeel_agent::cni::plugin::main()
}
