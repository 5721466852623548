//! From what CoreDNS and kube-dns are told to `spec.dns` of the ClusterNetwork. It changes nothing.

mod finding;
mod input;
mod kube_dns;
mod lexer;
mod map;
mod parser;
mod patch;
#[cfg(test)]
mod tests;
mod value;

use std::{collections::BTreeMap, fs, io::Read as _, path::Path};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use k8s_openapi::api::core::v1::{ConfigMap, Service};

use crate::lister::Lister;
use finding::Findings;
use input::Input;
use map::{Mapped, Wishes};

/// Where DNS of a cluster is configured.
const NAMESPACE: &str = "kube-system";

/// What `migrate corefile` is told.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Options {
    /// The Corefile, or objects that hold one, in YAML or JSON; - is the standard input. Further files are what it imports.
    #[arg(value_name = "FILE", required_unless_present = "from_cluster")]
    files: Vec<String>,
    /// Read what coredns, coredns-custom and kube-dns in kube-system hold, and the address of the Service kube-dns.
    #[arg(long, conflicts_with = "files")]
    from_cluster: bool,
    /// Print the patch even where something has no place in it, and exit with 0.
    #[arg(long)]
    allow_unmapped: bool,
    /// Only say what has no place; print no patch.
    #[arg(long)]
    check: bool,
    /// A variable in CoreDNS's environment, for {$NAME} in the Corefile; may be repeated.
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    env: Vec<(String, String)>,
    /// Secret of type kubernetes.io/tls in kube-system with the certificate of DNS over TLS.
    #[arg(long, value_name = "NAME", value_parser = secret)]
    tls_secret: Option<String>,
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not NAME=VALUE")),
    }
}

fn secret(text: &str) -> Result<String, String> {
    let uniform = value::is_domain(text) && !text.contains('_');
    if uniform { Ok(text.to_owned()) } else { Err(format!("{text:?} is no name of a Secret")) }
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Migrated {
    /// For the standard output: the patch, or nothing.
    pub(crate) patch: String,
    /// For people: what has no place, and what is different.
    pub(crate) told: String,
    /// Nothing is left out, or it may be.
    pub(crate) good: bool,
}

/// Does what the user asks for.
pub(crate) async fn corefile(context: Option<&str>, options: &Options) -> Result<Migrated> {
    let input = if options.from_cluster {
        of_cluster(&Lister::new(netkeel_client::connect_as_user(context).await?)).await?
    } else {
        of_files(&options.files)?
    };
    migrated(&input, options)
}

fn of_files(files: &[String]) -> Result<Input> {
    let mut input = Input::default();
    ensure!(files.iter().filter(|file| *file == "-").count() < 2, "the standard input can be read once");
    for file in files {
        let mut bytes = Vec::new();
        if file == "-" {
            std::io::stdin().read_to_end(&mut bytes).context("read the standard input")?;
        } else {
            bytes = fs::read(Path::new(file)).with_context(|| format!("read {file}"))?;
        }
        let text = String::from_utf8(bytes).with_context(|| format!("{file} is no text in UTF-8"))?;
        input.take(file, &text)?;
    }
    Ok(input.checked()?)
}

async fn of_cluster(lister: &Lister) -> Result<Input> {
    let mut input = Input::default();
    for name in ["coredns", "coredns-custom", "kube-dns"] {
        if let Some(object) = lister.get::<ConfigMap>(NAMESPACE, name).await? {
            input.config_map(object)?;
        }
    }
    // the kubelets tell pods this address, so DNS has to keep it
    let service = lister.get::<Service>(NAMESPACE, "kube-dns").await?;
    input.cluster_ip = service.and_then(|service| service.spec?.cluster_ip?.parse().ok());
    input.checked().context(format!("ConfigMaps coredns and kube-dns of {NAMESPACE}"))
}

fn migrated(input: &Input, options: &Options) -> Result<Migrated> {
    let env: BTreeMap<String, String> = options.env.iter().cloned().collect();
    let mapped = mapped(input, &env, &Wishes { tls_secret: options.tls_secret.clone() })?;
    let findings = mapped.findings.sorted();
    let good = findings.unmapped.is_empty() || options.allow_unmapped;
    let patch = if good && !options.check {
        patch::patch(&mapped.dns).context("print the patch")?
    } else {
        String::new()
    };
    Ok(Migrated { patch, told: told(&findings, options), good })
}

fn mapped(input: &Input, env: &BTreeMap<String, String>, wishes: &Wishes) -> Result<Mapped> {
    let mut mapped = Mapped::default();
    if let Some(corefile) = &input.corefile {
        let mut findings = Findings::default();
        let blocks = parser::parse(corefile, &input.files, env, &mut findings)?;
        ensure!(!blocks.is_empty() || !findings.unmapped.is_empty(), "there is no server block in it");
        mapped = map::map(&blocks, wishes);
        mapped.findings.unmapped.extend(findings.unmapped);
    }
    kube_dns::map(&input.kube_dns, &mut mapped)?;
    mapped.dns.cluster_ip = input.cluster_ip;
    Ok(mapped)
}

fn told(findings: &Findings, options: &Options) -> String {
    let notes = findings.notes.iter().map(|note| format!("note: {note}\n"));
    let unmapped = findings.unmapped.iter().map(|finding| format!("{finding}\n"));
    let mut told: String = notes.chain(unmapped).collect();
    if !findings.unmapped.is_empty() && !options.allow_unmapped {
        told.push_str("no patch: change the above, or go on without it with --allow-unmapped\n");
    }
    told
}
