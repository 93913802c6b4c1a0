//! The doors: what is open without tokens, and what a token opens.

use std::io::{Read, Write};
use std::net::TcpStream;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tidelog_node::door::Scope;
use tidelog_node::served_routes;

use crate::common::Running;
use crate::common::door::{bearer, make_token, raw, revoke_token};

const POINT: &str = r#"{"points":[{"metric":"t","timestamp_ns":5,"value":1}]}"#;
const JSON: &str = "Content-Type: application/json";

/// A path that a route serves.
fn example(path: &str) -> String {
    let path = path.replace("{site}", "plant").replace("{name}", "room").replace("{device}", "d");
    // Without it the answer has no end.
    if path == "/api/v1/tail" { format!("{path}?follow=false") } else { path }
}

#[test]
fn without_tokens_everything_is_open_and_with_the_first_one_everything_but_two_questions_is_shut() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &["--site", "plant"]);
    let ask = |heads: &[&str]| -> Vec<(String, u16)> {
        let routes = served_routes().into_iter();
        routes
            .map(|route| {
                let answer = raw(&running.url, &route.method, &example(&route.path), heads, "");
                (format!("{} {}", route.method, route.path), answer.status)
            })
            .collect()
    };
    let of_device = json!({"metric": "t", "labels": {"device": "d"}, "timestamp_ns": 5, "value": 1});
    assert_eq!(running.post_json("plant", &json!({"points": [of_device]})).status, 200);
    assert!(ask(&[]).iter().all(|(_, status)| !matches!(status, 401 | 403)), "{:?}", ask(&[]));
    let scopes = [Scope::Read, Scope::Write, Scope::Command, Scope::Admin];
    let token = make_token(dir.path(), &scopes, &["plant"]);
    for (route, status) in ask(&[]) {
        let open = matches!(route.as_str(), "GET /healthz" | "GET /readyz");
        assert_eq!(status, if open { 200 } else { 401 }, "{route}");
    }
    let with = ask(&[&bearer(&token)]);
    assert!(with.iter().all(|(_, status)| !matches!(status, 401 | 403 | 404)), "{with:?}");
    revoke_token(dir.path(), &token);
    let shut = ask(&[&bearer(&token)]).iter().filter(|(_, status)| *status == 401).count();
    assert_eq!(shut, served_routes().len() - 2, "revoked at once, and the last one opens nothing");
    running.stop();
}

#[test]
fn a_token_is_taken_in_every_scheme_and_each_scope_opens_its_own_requests() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &["--site", "plant"]);
    let reader = make_token(dir.path(), &[Scope::Read], &["plant"]);
    let writer = make_token(dir.path(), &[Scope::Write], &["plant"]);
    let idle = make_token(dir.path(), &[Scope::Command, Scope::Admin], &[]);
    let basic = |name: &str| {
        format!("Authorization: Basic {}", STANDARD.encode(format!("{name}:{}", writer.reveal())))
    };
    let influx = format!("authorization: Token {}", writer.reveal());
    let target = "/api/v1/sites/plant/points";
    for head in [&bearer(&writer), &influx, &basic("anybody"), &basic("")] {
        assert_eq!(raw(&running.url, "POST", target, &[head, JSON], POINT).status, 200, "{head}");
    }
    let in_query = format!("/write?db=plant&u=x&p={}", writer.reveal());
    assert_eq!(raw(&running.url, "POST", &in_query, &[], "t value=1 5").status, 204);
    let elsewhere = format!("{target}?p={}", writer.reveal());
    assert_eq!(
        raw(&running.url, "POST", &elsewhere, &[JSON], POINT).status,
        401,
        "only where InfluxDB has it"
    );

    for route in served_routes().iter().filter(|route| route.scope.is_some()) {
        for (token, scopes) in [
            (&reader, vec![Scope::Read]),
            (&writer, vec![Scope::Write]),
            (&idle, vec![Scope::Command, Scope::Admin]),
        ] {
            let answer = raw(&running.url, &route.method, &example(&route.path), &[&bearer(token)], "");
            let granted = route.scope.is_some_and(|scope| scopes.contains(&scope));
            assert_eq!(answer.status == 403, !granted, "{route:?} {scopes:?}: {}", answer.text);
        }
    }
    running.stop();
}

#[test]
fn refusals_are_in_the_words_of_the_routes_clients_and_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &[]);
    let admin = make_token(dir.path(), &[Scope::Admin], &[]);
    let reader = make_token(dir.path(), &[Scope::Read], &[]);
    let body =
        |answer: &str| -> Value { serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap() };
    let cases = [
        ("GET", "/api/v1/sites", "/error/code", "unauthorized", "forbidden"),
        ("POST", "/api/v2/write", "/code", "unauthorized", "forbidden"),
        ("GET", "/api/v1/query?query=1", "/errorType", "unauthorized", "forbidden"),
    ];
    for (method, target, place, unknown, refused) in cases {
        let answer = raw(&running.url, method, target, &[], "");
        assert_eq!(
            (answer.status, body(&answer.text).pointer(place)),
            (401, Some(&json!(unknown))),
            "{answer:?}"
        );
        let heads = answer.text.to_lowercase();
        assert!(
            heads.contains("www-authenticate: bearer") && heads.contains("www-authenticate: basic"),
            "{heads}"
        );
        let answer = raw(&running.url, method, target, &[&bearer(&admin)], "");
        assert_eq!(
            (answer.status, body(&answer.text).pointer(place)),
            (403, Some(&json!(refused))),
            "{answer:?}"
        );
        assert!(
            !answer.text.to_lowercase().contains("www-authenticate"),
            "another token would not be asked for"
        );
    }
    let answer = raw(&running.url, "POST", "/write", &["Authorization: Digest x"], "t v=1");
    assert!(answer.status == 401 && body(&answer.text)["error"].is_string(), "{answer:?}");
    let metrics = raw(&running.url, "GET", "/metrics", &[&bearer(&reader)], "").text;
    for (reason, count) in [("no_token", 3), ("scope", 3), ("malformed", 1)] {
        let line = format!("tidelog_http_denied_total{{reason=\"{reason}\"}} {count}");
        assert!(metrics.contains(&line), "{line}\n{metrics}");
    }
    running.stop();
}

#[test]
fn a_body_that_is_refused_at_the_door_leaves_its_client_an_answer_and_no_point() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &[]);
    let reader = make_token(dir.path(), &[Scope::Read], &[]);
    let long = format!("{POINT}{}", " ".repeat(500_000));
    for heads in [vec![JSON], vec![JSON, &bearer(&reader)]] {
        let answer = raw(&running.url, "POST", "/api/v1/sites/default/points", &heads, &long);
        assert!(matches!(answer.status, 401 | 403), "{answer:?}");
    }
    let held = raw(&running.url, "GET", "/api/v1/sites/default/points", &[&bearer(&reader)], "").text;
    assert!(held.contains(r#""series":[]"#), "{held}");
    running.stop();
}

#[test]
fn a_head_without_end_is_cut_off_and_served_to_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &[]);
    let token = make_token(dir.path(), &[Scope::Read], &[]);
    let with_filler = |bytes| {
        let mut stream = TcpStream::connect(running.url.strip_prefix("http://").unwrap()).unwrap();
        let (bearer, filler) = (bearer(&token), "x".repeat(bytes));
        let lines = ["GET /api/v1/sites HTTP/1.1", "Host: x", "Connection: close", &bearer];
        let head = format!("{}\r\nX-Filler: {filler}\r\n\r\n", lines.join("\r\n"));
        // The node may close before it has read all of it, and its answer may be lost with the connection.
        drop(stream.write_all(head.as_bytes()));
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer));
        String::from_utf8(answer).unwrap()
    };
    assert!(with_filler(8 * 1024).starts_with("HTTP/1.1 200 "));
    let refused = with_filler(512 * 1024);
    assert!(refused.is_empty() || refused.starts_with("HTTP/1.1 431 "), "{refused}");
    running.stop();
}
