//! Watches against a small API server.

use std::{pin::pin, time::Duration};

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Service;
use kube::{Api, runtime::watcher::Config};
use netkeel_client::{Event, watch};
use netkeel_testkit::api::FakeApi;
use serde_json::{Value, json};

fn service(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "shop"}, "spec": spec})
}

fn readable(name: &str) -> Value {
    service(name, &json!({"clusterIP": "10.96.0.1"}))
}

fn broken(name: &str) -> Value {
    service(name, &json!({"ports": "none"}))
}

async fn next(events: &mut (impl Stream<Item = Event<Service>> + Unpin)) -> Event<Service> {
    tokio::time::timeout(Duration::from_secs(10), events.next())
        .await
        .expect("an event in time")
        .expect("watches never end")
}

fn services(api: &FakeApi) -> impl Stream<Item = Event<Service>> + use<> {
    watch(Api::all(api.client().expect("a client of the small API server")), Config::default())
}

#[tokio::test]
async fn an_object_that_cannot_be_read_is_named_and_blocks_no_other() {
    let api = FakeApi::start().await.unwrap();
    api.put(broken("bad"));
    api.put(readable("good"));
    let mut events = pin!(services(&api));
    let Event::Reset { objects, undecodable } = next(&mut events).await else { panic!("no reset first") };
    assert_eq!(objects.len(), 1);
    assert_eq!((undecodable[0].namespace.as_deref(), undecodable[0].name.as_str()), (Some("shop"), "bad"));

    api.put(broken("worse"));
    assert!(matches!(next(&mut events).await, Event::Undecodable(found) if found.name == "worse"));
    api.put(readable("better"));
    assert!(
        matches!(next(&mut events).await, Event::Apply(found) if found.metadata.name.as_deref() == Some("better"))
    );
    api.delete("v1", "Service", Some("shop"), "bad");
    assert!(matches!(next(&mut events).await, Event::Delete { name, .. } if name == "bad"));
}

#[tokio::test]
async fn a_watch_outlives_an_absence_of_the_api_server() {
    let api = FakeApi::start().await.unwrap();
    api.put(readable("first"));
    let mut events = pin!(services(&api));
    next(&mut events).await;
    api.set_down(true);
    api.put(readable("second"));
    tokio::time::sleep(Duration::from_millis(100)).await;
    api.set_down(false);
    let seen = match next(&mut events).await {
        Event::Apply(found) => found.metadata.name.into_iter().collect(),
        Event::Reset { objects, .. } => {
            objects.into_iter().filter_map(|found| found.metadata.name).collect::<Vec<_>>()
        }
        other => panic!("{other:?}"),
    };
    assert!(seen.contains(&"second".to_owned()), "{seen:?}");
}
