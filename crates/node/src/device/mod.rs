//! Labels that people give devices: where one hangs, what it is. That is a point like any other, so it is durable, reaches every node of
//! the site and is equal there; and questions in PromQL see it as an info metric.
//!
//! ```text
//! tidelog_device_labels{device="d1"}    at the moment it was said   {"set_ms": …, "labels": {"location": "hall"}} as text
//! device_info{device="d1", location="hall"} 1                       what PromQL makes of it, from that moment until the next
//! ```
//! Of what was said of one device the greatest holds: by `set_ms`, then by the labels. No labels say that there are none any more. The
//! point's own time says only when it was written: [`carry`] writes what holds again before policy drops it. Nobody but this module
//! writes such a point: every way in for points asks `reserved` first.

mod carry;
mod given;
mod labels;
mod said;
mod timeline;

pub(crate) use carry::start as carry;
pub(crate) use given::{GiveError, give};
pub(crate) use labels::{DeviceLabels, LabelsError};
pub(crate) use said::{Said, latest, said};
pub(crate) use timeline::{Timelines, could_mean, timelines};

/// The metric of what was said: reserved, nothing else may write it.
pub(crate) const METRIC: &str = "tidelog_device_labels";

/// The metric that PromQL sees.
pub(crate) const INFO_METRIC: &str = "device_info";
