//! The commands of the user's documentation, run as they stand there, on a cluster of their own.
//!
//! A fenced block of `sh` is run; one of `sh alternative` stands for another block and its helm commands are only tried
//! (`--dry-run=server`). A command in running text or a table that begins with `kubectl`, `helm` or `netkeel` is run too. `NAMESPACE`,
//! `POD`, `PORT`, `SERVICE` and `NODE` stand for the reader's own. `docs/install.md` is followed from its first line to its last.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};
use netkeel_e2e::workload::{Workload, install, node_names};
use netkeel_e2e::{Cluster, process};

/// What the reader's own things are called in the documentation, and here.
const NAMES: [(&str, &str); 5] =
    [("NAMESPACE", "shop"), ("POD", "client"), ("PORT", "7000"), ("SERVICE", "web"), ("NODE", "n2")];
/// The section of `install.md` that comes when everything else was tried.
const LAST: &str = "Uninstall";
/// Exit codes that `netkeel` documents as answers.
const ANSWERS: [i32; 2] = [0, 1];

#[derive(Debug, PartialEq, Eq)]
struct Snippet {
    line: usize,
    section: String,
    alternative: bool,
    text: String,
}

/// The commands of a page, in its order.
fn snippets(page: &str) -> Vec<Snippet> {
    let (mut found, mut section, mut open) = (Vec::new(), String::new(), None::<(usize, String, String)>);
    for (number, line) in (1..).zip(page.lines()) {
        if let Some(info) = line.trim_start().strip_prefix("```") {
            open = match open.take() {
                None => Some((number, info.to_owned(), String::new())),
                Some((line, info, text)) => {
                    if info == "sh" || info == "sh alternative" {
                        found.push(Snippet {
                            line,
                            section: section.clone(),
                            alternative: info != "sh",
                            text,
                        });
                    }
                    None
                }
            };
        } else if let Some((_, _, text)) = &mut open {
            text.push_str(line);
            text.push('\n');
        } else if let Some(title) = line.strip_prefix('#') {
            title.trim_start_matches('#').trim().clone_into(&mut section);
        } else {
            let inline = line.split('`').skip(1).step_by(2).filter(|code| is_command(code));
            found.extend(inline.map(|code| Snippet {
                line: number,
                section: section.clone(),
                alternative: false,
                text: format!("{code}\n"),
            }));
        }
    }
    found
}

/// Whether a piece of code in running text is a whole command: helm does nothing without a release.
fn is_command(code: &str) -> bool {
    let words: Vec<&str> = code.split(' ').collect();
    let least = match words[0] {
        "kubectl" | "netkeel" => 2,
        "helm" => 3,
        _ => return false,
    };
    words.len() >= least && !code.contains('…')
}

/// A place where the reader's programs are those of the test cluster.
struct Reader {
    cluster: Cluster,
    programs: PathBuf,
}

impl Reader {
    fn new() -> Result<Self> {
        Cluster::down("docs")?; // one that an earlier run left is not as the reader's
        let cluster = install::bare("docs")?;
        let programs = cluster.folder().join("docs-programs");
        fs::create_dir_all(&programs)?;
        for (name, command) in [
            ("kubectl", cluster.kubectl_command()?),
            ("helm", cluster.helm_command()?),
            ("netkeel", cluster.fabric_command(&install::netkeel()?)?),
        ] {
            let variables = command.get_envs().filter_map(|(name, value)| Some((name, value?)));
            let variables: Vec<String> =
                variables.map(|(name, value)| format!("{}={}", name.display(), value.display())).collect();
            let script = format!(
                "#!/bin/sh\nexec env {} {} \"$@\"\n",
                variables.join(" "),
                process::describe(&command)
            );
            let path = programs.join(name);
            fs::write(&path, script)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        }
        Ok(Self { cluster, programs })
    }

    fn run(&self, page: &str, snippet: &Snippet) -> Result<()> {
        let mut text = snippet.text.clone();
        for (name, here) in NAMES {
            text = text.replace(name, here);
        }
        if snippet.alternative {
            text = text.replace("helm install", "helm install --dry-run=server");
        }
        let path = format!("{}:{}", self.programs.display(), std::env::var("PATH")?);
        let mut shell = Command::new("sh");
        shell.args(["-euc", &text]).env("PATH", path).env("EDITOR", "true").current_dir(repository());
        let output = shell.output()?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        println!("--- {page}:{} ({})\n{text}{said}", snippet.line, snippet.section);
        let accepted = output
            .status
            .code()
            .is_some_and(|code| code == 0 || (text.starts_with("netkeel ") && ANSWERS.contains(&code)));
        ensure!(accepted, "{page}:{}: {}\n{text}{said}", snippet.line, output.status);
        Ok(())
    }

    /// Runs the snippets of a page that `which` picks; all that fail are named.
    fn follow(&self, page: &str, which: impl Fn(&Snippet) -> bool) -> Result<usize> {
        let path = repository().join("docs").join(page);
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let snippets: Vec<Snippet> = snippets(&text).into_iter().filter(|snippet| which(snippet)).collect();
        let failed: Vec<String> = snippets
            .iter()
            .filter_map(|snippet| self.run(page, snippet).err().map(|error| format!("{error:#}")))
            .collect();
        ensure!(failed.is_empty(), "{}", failed.join("\n"));
        Ok(snippets.len())
    }
}

fn repository() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).to_owned())
}

/// What the reader has in the cluster.
fn sample(cluster: &Cluster) -> Result<()> {
    let workload = Workload::new(cluster, "shop")?;
    workload.pod("client", &node_names(cluster)[0])?;
    workload.deployment("web", 2)?;
    workload.service("web")?;
    workload.wait_endpoints("web", 2)?;
    workload.ready()
}

#[test]
fn every_command_of_the_users_documentation_works_as_it_stands() {
    let reader = Reader::new().unwrap();
    let mut run = reader.follow("install.md", |snippet| snippet.section != LAST).unwrap();
    install::wait_available(&reader.cluster).unwrap();
    sample(&reader.cluster).unwrap();
    for page in ["concepts.md", "operate.md", "troubleshoot.md", "observability.md"] {
        run += reader.follow(page, |_| true).unwrap();
        install::wait_available(&reader.cluster).unwrap();
    }
    run += reader.follow("install.md", |snippet| snippet.section == LAST).unwrap();
    println!("{run} commands of the documentation were run");
    assert!(run > 20, "only {run} commands were found: is the documentation still read?");
    Cluster::down("docs").unwrap();
}

#[test]
fn commands_are_found_in_blocks_and_in_text() {
    let page = "# One\n`netkeel status` and `kubectl … x`, `kubectl`, `helm upgrade`\n```sh\na\nb\n```\n```yaml\nc: 1\n```\n## Two\n```sh alternative\nd\n```\n";
    let found = snippets(page);
    let texts: Vec<_> = found.iter().map(|s| (s.line, &*s.section, s.alternative, &*s.text)).collect();
    assert_eq!(
        texts,
        [(2, "One", false, "netkeel status\n"), (3, "One", false, "a\nb\n"), (11, "Two", true, "d\n")]
    );
}
