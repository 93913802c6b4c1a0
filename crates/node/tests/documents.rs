//! The manual's generated parts are what the program says. `TIDELOG_WRITE_DOCS=1` writes them instead of comparing.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::Path;

use tidelog_node::settings::{Common, document};
use tidelog_node::{Metrics, openapi_document, served_routes};

/// Compares what stands between the markers of `block` with `expected`, or writes it there.
fn check(file: &str, block: &str, expected: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(file);
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(&format!("<!-- begin {block}")).unwrap();
    let (begin, rest) = rest.split_once("-->\n").unwrap();
    let (found, after) = rest.split_once(&format!("<!-- end {block} -->")).unwrap();
    if std::env::var_os("TIDELOG_WRITE_DOCS").is_some() {
        let written = format!("{before}<!-- begin {block}{begin}-->\n{expected}<!-- end {block} -->{after}");
        std::fs::write(&path, written).unwrap();
    } else {
        assert!(found == expected, "docs/{file} is behind: TIDELOG_WRITE_DOCS=1 writes it anew");
    }
}

#[test]
fn the_manual_names_every_option_with_its_default() {
    check("CONFIGURATION.md", "both", &format!("```toml\n{}```\n", document::<Common>()));
}

#[test]
fn the_manual_names_the_scope_of_every_route() {
    let mut table = String::from("| request | scope |\n|---|---|\n");
    for route in served_routes() {
        let scope = route.scope.map_or("none: no token is needed", |scope| scope.name());
        table.push_str(&format!("| `{} {}` | {scope} |\n", route.method, route.path));
    }
    check("HTTP.md", "scopes", &table);
}

#[test]
fn the_document_for_programs_is_the_one_that_is_served() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
    let expected = format!("{:#}\n", openapi_document(env!("CARGO_PKG_VERSION")));
    if std::env::var_os("TIDELOG_WRITE_DOCS").is_some() {
        std::fs::write(&path, expected).unwrap();
    } else {
        let found = std::fs::read_to_string(&path).unwrap();
        assert!(found == expected, "docs/openapi.json is behind: TIDELOG_WRITE_DOCS=1 writes it anew");
    }
}

#[test]
fn the_manual_names_every_metric() {
    let mut table = String::from("| metric | labels | meaning |\n|---|---|---|\n");
    for (name, labels, help) in Metrics::names() {
        let labels = labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
        table.push_str(&format!("| `{name}` | {labels} | {help} |\n"));
    }
    check("HTTP.md", "metrics", &table);
}

fn manual(file: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(file)).unwrap()
}

/// Every word that begins as the metrics do.
fn metrics_in(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| word.starts_with("tidelog_"))
}

#[test]
fn what_watches_nodes_asks_for_metrics_that_there_are() {
    let names: Vec<&str> = Metrics::names().iter().map(|(name, _, _)| *name).collect();
    for file in ["monitoring/alerts.yml", "monitoring/dashboard.json", "MONITORING.md"] {
        let text = manual(file);
        for metric in metrics_in(&text) {
            // Of a histogram there are three.
            let metric = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|end| metric.strip_suffix(end))
                .unwrap_or(metric);
            assert!(names.contains(&metric), "{file}: {metric}");
        }
    }
    assert!(metrics_in(&manual("monitoring/dashboard.json")).count() > 20);
}

#[test]
fn every_panel_asks_what_can_be_asked() {
    let dashboard: serde_json::Value = serde_json::from_str(&manual("monitoring/dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.filter_map(|panel| panel["targets"].as_array()).flatten();
    let asked: Vec<&str> = targets.map(|target| target["expr"].as_str().unwrap()).collect();
    assert!(asked.len() > 20);
    for text in asked {
        let text = text.replace("$__rate_interval", "5m").replace("$instance", ".*");
        if let Err(error) = text.parse::<tidelog_query::promql::Query>() {
            panic!("{text}: {error}");
        }
    }
}

#[test]
fn the_manual_says_what_to_do_at_every_alert() {
    let rules = manual("monitoring/alerts.yml");
    let alerts: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    let text = manual("MONITORING.md");
    let rows: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("| `Tidelog")?.split_once('`'))
        .map(|(name, _)| name)
        .collect();
    assert_eq!(rows, alerts.iter().map(|alert| alert.strip_prefix("Tidelog").unwrap()).collect::<Vec<_>>());
}
