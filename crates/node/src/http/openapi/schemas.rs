//! The shapes of what is posted and answered.

use serde_json::{Value, json};

use crate::command::EXPIRES_S_MAX;

/// An object with one member, which is an object with these.
fn only(name: &str, properties: Value) -> Value {
    let required: Vec<&String> = properties.as_object().into_iter().flat_map(|all| all.keys()).collect();
    let inner = json!({"type": "object", "required": required, "properties": properties, "additionalProperties": false});
    json!({"type": "object", "required": [name], "properties": {name: inner}, "additionalProperties": false})
}

/// All of them, by name.
pub(super) fn all() -> Value {
    let series = json!({
        "type": "object",
        "required": ["metric", "labels", "points"],
        "properties": {
            "metric": {"type": "string"},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "points": {
                "type": "array",
                "items": {
                    "type": "array",
                    "description": "Unix nanoseconds, the value, and f64 where a float is written as a text",
                    "minItems": 2,
                    "maxItems": 3,
                },
            },
        },
    });
    let value = json!({"type": ["number", "boolean", "string"]});
    let point = json!({
        "type": "object",
        "description": "Exactly one of timestamp_ns, timestamp_ms and time says when",
        "required": ["metric", "value"],
        "properties": {
            "metric": {"type": "string", "pattern": "^[A-Za-z_:][A-Za-z0-9_:]*$"},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "timestamp_ns": {"type": "integer", "format": "int64"},
            "timestamp_ms": {"type": "integer", "format": "int64"},
            "time": {"type": "string", "format": "date-time"},
            "value": value,
            "type": {"type": "string", "enum": ["f64", "i64", "bool", "text"]},
        },
        "additionalProperties": false,
    });
    let device = json!({
        "type": "object",
        "required": ["deviceid"],
        "properties": {
            "deviceid": {"type": "string", "minLength": 1},
            "fw_ver": value,
            "batt_lvl": value,
        },
        "additionalProperties": false,
    });
    let row = json!({
        "type": "object",
        "description": "Each other member is a point of the metric of its name",
        "required": ["timestamp"],
        "properties": {"timestamp": {"type": "integer", "format": "int64", "description": "Unix milliseconds"}},
        "additionalProperties": {"type": ["number", "boolean", "string", "null"]},
    });
    let act = json!({
        "oneOf": [
            {"type": "string", "enum": ["read", "reboot"]},
            only("every", json!({"interval_ms": {"type": "integer", "minimum": 1, "maximum": u32::MAX}})),
            only("switch", json!({"output": {"type": "integer", "minimum": 0, "maximum": 255}, "on": {"type": "boolean"}})),
            only("identify", json!({"seconds": {"type": "integer", "minimum": 0, "maximum": 255}})),
        ],
    });
    let command_state = json!({
        "type": "object",
        "required": ["id", "device", "node", "issued_ms", "expires_ms", "act", "state"],
        "properties": {
            "id": {"type": "string", "pattern": "^[0-9a-f]{15}$"},
            "device": {"type": "string"},
            "node": {"type": "string"},
            "issued_ms": {"type": "integer"},
            "expires_ms": {"type": "integer"},
            "act": act,
            "state": {
                "type": "string",
                "enum": ["waiting", "expired", "superseded", "started", "done", "failed", "unsupported", "interrupted"],
            },
            "started_ms": {"type": "integer"},
            "ended_ms": {"type": "integer"},
            "ack": {"type": "string", "enum": ["node", "cloud"]},
        },
    });
    let names = json!({"type": "array", "items": {"type": "string"}});
    let labels = json!({"type": "object", "additionalProperties": {"type": "string"}});
    let device_told = json!({
        "type": "object",
        "required": ["device", "metrics", "labels"],
        "properties": {
            "device": {"type": "string"},
            "metrics": names,
            "labels": labels,
            "set_ms": {"type": "integer", "description": "Since when the labels hold, Unix milliseconds"},
        },
    });
    json!({
        "Text": {"type": "string"},
        "Bytes": {"description": "prometheus.WriteRequest in a snappy block"},
        "Chunks": {"description": "MessagePack maps one behind the other, each a chunk of one series"},
        "Batches": {"description": "Record batches in the stream format of Arrow's IPC"},
        "Lines": {"type": "string", "description": "A JSON object on each line"},
        "Status": {"type": "object"},
        "Readiness": {
            "type": "object",
            "required": ["ready"],
            "properties": {"ready": {"type": "boolean"}, "reason": {"type": "string"}},
        },
        "Sites": {"type": "object", "required": ["sites"], "properties": {"sites": names}},
        "Devices": {
            "type": "object",
            "required": ["devices"],
            "properties": {
                "devices": {"type": "array", "items": device_told},
            },
        },
        "Device": device_told,
        "DeviceLabels": {
            "type": "object",
            "required": ["labels"],
            "properties": {"labels": labels},
            "additionalProperties": false,
        },
        "Labelled": {
            "type": "object",
            "required": ["device", "labels", "set_ms", "ack"],
            "properties": {
                "device": {"type": "string"},
                "labels": labels,
                "set_ms": {"type": "integer"},
                "ack": {"type": "string", "enum": ["node", "cloud"]},
            },
        },
        "Post": {
            "oneOf": [
                {
                    "type": "object",
                    "required": ["points"],
                    "properties": {"points": {"type": "array", "items": point}},
                    "additionalProperties": false,
                },
                {
                    "type": "object",
                    "description": "deviceinfo stands before tsdata",
                    "required": ["deviceinfo", "tsdata"],
                    "properties": {"deviceinfo": device, "tsdata": {"type": "array", "items": row}},
                    "additionalProperties": false,
                },
            ],
        },
        "Command": {
            "type": "object",
            "required": ["device", "act"],
            "properties": {
                "device": {"type": "string", "pattern": "^[0-9a-f]{16}$"},
                "act": act,
                "expires_s": {"type": "integer", "minimum": 1, "maximum": EXPIRES_S_MAX},
            },
            "additionalProperties": false,
        },
        "CommandState": command_state,
        "Commands": {
            "type": "object",
            "required": ["site", "commands", "left_out"],
            "properties": {
                "site": {"type": "string"},
                "commands": {"type": "array", "items": command_state},
                "left_out": {"type": "integer"},
            },
        },
        "Accepted": {
            "type": "object",
            "required": ["points", "ack"],
            "properties": {"points": {"type": "integer"}, "ack": {"type": "string", "enum": ["node", "cloud"]}},
        },
        "Unconfirmed": {
            "type": "object",
            "required": ["points", "ack", "wanted", "reason", "streams"],
            "properties": {
                "points": {"type": "integer"},
                "ack": {"const": "node"},
                "wanted": {"const": "cloud"},
                "reason": {"type": "string", "enum": ["timeout", "ending"]},
                "waited_ms": {"type": "integer"},
                "cloud_sessions": {"type": "integer"},
                "streams": {"type": "array", "items": {"type": "object"}},
            },
        },
        "Series": {
            "type": "object",
            "required": ["site", "series"],
            "properties": {"site": {"type": "string"}, "series": {"type": "array", "items": series}},
        },
        "Aggregates": {
            "type": "object",
            "required": ["site", "functions", "groups"],
            "properties": {
                "site": {"type": "string"},
                "functions": names,
                "groups": {"type": "array", "items": {"type": "object"}},
            },
        },
        "PrometheusAnswer": {
            "type": "object",
            "required": ["status", "data"],
            "properties": {"status": {"const": "success"}, "data": {}},
        },
        "PrometheusError": {
            "type": "object",
            "required": ["status", "errorType", "error"],
            "properties": {
                "status": {"const": "error"},
                "errorType": {"type": "string"},
                "error": {"type": "string"},
            },
        },
        "InfluxError1": {
            "type": "object",
            "required": ["error"],
            "properties": {"error": {"type": "string"}},
        },
        "InfluxError2": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {"code": {"type": "string"}, "message": {"type": "string"}},
        },
        "Error": {
            "type": "object",
            "required": ["error"],
            "properties": {
                "error": {
                    "type": "object",
                    "required": ["code", "message"],
                    "properties": {
                        "code": {"type": "string"},
                        "message": {"type": "string"},
                        "index": {"type": "integer", "description": "The point or row of the body that is meant"},
                    },
                },
            },
        },
    })
}
