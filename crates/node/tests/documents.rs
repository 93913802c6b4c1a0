//! The manual's generated parts are what the program says. `TIDELOG_WRITE_DOCS=1` writes them instead of comparing.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::Path;

use tidelog_node::settings::{Common, document};
use tidelog_node::{Metrics, served_routes};

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
fn the_manual_names_every_metric() {
    let mut table = String::from("| metric | labels | meaning |\n|---|---|---|\n");
    for (name, labels, help) in Metrics::names() {
        let labels = labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
        table.push_str(&format!("| `{name}` | {labels} | {help} |\n"));
    }
    check("HTTP.md", "metrics", &table);
}
