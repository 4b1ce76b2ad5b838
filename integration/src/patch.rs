//! Changes configurations.

use serde_json::{Value, json};

/// Applies a JSON merge patch (RFC 7396): null removes a key.
pub fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in patch {
        match value {
            Value::Null => drop(target.as_object_mut().expect("it is an object by now").remove(key)),
            _ => merge(&mut target[key], value),
        }
    }
}

/// Sets the keys of an object, each as a whole.
pub fn set_keys(target: &mut Value, keys: &Value) {
    for (key, value) in keys.as_object().expect("keys are an object") {
        target[key] = value.clone();
    }
}
