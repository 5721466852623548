//! The real program, built without kernel programs as on a fresh clone: it refuses to start, and says what to do.

use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// Far more than a refusal takes.
const AT_ONCE: Duration = Duration::from_secs(5);

/// An agent of a node, as the DaemonSet starts it.
fn agent(arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_netkeel-agent"))
        .args(arguments)
        .env_clear()
        .env("NODE_NAME", "node-1")
        .env("NETKEEL_API_SERVERS", "192.0.2.1:6443")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the agent is built")
}

#[test]
fn an_agent_without_kernel_programs_refuses_to_start_and_says_how_to_build_them() {
    let mut child = agent(&["--admin-address", "127.0.0.1:0"]);
    let start = Instant::now();
    while child.try_wait().expect("its state").is_none() {
        if start.elapsed() > AT_ONCE {
            child.kill().expect("it runs");
            panic!("it runs without programs");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let output = child.wait_with_output().expect("what it said");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(said, "netkeel-agent: built without eBPF programs: run `cargo xtask ebpf` and build again\n");
}

#[test]
fn it_still_tells_its_version() {
    let output = agent(&["--version"]).wait_with_output().expect("what it said");
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("netkeel-agent "));
}
