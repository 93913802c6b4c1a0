//! The manual's part on the gateway's own options is what the program says. `TIDELOG_WRITE_DOCS=1` writes it instead of
//! comparing.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use tidelog_gateway::settings::{CoapSettings, GatewaySettings, RadioSettings};
use tidelog_node::settings::{Common, document};

const MANUAL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/CONFIGURATION.md");

#[test]
fn the_manual_names_every_option_of_the_gateway_with_its_default() {
    let text = std::fs::read_to_string(MANUAL).unwrap();
    let (before, rest) = text.split_once("<!-- begin gateway").unwrap();
    let (begin, rest) = rest.split_once("-->\n").unwrap();
    let (found, after) = rest.split_once("<!-- end gateway -->").unwrap();
    let expected = format!("```toml\n{}\n{}```\n", document::<RadioSettings>(), document::<CoapSettings>());
    if std::env::var_os("TIDELOG_WRITE_DOCS").is_some() {
        let written = format!("{before}<!-- begin gateway{begin}-->\n{expected}<!-- end gateway -->{after}");
        std::fs::write(MANUAL, written).unwrap();
    } else {
        assert!(found == expected, "docs/CONFIGURATION.md is behind: TIDELOG_WRITE_DOCS=1 writes it anew");
    }
}

#[test]
fn a_gateway_has_its_own_options_and_those_of_every_node() {
    let whole = document::<GatewaySettings>();
    let own = format!("{}\n{}", document::<RadioSettings>(), document::<CoapSettings>());
    let parts = format!("{own}\n{}", document::<Common>());
    assert_eq!(whole, parts);
}
