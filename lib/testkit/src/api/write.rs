//! Writes as API clients send them: create, replace with a resource version, merge patch. A subresource is its object.

use axum::http::{Method, StatusCode};
use axum::response::Response;
use serde_json::Value;

use super::State;
use super::http::{Request, json_response, status};

/// Does one write and answers with the object as it is then.
pub(super) fn write(state: &State, method: &Method, request: &Request, body: &[u8]) -> Response {
    let Ok(mut sent) = serde_json::from_slice::<Value>(body) else {
        return status(StatusCode::BAD_REQUEST, "BadRequest", "the body is not JSON");
    };
    let name = request.name.clone().or_else(|| Some(sent["metadata"]["name"].as_str()?.to_owned()));
    let present = state.lock().list(&request.resource, request.namespace.as_deref());
    let present = present.into_iter().find(|object| object["metadata"]["name"].as_str() == name.as_deref());
    let what = format!("{} {}", request.resource, name.unwrap_or_default());
    let object = match (method, present) {
        (&Method::POST, Some(_)) => {
            return status(StatusCode::CONFLICT, "AlreadyExists", &format!("{what} already exists"));
        }
        (&Method::POST, None) => {
            if let Some(namespace) = &request.namespace {
                sent["metadata"]["namespace"] = namespace.clone().into();
            }
            sent
        }
        (_, None) => return status(StatusCode::NOT_FOUND, "NotFound", &format!("{what} not found")),
        (&Method::PUT | &Method::PATCH, Some(present)) if is_stale(&sent, &present) => {
            return status(StatusCode::CONFLICT, "Conflict", &format!("{what} has been modified"));
        }
        (&Method::PUT, Some(_)) => sent,
        (&Method::PATCH, Some(mut present)) => {
            merge(&mut present, sent);
            present
        }
        _ => return status(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "no such write"),
    };
    state.put(object.clone());
    json_response(StatusCode::OK, &object)
}

/// Whether a write names another version than the present one.
fn is_stale(sent: &Value, present: &Value) -> bool {
    let version = &sent["metadata"]["resourceVersion"];
    version.is_string() && *version != present["metadata"]["resourceVersion"]
}

/// RFC 7386: null takes away, objects are merged, all else is replaced.
fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    for (key, value) in patch {
        if value.is_null() {
            target.as_object_mut().map(|target| target.remove(&key));
        } else {
            merge(&mut target[&key], value);
        }
    }
}
