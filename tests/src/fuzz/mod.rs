//! What a fuzzer runs: for each decoder of bytes that come from outside, a function that must not panic and that holds the
//! decoder to what it promises, and inputs to begin with. `tests/fuzz/run` drives them with libFuzzer; `tests/tests/fuzz.rs`
//! runs the seeds and every input that ever failed as ordinary tests. Nothing here knows the fuzzer.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a target fails by panicking")]

mod catalogue;
mod log;
mod network;
mod packed;
mod radio;
mod record;
mod segment;
mod spinel;

/// One target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name on the command line, and of its folder of regressions.
    pub name: &'static str,
    /// Runs it on one input.
    pub run: fn(&[u8]),
    /// Inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: [Target; 24] = [
    Target { name: "body", run: record::body, seeds: record::body_seeds },
    Target { name: "packing", run: record::packing, seeds: record::packing_seeds },
    Target { name: "series", run: record::series, seeds: record::series_seeds },
    Target { name: "msgpack", run: record::msgpack, seeds: record::msgpack_seeds },
    Target { name: "uplink", run: record::uplink, seeds: record::uplink_seeds },
    Target { name: "log", run: log::log, seeds: log::log_seeds },
    Target { name: "packed", run: packed::packed, seeds: packed::packed_seeds },
    Target { name: "segment", run: segment::segment, seeds: segment::segment_seeds },
    Target { name: "catalogue", run: catalogue::catalogue, seeds: catalogue::catalogue_seeds },
    Target { name: "flashlog", run: log::flash, seeds: log::flash_seeds },
    Target { name: "mac", run: radio::mac, seeds: radio::mac_seeds },
    Target { name: "lowpan", run: radio::lowpan, seeds: radio::lowpan_seeds },
    Target { name: "spinel", run: spinel::spinel, seeds: spinel::spinel_seeds },
    Target { name: "coap", run: radio::coap, seeds: radio::coap_seeds },
    Target { name: "replication", run: network::replication, seeds: network::replication_seeds },
    Target { name: "line", run: network::line, seeds: network::line_seeds },
    Target { name: "json", run: network::json, seeds: network::json_seeds },
    Target { name: "points", run: network::points, seeds: network::points_seeds },
    Target { name: "table", run: network::table, seeds: network::table_seeds },
    Target { name: "senml", run: network::senml_pack, seeds: network::senml_seeds },
    Target { name: "remote-write", run: network::remote_write, seeds: network::remote_write_seeds },
    Target { name: "mqtt", run: network::mqtt, seeds: network::mqtt_seeds },
    Target { name: "selector", run: network::selector, seeds: network::selector_seeds },
    Target { name: "token", run: network::token, seeds: network::token_seeds },
];

/// The target of this name.
#[must_use]
pub fn target(name: &str) -> Option<Target> {
    TARGETS.into_iter().find(|target| target.name == name)
}
