//! Embeds the object that `cargo xtask ebpf` built, or nothing: then loading fails with a sentence that says what to do.

use std::{env, fs, io, path::PathBuf};

/// Where `cargo xtask ebpf` puts the object, seen from this crate's folder, in which cargo runs this. The object's
/// folder holds nothing else, since cargo watches it.
const BUILT: &str = "../../target/bpf/netkeel.o";

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-env-changed=NETKEEL_BPF_OBJECT");
    let object = match env::var_os("NETKEEL_BPF_OBJECT") {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(BUILT),
    };
    if let Some(folder) = object.parent() {
        // A watched path that does not exist would make cargo run this on every build.
        fs::create_dir_all(folder)?;
        println!("cargo:rerun-if-changed={}", folder.display());
    }
    let stub = env::var_os("CARGO_FEATURE_STUB").is_some();
    let bytes = match fs::read(&object) {
        _ if stub => Vec::new(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        read => read?,
    };
    let out = env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("cargo sets OUT_DIR"))?;
    fs::write(PathBuf::from(out).join("netkeel.o"), bytes)
}
