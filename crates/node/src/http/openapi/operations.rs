//! What is said of each route, in the order of the table of routes.

use super::{Answer, Kind, Operation, Parameter};

const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson";
const CSV: &str = "text/csv";
const MSGPACK: &str = "application/msgpack";
const TEXT: &str = "text/plain";

const fn optional(name: &'static str, kind: Kind, about: &'static str) -> Parameter {
    Parameter { name, about, is_needed: false, kind }
}

const fn needed(name: &'static str, kind: Kind, about: &'static str) -> Parameter {
    Parameter { name, about, is_needed: true, kind }
}

const fn ok(about: &'static str, forms: &'static [(&'static str, &'static str)]) -> Answer {
    Answer { status: 200, about, forms }
}

const NOTHING: Operation =
    Operation { id: "", summary: "", query: &[], takes: &[], heads: &[], answers: &[] };

const MATCH: Parameter =
    optional("match", Kind::Texts, "A PromQL selector of series, up to 32 of them; every series without it");
const START: Parameter = optional(
    "start",
    Kind::Text,
    "The first instant: RFC 3339, Unix seconds, or a whole number with ns, us, ms or s",
);
const END: Parameter = optional("end", Kind::Text, "The last instant, included");
const FORMAT: Parameter =
    optional("format", Kind::OneOf(&["json", "ndjson", "csv"]), "The form of the answer, before Accept");
const SHEET_FORMAT: Parameter = optional(
    "format",
    Kind::OneOf(&["json", "ndjson", "csv", "msgpack", "arrow"]),
    "The form of the answer, before Accept; not every program has arrow",
);
const ACK: Parameter = optional(
    "ack",
    Kind::OneOf(&["node", "cloud"]),
    "How durable the points are to be when the answer comes",
);
const ACK_TIMEOUT: Parameter =
    optional("ack_timeout", Kind::Text, "How long to wait for the cloud: seconds, or as in 1m30s");
const LAST_EVENT_ID: Parameter =
    optional("Last-Event-ID", Kind::Text, "The id of the last event that the client got, before after");
const IDEMPOTENCY_KEY: Parameter = optional(
    "Idempotency-Key",
    Kind::Text,
    "Names the post: one that is sent again is answered again and stored once",
);
const ARROW: &str = "application/vnd.apache.arrow.stream";
const TABLES: &[(&str, &str)] =
    &[(JSON, "Series"), (NDJSON, "Lines"), (CSV, "Text"), (MSGPACK, "Chunks"), (ARROW, "Batches")];
const UNCONFIRMED: Answer = Answer {
    status: 202,
    about: "Durable on this node; the cloud has not said so in time",
    forms: &[(JSON, "Unconfirmed")],
};
const STORED: Answer = Answer { status: 204, about: "Every point is durable", forms: &[] };
const SWITCHED: Answer = Answer { status: 101, about: "The connection is a WebSocket", forms: &[] };

pub const HEALTHZ: Operation = Operation {
    id: "getHealth",
    summary: "Says that the process answers.",
    answers: &[ok("It does", &[(TEXT, "Text")])],
    ..NOTHING
};

pub const READYZ: Operation = Operation {
    id: "getReadiness",
    summary: "Says whether the log is recovered and takes writes.",
    answers: &[
        ok("It does", &[(JSON, "Readiness")]),
        Answer {
            status: 503,
            about: "It does not, for the reason in the answer",
            forms: &[(JSON, "Readiness")],
        },
    ],
    ..NOTHING
};

pub const METRICS: Operation = Operation {
    id: "getMetrics",
    summary: "Counters and gauges in Prometheus's text form.",
    answers: &[ok("All of them", &[(TEXT, "Text")])],
    ..NOTHING
};

pub const STATUS: Operation = Operation {
    id: "getStatus",
    summary: "Who this node is, what it holds, and how far each consumer is behind.",
    answers: &[ok("The status", &[(JSON, "Status")])],
    ..NOTHING
};

pub const OPENAPI: Operation = Operation {
    id: "getOpenapi",
    summary: "This document.",
    answers: &[ok("This document", &[(JSON, "Status")])],
    ..NOTHING
};

pub const SITES: Operation = Operation {
    id: "getSites",
    summary: "The sites of which this node holds anything.",
    answers: &[ok("Their names", &[(JSON, "Sites")])],
    ..NOTHING
};

pub const DEVICES: Operation = Operation {
    id: "getDevices",
    summary: "The devices of a site, each with its metrics and the labels that people gave it.",
    answers: &[ok("The devices", &[(JSON, "Devices")])],
    ..NOTHING
};

pub const DEVICE: Operation = Operation {
    id: "getDevice",
    summary: "What is known of a device: its metrics and the labels that people gave it.",
    answers: &[ok("The device", &[(JSON, "Device")])],
    ..NOTHING
};

pub const PUT_DEVICE: Operation = Operation {
    id: "putDevice",
    summary: "Gives a device these labels and no others, and answers when that is durable.",
    query: &[ACK, ACK_TIMEOUT],
    takes: &[(JSON, "DeviceLabels")],
    answers: &[ok("The labels hold from set_ms on", &[(JSON, "Labelled")]), UNCONFIRMED],
    ..NOTHING
};

pub const POINTS: Operation = Operation {
    id: "getPoints",
    summary: "Points by selector and time.",
    query: &[MATCH, START, END, SHEET_FORMAT],
    answers: &[ok("The points", TABLES)],
    ..NOTHING
};

pub const EXPORT: Operation = Operation {
    id: "exportPoints",
    summary: "Points by selector and time, of a site that is named as in questions of Prometheus's.",
    query: &[
        optional("site", Kind::Text, "The site; else that of X-Tidelog-Site, else the node's own"),
        MATCH,
        START,
        END,
        SHEET_FORMAT,
    ],
    answers: &[ok("The points", TABLES)],
    ..NOTHING
};

pub const POST_POINTS: Operation = Operation {
    id: "postPoints",
    summary: "Takes points in and answers when they are durable.",
    query: &[
        ACK,
        ACK_TIMEOUT,
        optional("labels", Kind::Text, "Columns of a table that are labels, between commas"),
        optional("texts", Kind::Text, "Columns of a table that are texts, between commas"),
        optional("precision", Kind::OneOf(&["ns", "us", "ms", "s"]), "What the times of a table count"),
    ],
    takes: &[(JSON, "Post"), (MSGPACK, "Post"), (CSV, "Text")],
    heads: &[IDEMPOTENCY_KEY],
    answers: &[ok("All points are durable", &[(JSON, "Accepted")]), UNCONFIRMED],
};

pub const LAST: Operation = Operation {
    id: "getLast",
    summary: "The last point of each series.",
    query: &[MATCH, SHEET_FORMAT],
    answers: &[ok("The points", TABLES)],
    ..NOTHING
};

pub const AGGREGATE: Operation = Operation {
    id: "getAggregate",
    summary: "Counts, sums, means and more of points by steps of time.",
    query: &[
        needed(
            "fn",
            Kind::Texts,
            "count, sum, mean, min, max, first, last, rate; several between commas or repeated",
        ),
        MATCH,
        START,
        END,
        optional(
            "step",
            Kind::Text,
            "The length of a step: seconds, or as in 1h30m; start and end are needed then",
        ),
        optional("by", Kind::Texts, "Labels by which series are put together, between commas or repeated"),
        FORMAT,
    ],
    answers: &[ok("What was asked of each step", &[(JSON, "Aggregates"), (NDJSON, "Lines"), (CSV, "Text")])],
    ..NOTHING
};

pub const COMMANDS: Operation = Operation {
    id: "getCommands",
    summary: "Commands to devices, and what became of each.",
    query: &[
        optional("device", Kind::Text, "Those to this device alone, by its EUI-64"),
        optional("id", Kind::Text, "This one alone"),
        optional("start", Kind::Text, "Those issued from this instant on; of the last week without it"),
        optional("end", Kind::Text, "Those issued up to this instant"),
    ],
    answers: &[ok("The latest 1,000 of them, in the order of their ids", &[(JSON, "Commands")])],
    ..NOTHING
};

pub const POST_COMMAND: Operation = Operation {
    id: "postCommand",
    summary: "Tells a device what to do and answers when that is durable.",
    query: &[ACK, ACK_TIMEOUT],
    takes: &[(JSON, "Command")],
    answers: &[
        Answer {
            status: 201,
            about: "It is issued, and waits for its device",
            forms: &[(JSON, "CommandState")],
        },
        UNCONFIRMED,
    ],
    ..NOTHING
};

pub const SOCKET: Operation = Operation {
    id: "openSocket",
    summary: "A WebSocket on which a device sends numbered batches, each answered when it is durable, and is brought its commands.",
    query: &[
        optional(
            "form",
            Kind::OneOf(&["json", "line", "csv"]),
            "The form of the bodies in texts; those in binary messages are MessagePack",
        ),
        optional(
            "precision",
            Kind::OneOf(&["ns", "us", "ms", "s"]),
            "What the times of line protocol and of tables count",
        ),
        optional("labels", Kind::Text, "Columns of a table that are labels, between commas"),
        optional("texts", Kind::Text, "Columns of a table that are texts, between commas"),
        ACK,
        ACK_TIMEOUT,
        optional(
            "device",
            Kind::Text,
            "The device that the socket is of, by its EUI-64: its commands come down",
        ),
    ],
    answers: &[SWITCHED],
    ..NOTHING
};

pub const TAIL: Operation = Operation {
    id: "getTail",
    summary: "Points as they become durable on this node, as server-sent events or on a WebSocket.",
    query: &[
        MATCH,
        optional("site", Kind::Texts, "This site alone; all that the token grants without it"),
        optional("after", Kind::Text, "Begin behind this id, or with the oldest record (start)"),
        optional("follow", Kind::Bool, "false: end when everything that is there was told"),
    ],
    heads: &[LAST_EVENT_ID],
    answers: &[ok("Events without end", &[("text/event-stream", "Text")]), SWITCHED],
    ..NOTHING
};

pub const WRITE_V2: Operation = Operation {
    id: "writeLines2",
    summary: "Takes line protocol in, as clients of InfluxDB 2 send it.",
    query: &[
        optional("bucket", Kind::Text, "The site; the node's own without it"),
        optional("precision", Kind::OneOf(&["ns", "us", "ms", "s"]), "What the timestamps count"),
        optional("org", Kind::Text, "Ignored"),
        optional("orgID", Kind::Text, "Ignored"),
        ACK,
        ACK_TIMEOUT,
    ],
    takes: &[(TEXT, "Text")],
    heads: &[IDEMPOTENCY_KEY],
    answers: &[STORED, UNCONFIRMED],
};

pub const WRITE_V1: Operation = Operation {
    id: "writeLines1",
    summary: "Takes line protocol in, as clients of InfluxDB 1 send it.",
    query: &[
        optional("db", Kind::Text, "The site; the node's own without it"),
        optional(
            "precision",
            Kind::OneOf(&["n", "ns", "u", "us", "ms", "s", "m", "h"]),
            "What the timestamps count",
        ),
        optional("rp", Kind::Text, "Ignored"),
        optional("consistency", Kind::Text, "Ignored"),
        optional("u", Kind::Text, "Ignored"),
        optional("p", Kind::Text, "A token, for clients that can send it in no other way"),
        ACK,
        ACK_TIMEOUT,
    ],
    takes: &[(TEXT, "Text")],
    heads: &[IDEMPOTENCY_KEY],
    answers: &[STORED, UNCONFIRMED],
};

const SITE: Parameter =
    optional("site", Kind::Text, "The site, where the path names none; the node's own without it");
const MATCHES: Parameter = optional("match[]", Kind::Texts, "A PromQL selector of series");
const TIMEOUT: Parameter = optional("timeout", Kind::Text, "How long the answer may take to work out");
const QUERY: Parameter = needed("query", Kind::Text, "An expression in PromQL");
const PROMETHEUS: &[Answer] = &[ok("The answer, in Prometheus's form", &[(JSON, "PrometheusAnswer")])];

pub const LABEL_VALUES: Operation = Operation {
    id: "getLabelValues",
    summary: "The values of a label.",
    query: &[MATCHES, SITE],
    answers: PROMETHEUS,
    ..NOTHING
};

pub const METADATA: Operation = Operation {
    id: "getMetadata",
    summary: "What is known of metrics.",
    query: &[
        optional("metric", Kind::Text, "This metric alone"),
        optional("limit", Kind::Count, "The most metrics"),
        SITE,
    ],
    answers: PROMETHEUS,
    ..NOTHING
};

pub const BUILD: Operation = Operation {
    id: "getBuildinfo",
    summary: "The version of Prometheus whose API this is.",
    query: &[SITE],
    answers: PROMETHEUS,
    ..NOTHING
};

pub const QUERY_INSTANT: Operation = Operation {
    id: "query",
    summary: "The value of an expression at an instant.",
    query: &[QUERY, optional("time", Kind::Text, "The instant; now without it"), TIMEOUT, SITE],
    answers: PROMETHEUS,
    ..NOTHING
};

pub const QUERY_RANGE: Operation = Operation {
    id: "queryRange",
    summary: "The values of an expression at steps of time.",
    query: &[
        QUERY,
        needed("start", Kind::Text, "The first instant"),
        needed("end", Kind::Text, "The last instant"),
        needed("step", Kind::Text, "The length of a step: seconds, or as in 1h30m"),
        TIMEOUT,
        SITE,
    ],
    answers: PROMETHEUS,
    ..NOTHING
};

pub const SERIES: Operation = Operation {
    id: "getSeries",
    summary: "The series that selectors mean.",
    query: &[needed("match[]", Kind::Texts, "A PromQL selector of series"), SITE],
    answers: PROMETHEUS,
    ..NOTHING
};

pub const LABELS: Operation = Operation {
    id: "getLabels",
    summary: "The names of labels.",
    query: &[MATCHES, SITE],
    answers: PROMETHEUS,
    ..NOTHING
};

pub const REMOTE_WRITE: Operation = Operation {
    id: "remoteWrite",
    summary: "Takes Prometheus's remote write 1.0 in.",
    query: &[ACK, ACK_TIMEOUT, SITE],
    takes: &[("application/x-protobuf", "Bytes")],
    heads: &[IDEMPOTENCY_KEY],
    answers: &[STORED, UNCONFIRMED],
};
