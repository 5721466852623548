//! Container images without a container engine: one layer from scratch, as an archive that containerd and docker load.
//! The same input gives the same bytes: no time stamps, files in the order given.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{Progress, process};

/// The image of the test workload: `/netkeel-e2e-peer`, busybox with its links in `/bin`, and the programs at [`LOOKUP`].
pub const WORKLOAD: &str = "localhost/netkeel-e2e:1";
/// The sandbox image.
pub const PAUSE: &str = "localhost/pause:1";
/// What the other build of the agent calls itself, and the tag of its image.
pub const ANOTHER: &str = concat!(env!("CARGO_PKG_VERSION"), "-another");
/// The triple that static programs are built for.
pub const STATIC_TARGET: &str = "x86_64-unknown-linux-gnu";

/// What goes into an image.
#[derive(Default)]
pub struct Image {
    /// Full name with tag.
    pub name: String,
    pub entrypoint: Vec<String>,
    /// Path in the image, file on the machine; mode 0755.
    pub files: Vec<(String, PathBuf)>,
    /// Path in the image, target.
    pub links: Vec<(String, String)>,
    /// Whether the layer is gzipped: smaller to publish, slower to load.
    pub gzip: bool,
}

impl Image {
    /// Writes an OCI image layout as one tar file.
    ///
    /// # Errors
    /// A file cannot be read or the archive not written.
    pub fn write(&self, archive: &Path) -> Result<()> {
        let layer = self.layer()?;
        let diff = digest(&layer);
        let (layer, kind) = if self.gzip { (gzip(&layer)?, "tar+gzip") } else { (layer, "tar") };
        let layer = Blob::new(&format!("application/vnd.oci.image.layer.v1.{kind}"), layer);
        let config = Blob::json(
            "application/vnd.oci.image.config.v1+json",
            &json!({
                "architecture": "amd64", "os": "linux",
                "config": { "Entrypoint": self.entrypoint, "Env": ["PATH=/bin:/sbin:/usr/bin:/usr/sbin"] },
                "rootfs": { "type": "layers", "diff_ids": [diff] },
                "history": [{ "created_by": "cargo xtask image" }],
            }),
        );
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let parts = json!({
            "schemaVersion": 2, "mediaType": kind, "config": config.descriptor, "layers": [layer.descriptor],
        });
        let manifest = Blob::json(kind, &parts);
        let mut entry = manifest.descriptor.clone();
        entry["annotations"] = json!({ "io.containerd.image.name": self.name });
        let index = json!({ "schemaVersion": 2, "manifests": [entry] });
        let docker = json!([{ "Config": config.path, "RepoTags": [self.name], "Layers": [layer.path] }]);
        let head = [
            ("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
            ("index.json", index.to_string().into_bytes()),
            ("manifest.json", docker.to_string().into_bytes()),
        ];
        let blobs = [config, manifest, layer].map(|blob| (blob.path, blob.data));
        write_archive(archive, head.map(|(path, data)| (path.to_owned(), data)).into_iter().chain(blobs))
    }

    fn layer(&self) -> Result<Vec<u8>> {
        let mut tar = tar::Builder::new(Vec::new());
        let mut folders = BTreeSet::new();
        add_folder(&mut tar, "tmp/", 0o1777)?;
        for (path, source) in &self.files {
            add_parents(&mut tar, &mut folders, path)?;
            let data = fs::read(source).with_context(|| source.display().to_string())?;
            tar.append_data(&mut header(tar::EntryType::Regular, 0o755, data.len()), relative(path), &*data)?;
        }
        for (path, target) in &self.links {
            add_parents(&mut tar, &mut folders, path)?;
            tar.append_link(&mut header(tar::EntryType::Symlink, 0o777, 0), relative(path), target)?;
        }
        Ok(tar.into_inner()?)
    }
}

/// Content that the archive holds under its digest.
struct Blob {
    path: String,
    descriptor: Value,
    data: Vec<u8>,
}

impl Blob {
    fn new(kind: &str, data: Vec<u8>) -> Self {
        let hex = hex(&data);
        let descriptor = json!({ "mediaType": kind, "digest": format!("sha256:{hex}"), "size": data.len() });
        Self { path: format!("blobs/sha256/{hex}"), descriptor, data }
    }

    fn json(kind: &str, value: &Value) -> Self {
        Self::new(kind, value.to_string().into_bytes())
    }
}

fn write_archive(archive: &Path, files: impl Iterator<Item = (String, Vec<u8>)>) -> Result<()> {
    if let Some(folder) = archive.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut part = archive.as_os_str().to_owned();
    part.push(format!(".{}", std::process::id()));
    let mut tar = tar::Builder::new(fs::File::create(&part)?);
    for (path, data) in files {
        tar.append_data(&mut header(tar::EntryType::Regular, 0o644, data.len()), &path, data.as_slice())?;
    }
    tar.into_inner()?.flush()?;
    fs::rename(&part, archive).with_context(|| archive.display().to_string())
}

fn header(kind: tar::EntryType, mode: u32, size: usize) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size as u64);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn add_folder(tar: &mut tar::Builder<Vec<u8>>, path: &str, mode: u32) -> Result<()> {
    Ok(tar.append_data(&mut header(tar::EntryType::Directory, mode, 0), path, std::io::empty())?)
}

fn add_parents(tar: &mut tar::Builder<Vec<u8>>, known: &mut BTreeSet<PathBuf>, path: &str) -> Result<()> {
    let parents: Vec<&Path> = Path::new(relative(path)).ancestors().skip(1).collect();
    for folder in parents.into_iter().rev().filter(|folder| !folder.as_os_str().is_empty()) {
        if known.insert(folder.into()) {
            add_folder(tar, &format!("{}/", folder.display()), 0o755)?;
        }
    }
    Ok(())
}

fn relative(path: &str) -> &str {
    path.trim_start_matches('/')
}

fn digest(data: &[u8]) -> String {
    format!("sha256:{}", hex(data))
}

/// SHA-256 in hexadecimal.
pub(crate) fn hex(data: &[u8]) -> String {
    Sha256::digest(data).iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

fn gzip(data: &[u8]) -> Result<Vec<u8>> {
    let mut writer = GzBuilder::new().mtime(0).write(Vec::new(), Compression::default());
    writer.write_all(data)?;
    Ok(writer.finish()?)
}

/// Where cargo puts what it builds for this workspace.
#[must_use]
pub fn target_folder() -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    let folder = std::env::var_os("CARGO_TARGET_DIR").map_or_else(default, PathBuf::from);
    folder.canonicalize().unwrap_or(folder)
}

/// Builds packages of this workspace in release mode as static programs and returns the folder they are in.
///
/// # Errors
/// They do not compile.
pub fn build_static(packages: &[&str], environment: &[(&str, &str)], progress: &Progress) -> Result<PathBuf> {
    let mut cargo = process::cargo();
    cargo.args(["build", "--quiet", "--release", "--target", STATIC_TARGET]);
    cargo.args(packages.iter().flat_map(|package| ["--package", package]));
    cargo.env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS", "-C target-feature=+crt-static");
    cargo.envs(environment.iter().copied());
    cargo.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    process::run_long(&mut cargo, &format!("building {}", packages.join(", ")), progress)?;
    Ok(static_folder())
}

/// The archive of `cargo xtask image --another`: an image whose agent is another build, tagged [`ANOTHER`].
#[must_use]
pub fn another() -> PathBuf {
    target_folder().join("image/netkeel-another.tar")
}

/// Where [`build_static`] puts the programs.
#[must_use]
pub fn static_folder() -> PathBuf {
    target_folder().join(STATIC_TARGET).join("release")
}

/// Builds the test workload; returns the program.
pub(crate) fn peer(progress: &Progress) -> Result<PathBuf> {
    Ok(build_static(&["netkeel-e2e-peer"], &[], progress)?.join("netkeel-e2e-peer"))
}

/// Path of [`lookups`]'s programs in the image of the test workload, before the name of the C library.
pub const LOOKUP: &str = "/lookup-";

/// Builds the program that looks names up once for each C library that pods have: `/lookup-musl` and `/lookup-glibc`. Returns what belongs into
/// an image: musl's is static, that of glibc needs the library.
fn lookups(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("peer/lookup.c");
    let mut files = Vec::new();
    for (library, compiler, options) in
        [("musl", "musl-gcc", &["-static"][..]), ("glibc", "cc", &["-Wl,-rpath,/lib64"])]
    {
        let program = folder.join(format!("lookup-{library}"));
        let mut compile = Command::new(compiler);
        compile.args(["-O1", "-Wall", "-Wextra"]).args(options).arg("-o").arg(&program).arg(&source);
        process::run(&mut compile)
            .context("cargo xtask setup installs musl-gcc; cc comes with Rust's linker")?;
        files.push((format!("{LOOKUP}{library}"), program));
    }
    for library in ["libc.so.6", "ld-linux-x86-64.so.2"] {
        let said = process::text(Command::new("cc").arg(format!("-print-file-name={library}")))?;
        let path = Path::new(said.trim()).canonicalize().with_context(|| library.to_owned())?;
        files.push((format!("/lib64/{library}"), path));
    }
    Ok(files)
}

/// Writes the sandbox image and the image of the test workload into `folder`.
pub(crate) fn base(peer: &Path, folder: &Path) -> Result<Vec<PathBuf>> {
    let busybox = Path::new("/bin/busybox");
    let applets = process::text(Command::new(busybox).arg("--list"))?;
    let link = |name: &str| (format!("/bin/{name}"), "/bin/busybox".to_owned());
    let mut files = vec![("/netkeel-e2e-peer".into(), peer.into()), ("/bin/busybox".into(), busybox.into())];
    fs::create_dir_all(folder)?;
    files.extend(lookups(folder)?);
    let workload = Image {
        name: WORKLOAD.into(),
        entrypoint: vec!["/netkeel-e2e-peer".into()],
        files,
        links: applets.lines().filter(|name| *name != "busybox").map(link).collect(),
        gzip: false,
    };
    let pause = Image {
        name: PAUSE.into(),
        entrypoint: vec!["/netkeel-e2e-peer".into(), "pause".into()],
        files: vec![("/netkeel-e2e-peer".into(), peer.into())],
        ..Image::default()
    };
    let paths = ["pause.tar", "netkeel-e2e.tar"].map(|name| folder.join(name));
    for (image, path) in [pause, workload].iter().zip(&paths) {
        image.write(path)?;
    }
    Ok(paths.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_input_gives_the_same_bytes_and_a_sticky_tmp() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("program");
        fs::write(&program, "program").unwrap();
        let image = Image {
            name: "localhost/x:1".into(),
            files: vec![("/usr/bin/x".into(), program)],
            links: vec![("/bin/y".into(), "/usr/bin/x".into())],
            gzip: true,
            ..Image::default()
        };
        let paths = ["a", "b"].map(|name| folder.path().join(name));
        for path in &paths {
            image.write(path).unwrap();
        }
        assert_eq!(fs::read(&paths[0]).unwrap(), fs::read(&paths[1]).unwrap());
        let layer = image.layer().unwrap();
        let mut tar = tar::Archive::new(layer.as_slice());
        let entries: Vec<_> = tar
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                (entry.path().unwrap().display().to_string(), entry.header().mode().unwrap())
            })
            .collect();
        let expected = [
            ("tmp/", 0o1777),
            ("usr/", 0o755),
            ("usr/bin/", 0o755),
            ("usr/bin/x", 0o755),
            ("bin/", 0o755),
            ("bin/y", 0o777),
        ];
        assert_eq!(entries, expected.map(|(path, mode)| (path.to_owned(), mode)));
    }
}
