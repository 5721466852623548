//! What a user sees of Netkeel from outside: traces in a real Jaeger, and the dashboard's queries in a real Prometheus.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use netkeel_e2e::dashboard;
use netkeel_e2e::jaeger::{Span, Trace, tree};
use netkeel_e2e::workload::{Workload, install};
use netkeel_e2e::{Cluster, IpFamily, Progress, wait_until};

const SOON: Duration = Duration::from_mins(1);
/// The annotation by which a user hands in a traceparent.
const ANNOTATION: &str = "netkeel.io/traceparent";

/// A trace id that was never used before. Jaeger takes zeros off its front, so that there are none.
fn new_id() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("c{:031x}", now.as_nanos())
}

/// A cluster of this program's own, whose programs know by now where traces go.
fn cluster() -> Result<&'static Cluster> {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    let cluster = CLUSTER
        .get_or_init(|| install::installed("observed", IpFamily::Ipv4).expect("a cluster with Netkeel"));
    cluster.observe(&Progress::start())?;
    let path =
        ["-n", "observability", "get", "service", "jaeger-collector", "-o", "jsonpath={.spec.clusterIP}"];
    told(cluster, &format!("http://{}:4317", cluster.kubectl(&path)?.trim()))?;
    Ok(cluster)
}

/// Waits until every node is told this endpoint, and has applied it.
fn told(cluster: &Cluster, endpoint: &str) -> Result<()> {
    wait_until(&format!("nodes are told {endpoint:?}"), Duration::from_secs(90), || {
        in_force(cluster, "{.spec.config.tracesEndpoint}", endpoint)
    })
}

/// Whether `path` of every NodeNetwork is `wanted`, and applied.
fn in_force(cluster: &Cluster, path: &str, wanted: &str) -> Result<()> {
    for node in cluster.nodes() {
        let path = format!("jsonpath={path}|{{.spec.revision}}|{{.status.appliedRevision}}");
        let text = cluster.kubectl(&["get", "nodenetwork", &node.name, "-o", &path])?;
        let words: Vec<&str> = text.split('|').collect();
        ensure!(
            words.len() == 3 && words[0].contains(wanted) && words[1] == words[2],
            "{}: {text}",
            node.name
        );
        ensure!(!wanted.is_empty() || words[0].is_empty(), "{}: {text}", node.name);
    }
    Ok(())
}

/// A harmless change that goes to every node: one more destination that sees pods' own addresses. Gives the generation
/// of the edit, and the destination.
fn edit(cluster: &Cluster, metadata: &str) -> Result<(String, String)> {
    let generation =
        || cluster.kubectl(&["get", "clusternetwork", "default", "-o", "jsonpath={.metadata.generation}"]);
    let number: u32 = generation()?.trim().parse()?;
    let destination = format!("203.0.113.{}/32", number % 250 + 1);
    let patch = format!(
        r#"{{"metadata":{{{metadata}}},"spec":{{"podNetwork":{{"masquerade":{{"excludedCIDRs":["{destination}"]}}}}}}}}"#
    );
    cluster.kubectl(&["patch", "clusternetwork", "default", "--type=merge", "-p", &patch])?;
    Ok((generation()?.trim().to_owned(), destination))
}

/// The trace of the edit of this generation, once it is complete.
fn trace_of_edit(cluster: &Cluster, generation: &str) -> Result<Trace> {
    wait_until("the edit's trace is complete", SOON, || {
        let tags = [("netkeel.generation", generation)];
        let traces = cluster.jaeger_traces("netkeel-operator", Some("edit"), &tags)?;
        ensure!(traces.len() < 2, "{} traces of one edit", traces.len());
        let trace =
            traces.into_iter().next().with_context(|| format!("no trace of generation {generation}"))?;
        for node in cluster.nodes() {
            ensure!(apply_on(&trace, &node.name).is_some(), "{} is missing in\n{}", node.name, tree(&trace));
        }
        Ok(trace)
    })
}

fn apply_on<'a>(trace: &'a Trace, node: &str) -> Option<&'a Span> {
    trace.named("apply").find(|span| span.tags.get("k8s.node.name").is_some_and(|on| on == node))
}

/// The edit is the root, its passes hang on it, each agent's work on the write of its NodeNetwork that took effect: one that came too late, since
/// the agent had just reported, is done again by the next pass.
fn check_edit(cluster: &Cluster, trace: &Trace) -> Result<()> {
    let edit = trace.span("edit")?;
    let reconcile = trace.span("reconcile")?;
    ensure!(reconcile.parent.as_ref() == Some(&edit.id), "{}", tree(trace));
    for part in ["observe", "plan", "report"] {
        ensure!(trace.children(reconcile).any(|span| span.operation == part), "{part}: {}", tree(trace));
    }
    for node in cluster.nodes() {
        let apply = apply_on(trace, &node.name).context("it was there")?;
        let write = trace
            .named("write NodeNetwork")
            .find(|span| apply.parent.as_ref() == Some(&span.id))
            .with_context(|| format!("{} hangs elsewhere:\n{}", node.name, tree(trace)))?;
        ensure!(write.tags["netkeel.object"] == node.name, "{} is another's:\n{}", node.name, tree(trace));
        ensure!(!write.tags.contains_key("netkeel.effect"), "{} was stale:\n{}", node.name, tree(trace));
        ensure!(trace.descends(write, edit), "{}", tree(trace));
        ensure!(apply.service == "netkeel-agent" && write.service == "netkeel-operator");
        for part in ["settings", "device", "tunnels", "routes", "masquerade"] {
            ensure!(trace.children(apply).any(|span| span.operation == part), "{part}: {}", tree(trace));
        }
    }
    Ok(())
}

#[test]
fn an_edit_is_one_trace_from_the_operator_to_every_nodes_kernel() -> Result<()> {
    let cluster = cluster()?;
    let (generation, _) = edit(cluster, "")?;
    let trace = trace_of_edit(cluster, &generation)?;
    println!("{}", tree(&trace));
    ensure!(trace.span("edit")?.parent.is_none(), "{}", tree(&trace));
    check_edit(cluster, &trace)
}

#[test]
fn a_traceparent_that_the_user_hands_in_goes_on() -> Result<()> {
    let cluster = cluster()?;
    let (id, parent) = (new_id(), "b7ad6b7169203331");
    let annotation = format!(r#""annotations":{{"{ANNOTATION}":"00-{id}-{parent}-01"}}"#);
    let (generation, _) = edit(cluster, &annotation)?;
    let trace = trace_of_edit(cluster, &generation)?;
    ensure!(trace.id == id, "trace {} instead of {id}", trace.id);
    ensure!(trace.span("edit")?.parent.as_deref() == Some(parent), "{}", tree(&trace));
    check_edit(cluster, &trace)?;
    cluster.kubectl(&["annotate", "clusternetwork", "default", &format!("{ANNOTATION}-")]).map(drop)
}

/// The trace of a pod's ADD or DEL.
fn trace_of_call(cluster: &Cluster, name: &str, namespace: &str, pod: &str) -> Result<Trace> {
    wait_until(&format!("the trace of {name} is complete"), SOON, || {
        let tags = [("k8s.namespace.name", namespace), ("k8s.pod.name", pod)];
        let traces = cluster.jaeger_traces("netkeel-agent", Some(name), &tags)?;
        let trace = traces.into_iter().next().with_context(|| format!("no trace of {name} of {pod}"))?;
        trace.span(&name.replace("CNI", "agent"))?;
        Ok(trace)
    })
}

#[test]
fn a_pods_start_and_end_are_one_trace_each() -> Result<()> {
    let cluster = cluster()?;
    let workload = Workload::new(cluster, "traced")?;
    workload.pod("a", "n2")?;
    workload.ready()?;
    let add = trace_of_call(cluster, "CNI ADD", "traced", "a")?;
    println!("{}", tree(&add));
    check_call(
        &add,
        "ADD",
        &["open namespace"],
        &["allocate", "link.create", "datapath.add", "link.configure"],
    )?;
    cluster.kubectl(&["-n", "traced", "delete", "pod", "a", "--wait=true"])?;
    let del = trace_of_call(cluster, "CNI DEL", "traced", "a")?;
    println!("{}", tree(&del));
    check_call(&del, "DEL", &[], &["datapath.remove", "route.remove", "release"])?;
    ensure!(del.id != add.id);
    Ok(())
}

fn check_call(trace: &Trace, verb: &str, plugin: &[&str], agent: &[&str]) -> Result<()> {
    let (call, served) = (trace.span(&format!("CNI {verb}"))?, trace.span(&format!("agent {verb}"))?);
    ensure!(served.parent.as_ref() == Some(&call.id), "{}", tree(trace));
    ensure!(call.tags["process.executable.name"] == "netkeel-cni" && call.tags["k8s.node.name"] == "n2");
    for (span, parts) in [(call, plugin), (served, agent)] {
        for part in parts {
            let found = trace.children(span).find(|child| child.operation == *part);
            let found = found.with_context(|| format!("no {part} in\n{}", tree(trace)))?;
            ensure!(found.start >= span.start && found.duration <= span.duration, "{}", tree(trace));
        }
    }
    Ok(())
}

/// The plugin as a runtime calls it, with a trace of its own.
#[test]
fn a_runtimes_trace_goes_on_in_the_plugin() -> Result<()> {
    let cluster = cluster()?;
    let (id, parent) = (new_id(), "c7ad6b7169203331");
    let list: serde_json::Value =
        serde_json::from_str(&cluster.node_exec("n1", &["cat", "/etc/cni/net.d/05-netkeel.conflist"])?)?;
    let mut one = list["plugins"][0].clone();
    one["cniVersion"] = list["cniVersion"].clone();
    one["name"] = list["name"].clone();
    let call = |verb| {
        format!(
            "echo '{one}' | CNI_COMMAND={verb} CNI_CONTAINERID={id} CNI_NETNS=/run/netns/traced CNI_IFNAME=eth0 \
             CNI_PATH=/opt/cni/bin TRACEPARENT=00-{id}-{parent}-01 /opt/cni/bin/netkeel-cni"
        )
    };
    let script =
        format!("set -e; ip netns add traced; {}; {}; ip netns del traced", call("ADD"), call("DEL"));
    cluster.node_exec("n1", &["sh", "-c", &script])?;
    let trace = wait_until("the runtime's trace is complete", SOON, || {
        let trace = cluster.jaeger_trace(&id)?;
        ensure!(
            trace.named("CNI ADD").count() == 1 && trace.named("CNI DEL").count() == 1,
            "{}",
            tree(&trace)
        );
        ensure!(
            trace.named("agent ADD").count() == 1 && trace.named("agent DEL").count() == 1,
            "{}",
            tree(&trace)
        );
        Ok(trace)
    })?;
    for call in ["CNI ADD", "CNI DEL"] {
        ensure!(trace.span(call)?.parent.as_deref() == Some(parent), "{}", tree(&trace));
    }
    Ok(())
}

/// Sets the share of questions that are traced, and waits until all DNS servers have it.
fn trace_dns(cluster: &Cluster, ratio: &str) -> Result<()> {
    let patch =
        format!(r#"{{"spec":{{"observability":{{"traces":{{"samplingRatios":{{"dns":{ratio}}}}}}}}}}}"#);
    cluster.kubectl(&["patch", "clusternetwork", "default", "--type=merge", "-p", &patch])?;
    wait_until("the operator has told the DNS servers", SOON, || {
        let deployment =
            cluster.kubectl(&["-n", "kube-system", "get", "deployment", "netkeel-dns", "-o", "json"])?;
        ensure!(deployment.contains(&format!("\"{ratio}\"")), "{ratio} is not in its command");
        Ok(())
    })?;
    let rollout = ["-n", "kube-system", "rollout", "status", "deployment/netkeel-dns", "--timeout=2m"];
    cluster.kubectl(&rollout).map(drop)
}

#[test]
fn questions_to_dns_are_traced_with_their_upstream_call() -> Result<()> {
    let cluster = cluster()?;
    let workload = Workload::new(cluster, "traced-dns")?;
    workload.pod("a", "n1")?;
    workload.ready()?;
    let client = workload.client("a")?;
    trace_dns(cluster, "1")?;
    let found = wait_until("a question's trace is there", SOON, || {
        let asked = |name| -> Result<Vec<Trace>> {
            client.resolve(name, "A", false)?;
            let traces =
                cluster.jaeger_traces("netkeel-dns", Some("dns query"), &[("dns.question.name", name)])?;
            ensure!(!traces.is_empty(), "no trace of {name}");
            Ok(traces)
        };
        let first = |mut traces: Vec<Trace>| traces.remove(0);
        // What a server has asked once it keeps for a while: of its questions one at least went on.
        let (mut outside, inside) =
            (asked("outside.test.")?, first(asked("kubernetes.default.svc.cluster.local.")?));
        let upstream = outside.iter().position(|trace| trace.span("dns upstream").is_ok());
        let upstream = upstream.with_context(|| format!("nobody was asked in {}", tree(&outside[0])))?;
        Ok((outside.swap_remove(upstream), inside))
    });
    trace_dns(cluster, "0.01")?;
    let (outside, inside) = found?;
    println!("{}", tree(&outside));
    let (query, upstream) = (outside.span("dns query")?, outside.span("dns upstream")?);
    ensure!(upstream.parent.as_ref() == Some(&query.id), "{}", tree(&outside));
    ensure!(upstream.tags["server.address"] == "172.30.0.1", "{upstream:?}");
    ensure!(query.duration >= upstream.duration, "{}", tree(&outside));
    ensure!(inside.spans.len() == 1, "a name of the cluster is asked nowhere:\n{}", tree(&inside));
    Ok(())
}

/// Sum of a counter of all programs.
fn sum(cluster: &Cluster, what: &str) -> Result<f64> {
    let found =
        cluster.prometheus_query(&format!(r#"sum({{__name__=~"netkeel_.+_trace_spans_{what}_total"}})"#))?;
    Ok(found.first().context("no such counter")?.value)
}

#[test]
fn a_dead_collector_changes_nothing_but_counters() -> Result<()> {
    let cluster = cluster()?;
    let workload = Workload::new(cluster, "untraced")?;
    let scraped = || sum(cluster, "dropped");
    let before = wait_until("the counters are scraped", Duration::from_secs(90), scraped)?;
    cluster.stop_jaeger()?;
    let edited = edit(cluster, "").and_then(|(generation, destination)| {
        workload.pod("a", "n1")?;
        workload.pod("b", "n2")?;
        workload.ready()?;
        wait_until("the edit is in force", SOON, || {
            in_force(cluster, "{.spec.config.masquerade.excludedCIDRs}", &destination)
        })?;
        wait_until("lost spans are counted", Duration::from_secs(90), || {
            let now = sum(cluster, "dropped")?;
            ensure!(now > before, "{now} spans are lost, {before} before generation {generation}");
            Ok(())
        })
    });
    cluster.start_jaeger(&Progress::start())?;
    edited?;
    install::wait_available(cluster)?;
    // The way to the new one is found again.
    let (generation, _) = edit(cluster, "")?;
    trace_of_edit(cluster, &generation).map(drop)
}

#[test]
fn a_collector_that_appears_is_found_and_one_that_goes_is_forgotten() -> Result<()> {
    let cluster = cluster()?;
    cluster.kubectl(&["-n", "observability", "delete", "service", "jaeger-collector"])?;
    let gone = told(cluster, "");
    self::cluster()?;
    gone?;
    install::wait_available(cluster)
}

#[test]
fn every_expression_of_the_dashboard_returns_series_of_the_cluster() -> Result<()> {
    let cluster = cluster()?;
    let map = cluster.kubectl_json(&["get", "configmap", "-A", "-l", "grafana_dashboard=1"])?;
    let text =
        map["items"][0]["data"]["cluster-overview.json"].as_str().context("the chart ships the dashboard")?;
    serde_json::from_str::<serde_json::Value>(text).context("what the chart ships is JSON")?;
    let workload = Workload::new(cluster, "measured")?;
    workload.pod("a", "n1")?;
    workload.ready()?;
    let client = workload.client("a")?;
    wait_until("every expression returns series", Duration::from_secs(90), || {
        client.resolve("outside.test.", "A", false)?;
        for (title, expression) in dashboard::expressions()? {
            let series = cluster.prometheus_query(&expression)?;
            if series.is_empty() {
                bail!("panel {title:?} is empty: {expression}");
            }
        }
        Ok(())
    })?;
    for (url, error) in cluster.prometheus_targets()? {
        ensure!(error.is_none(), "{url} cannot be scraped: {error:?}");
    }
    Ok(())
}
