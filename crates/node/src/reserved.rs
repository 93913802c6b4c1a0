//! Metrics that nobody but the node itself writes: commands, for who may write readings need not be one who may command; what rules
//! say, for it is believed at a start; labels that people give devices; and how many sensors a gateway has, for others send theirs by it. Every way in for points asks
//! here first.

use memchr::memmem;
use tidelog_record::Body;

use crate::{command, device, rule};

/// How many sensors a gateway serves: a whole number, with the label `gateway`.
pub const LOAD_METRIC: &str = "tidelog_gateway_sensors";

/// What their names begin with.
const BEGINNINGS: [&str; 4] = [command::METRIC, rule::record::METRIC, LOAD_METRIC, device::METRIC];

/// Who writes a metric that others may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reserved {
    Command,
    Rule,
    Gateway,
    Device,
}

/// For whom a metric is reserved, if it is.
pub(crate) fn reserved(metric: &str) -> Option<Reserved> {
    match metric {
        command::METRIC => Some(Reserved::Command),
        rule::record::METRIC | rule::record::VALUE_METRIC => Some(Reserved::Rule),
        LOAD_METRIC => Some(Reserved::Gateway),
        device::METRIC => Some(Reserved::Device),
        _ => None,
    }
}

/// For whom points of a record are reserved, if any are.
pub(crate) fn reserved_in(body: &[u8]) -> Option<Reserved> {
    // A metric's name stands in a body as it is, so what has not these bytes has none of them.
    BEGINNINGS.iter().find_map(|beginning| memmem::find(body, beginning.as_bytes()))?;
    match Body::decode(body) {
        Ok(Body::Points(batch)) => batch.series.iter().find_map(|(series, _)| reserved(series.metric())),
        Ok(Body::Unknown(_)) | Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidelog_record::{Batch, Series, Value};

    #[test]
    fn only_the_metrics_themselves_are_reserved() {
        let body = |metric: &str, text: &str| {
            let series = Series::new(metric, [("device", text)]).unwrap();
            let points = vec![(1, Value::Text(text.into()))];
            Batch { series: vec![(series, points)], ..Batch::default() }.encode().unwrap()
        };
        assert_eq!(reserved_in(&body("tidelog_command", "x")), Some(Reserved::Command));
        assert_eq!(reserved_in(&body("tidelog_rule", "x")), Some(Reserved::Rule));
        assert_eq!(reserved_in(&body("tidelog_rule_value", "x")), Some(Reserved::Rule));
        assert_eq!(reserved_in(&body("tidelog_gateway_sensors", "x")), Some(Reserved::Gateway));
        assert_eq!(reserved_in(&body("tidelog_device_labels", "x")), Some(Reserved::Device));
        for (metric, text) in [
            ("temperature", "x"),
            ("temperature", "tidelog_command"),
            ("tidelog_rules", "x"),
            ("device_info", "x"),
            ("tidelog_commands_waiting", "x"),
        ] {
            assert_eq!(reserved_in(&body(metric, text)), None, "{metric} {text}");
        }
    }
}
