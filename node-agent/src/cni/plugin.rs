//! The program that the runtime starts for every CNI call. It decides nothing: it checks what it was given, opens the
//! pod's namespace, which the agent may not do, and hands the call over. DEL succeeds without the agent.

mod agent;
mod environment;
mod pod;

use std::{
    io::{self, Read, Write},
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use netkeel_core::ipam::Owner;
use serde_json::{Value, json};

use self::{agent::Agent, environment::Environment};
use super::{
    config::{NetworkConfig, VERSIONS},
    failure::{Failure, INVALID_ENVIRONMENT, IO, UNAVAILABLE},
    heartbeat,
    journal::{Entry, Journal},
    protocol::{self, Request, Verb},
};

/// Answers one call: arguments in the environment, configuration on standard input, result on standard output.
#[must_use]
pub fn main() -> ExitCode {
    let mut input = Vec::new();
    let read = io::stdin().read_to_end(&mut input);
    let done = read
        .map_err(|error| Failure::caused(IO, "standard input cannot be read", &error))
        .and_then(|_| run(&Environment::of_process(), &input));
    let (output, code) = match done {
        Ok(result) => (result, ExitCode::SUCCESS),
        Err(failure) => (Some(failed(&failure, &input)), ExitCode::FAILURE),
    };
    let written = output.map_or(Ok(()), |output| writeln!(io::stdout(), "{output}"));
    if written.is_ok() { code } else { ExitCode::FAILURE }
}

/// An error in the form of the specification, in the version of the configuration where it can be told.
fn failed(failure: &Failure, input: &[u8]) -> Value {
    let mut output = json!(failure);
    output["cniVersion"] = version_of(input).into();
    output
}

fn version_of(input: &[u8]) -> String {
    let config: Value = serde_json::from_slice(input).unwrap_or_default();
    let version = config.get("cniVersion").and_then(Value::as_str);
    version.filter(|version| VERSIONS.contains(version)).unwrap_or(VERSIONS[VERSIONS.len() - 1]).to_owned()
}

fn run(environment: &Environment, input: &[u8]) -> Result<Option<Value>, Failure> {
    if environment.command == "VERSION" {
        return Ok(Some(json!({"cniVersion": version_of(input), "supportedVersions": VERSIONS})));
    }
    let verb = Verb::parse(&environment.command).ok_or_else(|| {
        let msg = format!(
            "CNI_COMMAND {:?} is not one of ADD, DEL, CHECK, STATUS, GC, VERSION",
            environment.command
        );
        Failure::new(INVALID_ENVIRONMENT, msg)
    })?;
    let (config, value) = NetworkConfig::parse(input)?;
    environment.check(verb)?;
    let agent = Agent::new(&config);
    let mut request = request(environment, verb, value);
    match verb {
        Verb::Add | Verb::Check => {
            let pod = pod::open(&environment.netns)?;
            request.called_unix_nanos = now();
            agent.insist(&request, &pod.descriptors())
        }
        Verb::Gc => agent.insist(&request, &[]),
        Verb::Del => del(&agent, &request, &config),
        Verb::Status => status(&agent, &request, &config),
    }
}

fn request(environment: &Environment, verb: Verb, config: Value) -> Request {
    let now = now();
    Request {
        protocol: protocol::VERSION,
        verb,
        container_id: environment.container_id.clone(),
        interface: environment.interface.clone(),
        netns: environment.netns.clone(),
        arguments: environment.arguments.clone(),
        config,
        traceparent: environment.traceparent(),
        parent: environment.parent(),
        started_unix_nanos: now,
        called_unix_nanos: now,
    }
}

/// Nanoseconds of Unix time.
fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or_default()
}

/// An agent that is away makes up for it later.
fn del(agent: &Agent, request: &Request, config: &NetworkConfig) -> Result<Option<Value>, Failure> {
    if let Ok(reply) = agent.ask(request, &[]) {
        return reply;
    }
    let owner = Owner { container_id: request.container_id.clone(), interface: request.interface.clone() };
    let entry = Entry { owner, traceparent: request.traceparent.clone() };
    let written = Journal::new(&config.state_folder()).write(&entry);
    let msg = "the agent is away and the DEL could not be written down for it";
    written.map_err(|error| Failure::caused(IO, msg, &error)).map(|()| None)
}

/// A short absence of the agent is no reason to report the node as not ready.
fn status(agent: &Agent, request: &Request, config: &NetworkConfig) -> Result<Option<Value>, Failure> {
    let lost = match agent.ask(request, &[]) {
        Ok(reply) => return reply,
        Err(lost) => lost,
    };
    match heartbeat::silence(&config.state_folder(), crate::ipam::since_boot()) {
        Some(silence) if silence <= heartbeat::ABSENCE => Ok(None),
        silence => {
            let since = silence
                .map_or("has not run since boot".to_owned(), |s| format!("is silent for {} s", s.as_secs()));
            let msg =
                format!("the netkeel agent of this node {since}: see its pod in the namespace of netkeel");
            Err(Failure::caused(UNAVAILABLE, msg, &lost))
        }
    }
}
