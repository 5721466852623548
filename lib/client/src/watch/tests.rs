//! Watches of an API server that freezes: connections stay open and nobody says a word.

use std::time::{Duration, Instant};

use futures::StreamExt;
use k8s_openapi::api::core::v1::Service;
use netkeel_testkit::api::{FakeApi, Streams};
use serde_json::json;

use super::*;
use crate::Signs;

/// What kube waits for longer than the watch should last.
const MARGIN: u32 = 5;

fn service(name: &str) -> serde_json::Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "shop", "name": name}})
}

#[test]
fn a_stall_is_found_within_twenty_seconds() {
    const { assert!(WATCH_SECONDS + MARGIN <= 20) };
}

/// One name of what an event is of.
fn told(event: Event<Service>) -> Vec<String> {
    let name = |service: Service| service.metadata.name.unwrap_or_default();
    match event {
        Event::Reset { objects, .. } => objects.into_iter().map(name).collect(),
        Event::Apply(service) => vec![name(service)],
        other => vec![format!("{other:?}")],
    }
}

#[tokio::test]
async fn a_watch_that_nobody_serves_any_more_is_begun_anew() {
    let api = FakeApi::start().await.unwrap();
    api.put(service("a"));
    let signs = Signs::default();
    let services: Api<DeserializeGuard<Service>> = Api::all(signs.attend(&api.client().unwrap()));
    let lasting = Config::default().timeout(1);
    let mut events = std::pin::pin!(watch_for(services, lasting, |service| service));
    let patience = Duration::from_secs(u64::from(MARGIN) + 10);
    let next = async |events: &mut std::pin::Pin<&mut _>| {
        told(tokio::time::timeout(patience, StreamExt::next(events)).await.unwrap().unwrap())
    };
    assert_eq!(next(&mut events).await, ["a"]);

    // The watch itself has to be open before it can be silenced.
    api.put(service("b"));
    assert_eq!(next(&mut events).await, ["b"]);
    assert!(signs.age() < Duration::from_secs(1), "{:?}", signs.age());
    api.set_silent(true);
    api.put(service("c"));
    let frozen = Instant::now();
    let quiet = tokio::time::timeout(Duration::from_millis(1500), events.next()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    assert!(signs.age() > Duration::from_secs(1), "{:?}", signs.age());
    api.set_silent(false);
    assert_eq!(next(&mut events).await, ["c"], "the old watch stays silent for ever");
    let found = frozen.elapsed();
    assert!(found < Duration::from_secs(u64::from(MARGIN) + 5), "{found:?}");
    assert!(signs.age() < Duration::from_secs(1), "{:?}", signs.age());
}

#[tokio::test]
async fn lists_come_in_pages_where_the_api_server_does_not_stream_them_to_their_end() {
    for (streams, lists) in
        [(Streams::Whole, 0), (Streams::Refused, 1), (Streams::Failing, 1), (Streams::Cut, 1)]
    {
        let api = FakeApi::start().await.unwrap();
        api.set_streams(streams);
        for name in ["a", "b"] {
            api.put(service(name));
        }
        let services: Api<DeserializeGuard<Service>> = Api::all(api.client().unwrap());
        let mut events = std::pin::pin!(watch(services, Config::default()));
        let next = async |events: &mut std::pin::Pin<&mut _>| {
            told(
                tokio::time::timeout(Duration::from_secs(10), StreamExt::next(events))
                    .await
                    .unwrap()
                    .unwrap(),
            )
        };
        assert_eq!(next(&mut events).await, ["a", "b"], "{streams:?}");
        api.put(service("c"));
        assert_eq!(next(&mut events).await, ["c"], "{streams:?}");
        assert_eq!(api.lists(), lists, "{streams:?}");
    }
}

#[test]
fn only_what_a_list_comes_to_says_whether_lists_can_be_streamed() {
    let status = |code| {
        let status = kube::core::Status { code, ..kube::core::Status::default() };
        Err(watcher::Error::WatchStartFailed(kube::Error::Api(status.boxed())))
    };
    let gone = || {
        let status = kube::core::Status { code: 410, ..kube::core::Status::default() };
        Err(watcher::Error::WatchError(status.boxed()))
    };
    let mut lists = Lists::default();
    let mut fails = |event: watcher::Result<watcher::Event<Service>>| lists.failure(&event).is_some();
    assert!(!fails(status(503)) && !fails(status(403)) && !fails(status(429)), "the next attempt may do");
    assert!(!fails(Ok(watcher::Event::Init)) && !fails(gone()) && !fails(Ok(watcher::Event::Init)));
    assert!(!fails(Ok(watcher::Event::InitDone)));
    assert!(!fails(status(500)) && !fails(status(422)), "a watch that goes on is none of a list");
    assert!(!fails(gone()) && fails(status(422)), "the next list is refused");
    assert!(!fails(Ok(watcher::Event::Init)) && fails(Ok(watcher::Event::Init)), "a list broke off");
}

#[tokio::test]
async fn the_oldest_of_all_watches_counts_and_failures_are_no_signs_of_life() {
    let api = FakeApi::start().await.unwrap();
    let signs = Signs::default();
    assert_eq!(signs.age(), Duration::ZERO, "there is no watch to worry about");
    let [one, other] = [0, 1].map(|_| Api::<Service>::all(signs.attend(&api.client().unwrap())));
    tokio::time::sleep(Duration::from_millis(300)).await;
    one.list(&kube::api::ListParams::default()).await.unwrap();
    assert!(signs.age() >= Duration::from_millis(300), "the other has heard nothing");
    other.list(&kube::api::ListParams::default()).await.unwrap();
    assert!(signs.age() < Duration::from_millis(300), "{:?}", signs.age());
    tokio::time::sleep(Duration::from_millis(300)).await;
    for services in [&one, &other] {
        let services = Api::<Service>::namespaced(services.clone().into_client(), "shop");
        assert!(services.get("missing").await.is_err());
    }
    assert!(signs.age() >= Duration::from_millis(300), "{:?}", signs.age());
}

#[tokio::test]
async fn a_watch_that_is_given_up_is_not_missed() {
    let api = FakeApi::start().await.unwrap();
    let signs = Signs::default();
    let [one, other] = [0, 1].map(|_| Api::<Service>::all(signs.attend(&api.client().unwrap())));
    tokio::time::sleep(Duration::from_millis(300)).await;
    one.list(&kube::api::ListParams::default()).await.unwrap();
    assert!(signs.age() >= Duration::from_millis(300));
    drop(other);
    // the task behind a client ends in a moment
    let end = Instant::now() + Duration::from_secs(10);
    while signs.age() >= Duration::from_millis(300) {
        assert!(Instant::now() < end, "{:?}", signs.age());
        one.list(&kube::api::ListParams::default()).await.unwrap();
    }
    drop(one);
    while signs.age() > Duration::ZERO {
        assert!(Instant::now() < end, "{:?}", signs.age());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
