//! The server as a real client sees it.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher::{self, Event, watcher};
use serde_json::json;

use super::FakeApi;

fn service(name: &str) -> serde_json::Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "shop", "name": name}})
}

/// The next thing that a watcher says of an object, in short, errors left out.
async fn next(stream: &mut (impl futures::Stream<Item = watcher::Result<Event<Service>>> + Unpin)) -> String {
    let name = |service: Service| service.metadata.name.unwrap_or_default();
    let event = async {
        loop {
            match stream.try_next().await {
                Ok(event) => break event,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    match tokio::time::timeout(Duration::from_secs(20), event).await.expect("an event in time") {
        Some(Event::Init) => "init".to_owned(),
        Some(Event::InitApply(service)) => format!("init {}", name(service)),
        Some(Event::InitDone) => "ready".to_owned(),
        Some(Event::Apply(service)) => format!("apply {}", name(service)),
        Some(Event::Delete(service)) => format!("delete {}", name(service)),
        None => "end".to_owned(),
    }
}

#[tokio::test]
async fn objects_are_listed_and_read_by_name() {
    let api = FakeApi::start().await.unwrap();
    api.put(service("a"));
    api.put(service("b"));
    let services: Api<Service> = Api::namespaced(api.client().unwrap(), "shop");
    assert_eq!(services.list(&ListParams::default()).await.unwrap().items.len(), 2);
    assert_eq!(services.get("b").await.unwrap().metadata.resource_version.as_deref(), Some("2"));
    assert!(services.get_opt("c").await.unwrap().is_none());
    let elsewhere: Api<Service> = Api::namespaced(api.client().unwrap(), "elsewhere");
    assert!(elsewhere.list(&ListParams::default()).await.unwrap().items.is_empty());
}

#[tokio::test]
async fn objects_are_made_once_replaced_at_their_version_and_merged() {
    let api = FakeApi::start().await.unwrap();
    let services: Api<Service> = Api::namespaced(api.client().unwrap(), "shop");
    let made = serde_json::from_value(service("a")).unwrap();
    services.create(&PostParams::default(), &made).await.unwrap();
    let twice = services.create(&PostParams::default(), &made).await.unwrap_err();
    assert!(matches!(twice, kube::Error::Api(status) if status.code == 409));
    let read = services.get("a").await.unwrap();
    services.replace("a", &PostParams::default(), &read).await.unwrap();
    let late = services.replace("a", &PostParams::default(), &read).await.unwrap_err();
    assert!(matches!(late, kube::Error::Api(status) if status.code == 409));
    let patch = Patch::Merge(json!({"metadata": {"labels": {"tier": "web"}}}));
    services.patch_status("a", &PatchParams::default(), &patch).await.unwrap();
    let labels = services.get("a").await.unwrap().metadata.labels.unwrap();
    assert_eq!(labels["tier"], "web");
    let missing = services.patch("b", &PatchParams::default(), &patch).await.unwrap_err();
    assert!(matches!(missing, kube::Error::Api(status) if status.code == 404));
}

#[tokio::test]
async fn watches_see_changes_and_start_again_after_an_outage_and_after_forgotten_history() {
    for config in [watcher::Config::default(), watcher::Config::default().streaming_lists()] {
        let api = FakeApi::start().await.unwrap();
        api.put(service("a"));
        let services: Api<Service> = Api::all(api.client().unwrap());
        let mut stream = watcher(services, config).boxed();
        for expected in ["init", "init a", "ready"] {
            assert_eq!(next(&mut stream).await, expected);
        }
        api.put(service("b"));
        assert_eq!(next(&mut stream).await, "apply b");
        api.delete("v1", "Service", Some("shop"), "a");
        assert_eq!(next(&mut stream).await, "delete a");

        api.set_down(true);
        api.put(service("c"));
        api.set_down(false);
        assert_eq!(next(&mut stream).await, "apply c");

        api.compact();
        for expected in ["init", "init b", "init c", "ready"] {
            assert_eq!(next(&mut stream).await, expected);
        }
    }
}
