//! Writes the YAML of every kind into the folders given as arguments.

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for folder in std::env::args().skip(1) {
        std::fs::create_dir_all(&folder)?;
        for crd in netkeel_crds::all() {
            let (name, text) = netkeel_crds::yaml(&crd)?;
            std::fs::write(Path::new(&folder).join(name), text)?;
        }
    }
    Ok(())
}
