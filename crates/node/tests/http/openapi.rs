//! The document for programs, held to what the node does.

use serde_json::{Value, json};
use tidelog_node::{openapi_document, served_routes};

use crate::common::Running;
use crate::common::door::raw;

#[test]
fn the_document_is_served_and_every_parameter_in_it_is_understood() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &["--site", "plant"]);
    let document = running.get("/api/v1/openapi.json");
    assert_eq!((document.status, document.content_type.as_str()), (200, "application/json"));
    let document = document.json();
    assert_eq!(document, openapi_document("0.0.0-test"));
    let mut asked = 0;
    for route in served_routes() {
        let method = route.method.to_lowercase();
        let operation = &document["paths"][&route.path][&method];
        let path = route.path.replace("{site}", "plant").replace("{name}", "room").replace("{device}", "d");
        let content_type =
            operation["requestBody"]["content"].as_object().map(|forms| forms.keys().next_back().cloned());
        let head = content_type.flatten().map(|kind| format!("Content-Type: {kind}"));
        let heads: Vec<&str> = head.as_deref().into_iter().collect();
        let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
        for parameter in parameters.iter().filter(|parameter| parameter["in"] == "query") {
            let name = parameter["name"].as_str().unwrap();
            // A value that nothing takes, so that no answer is without end.
            let answer = raw(&running.url, &route.method, &format!("{path}?{name}=%7B"), &heads, "");
            assert!(!answer.text.contains("unknown parameter"), "{method} {path}: {name}: {}", answer.text);
            asked += 1;
        }
    }
    assert!(asked > 50, "{asked}");
    running.stop();
}

/// The members of an object, and those that must be there, are those that the document names.
fn fits(document: &Value, schema: &str, answer: &Value) {
    let schema = &document["components"]["schemas"][schema];
    let named = schema["properties"].as_object().unwrap();
    let members = answer.as_object().unwrap();
    assert!(members.keys().all(|name| named.contains_key(name)), "{answer}");
    let needed = schema["required"].as_array().unwrap();
    assert!(needed.iter().all(|name| members.contains_key(name.as_str().unwrap())), "{answer}");
}

#[test]
fn answers_have_the_shapes_that_the_document_names() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &["--site", "plant"]);
    let document = openapi_document("1");
    let point =
        json!({"points": [{"metric": "t", "labels": {"device": "d"}, "timestamp_ns": 1, "value": 1.5}]});
    fits(&document, "Accepted", &running.post_json("plant", &point).json());
    let site = "/api/v1/sites/plant";
    for (path, schema) in [
        ("/readyz", "Readiness"),
        ("/api/v1/sites", "Sites"),
        (&format!("{site}/devices"), "Devices"),
        (&format!("{site}/devices/d"), "Device"),
        (&format!("{site}/points"), "Series"),
        (&format!("{site}/last"), "Series"),
        (&format!("{site}/aggregate?fn=mean"), "Aggregates"),
        (&format!("{site}/aggregate?fn=median"), "Error"),
        ("/api/v1/query?query=t", "PrometheusAnswer"),
        ("/api/v1/query?query=%7B", "PrometheusError"),
    ] {
        fits(&document, schema, &running.get(path).json());
    }
    for (path, schema) in [("/write?db=A", "InfluxError1"), ("/api/v2/write?bucket=A", "InfluxError2")] {
        fits(&document, schema, &running.post(path, "text/plain", b"t value=1").json());
    }
    running.stop();
}
