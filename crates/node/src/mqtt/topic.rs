//! Topics: where a record is published, by a template, and which topics a filter takes. The template is checked when it
//! is read, so that every topic made from it is one that MQTT allows.

use std::fmt;
use std::str::FromStr;

use tidelog_record::{DeviceId, NodeId, SiteName};

/// Longest template or filter, in bytes. MQTT allows 65,535; brokers often less.
pub const TOPIC_BYTES_MAX: usize = 512;

/// What `{device}` stands for when no sensor sent the record.
pub const TOPIC_WITHOUT_DEVICE: &str = "points";

/// The template that is used when none is set.
pub const TOPIC_TEMPLATE_DEFAULT: &str = "tidelog/{site}/{device}";

/// Where a node tells whether it is there when nothing else is set. It has a level more than what [`TOPIC_FILTER_DEFAULT`] takes.
pub const STATE_TOPIC_DEFAULT: &str = "tidelog/{site}/{node}/state";

/// Where a node tells whether it hears a sensor when nothing else is set.
pub const DEVICE_STATE_TOPIC_DEFAULT: &str = "tidelog/{site}/{node}/state/{device}";

/// The filter that takes what [`TOPIC_TEMPLATE_DEFAULT`] publishes.
pub const TOPIC_FILTER_DEFAULT: &str = "tidelog/+/+";

/// A topic with `{site}`, `{device}` and `{node}` in it.
///
/// Invariant: what it makes is a valid topic for publishing: not empty, no `+`, `#` or control character, not one of the
/// broker's own (`$…`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicTemplate {
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Site,
    Device,
    Node,
}

/// Why a text is no topic template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// Nothing in it, or more than [`TOPIC_BYTES_MAX`].
    #[error("a topic has 1 to {TOPIC_BYTES_MAX} bytes")]
    Length,
    /// A wildcard or a control character.
    #[error("{0:?} cannot stand in a topic to publish on")]
    Character(char),
    /// Starts with `$`.
    #[error("topics that start with '$' belong to the broker")]
    Reserved,
    /// `{…}` with something else in it, or a brace without its other.
    #[error("unknown placeholder {{{0}}}: there are {{site}}, {{device}} and {{node}}")]
    Placeholder(String),
}

impl TopicTemplate {
    /// The topic for a record.
    #[must_use]
    pub fn topic(&self, site: &SiteName, node: NodeId, device: Option<DeviceId>) -> String {
        let mut out = String::new();
        for piece in &self.pieces {
            match (piece, device) {
                (Piece::Text(text), _) => out.push_str(text),
                (Piece::Site, _) => out.push_str(site.as_str()),
                (Piece::Node, _) => out.push_str(&node.to_string()),
                (Piece::Device, Some(device)) => out.push_str(&device.to_string()),
                (Piece::Device, None) => out.push_str(TOPIC_WITHOUT_DEVICE),
            }
        }
        out
    }
}

impl FromStr for TopicTemplate {
    type Err = TopicError;

    fn from_str(text: &str) -> Result<Self, TopicError> {
        if text.is_empty() || text.len() > TOPIC_BYTES_MAX {
            return Err(TopicError::Length);
        }
        if text.starts_with('$') {
            return Err(TopicError::Reserved);
        }
        if let Some(bad) = text.chars().find(|c| matches!(c, '+' | '#') || c.is_control()) {
            return Err(TopicError::Character(bad));
        }
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            push_text(&mut pieces, before)?;
            let (name, after) =
                after.split_once('}').ok_or_else(|| TopicError::Placeholder(after.to_owned()))?;
            pieces.push(match name {
                "site" => Piece::Site,
                "device" => Piece::Device,
                "node" => Piece::Node,
                other => return Err(TopicError::Placeholder(other.to_owned())),
            });
            rest = after;
        }
        push_text(&mut pieces, rest)?;
        Ok(Self { pieces })
    }
}

fn push_text(pieces: &mut Vec<Piece>, text: &str) -> Result<(), TopicError> {
    if text.contains('}') {
        return Err(TopicError::Placeholder(text.to_owned()));
    }
    if !text.is_empty() {
        pieces.push(Piece::Text(text.to_owned()));
    }
    Ok(())
}

impl fmt::Display for TopicTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pieces.iter().try_for_each(|piece| match piece {
            Piece::Text(text) => f.write_str(text),
            Piece::Site => f.write_str("{site}"),
            Piece::Device => f.write_str("{device}"),
            Piece::Node => f.write_str("{node}"),
        })
    }
}

/// The topics that commands to the devices of a site come on: a template whose one level `{device}` tells the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandTopic {
    levels: Vec<Level>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Level {
    Text(String),
    Device,
}

/// The template has no level that is `{device}`, or more than one, or `{device}` as a part of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("one level of the topic, and one alone, is {{device}}, as in tidelog/{{site}}/{{device}}/command")]
pub struct CommandTopicError;

impl CommandTopic {
    /// The topics of a node's devices at its site.
    ///
    /// # Errors
    /// [`CommandTopicError`].
    pub fn of(template: &TopicTemplate, site: &SiteName, node: NodeId) -> Result<Self, CommandTopicError> {
        let text = template.to_string().replace("{site}", site.as_str()).replace("{node}", &node.to_string());
        let levels: Vec<_> = text
            .split('/')
            .map(|level| if level == "{device}" { Level::Device } else { Level::Text(level.to_owned()) })
            .collect();
        let devices = levels.iter().filter(|level| **level == Level::Device).count();
        let in_part = |level: &Level| matches!(level, Level::Text(text) if text.contains("{device}"));
        if devices != 1 || levels.iter().any(in_part) {
            return Err(CommandTopicError);
        }
        Ok(Self { levels })
    }

    /// What to subscribe to.
    #[must_use]
    pub fn filter(&self) -> String {
        let level = |level: &Level| match level {
            Level::Text(text) => text.clone(),
            Level::Device => "+".to_owned(),
        };
        self.levels.iter().map(level).collect::<Vec<_>>().join("/")
    }

    /// The device that a topic is of; none if it is no such topic.
    #[must_use]
    pub fn device(&self, topic: &str) -> Option<DeviceId> {
        let mut found = None;
        let mut levels = topic.split('/');
        for level in &self.levels {
            let text = levels.next()?;
            match level {
                Level::Text(expected) if expected == text => {}
                Level::Text(_) => return None,
                Level::Device => found = text.parse().ok(),
            }
        }
        found.filter(|_| levels.next().is_none())
    }
}

/// A topic filter for subscribing, `+` and `#` where MQTT allows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicFilter(String);

/// The text is no topic filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a topic filter: '+' stands for a whole level, '#' for all levels at the end, at most {TOPIC_BYTES_MAX} bytes"
)]
pub struct TopicFilterError;

impl TopicFilter {
    /// The filter as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TopicFilter {
    type Err = TopicFilterError;

    fn from_str(text: &str) -> Result<Self, TopicFilterError> {
        let bounded =
            !text.is_empty() && text.len() <= TOPIC_BYTES_MAX && !text.chars().any(char::is_control);
        if bounded && rumqttc::valid_filter(text) { Ok(Self(text.to_owned())) } else { Err(TopicFilterError) }
    }
}

impl fmt::Display for TopicFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(template: &str, device: Option<&str>) -> String {
        let template: TopicTemplate = template.parse().unwrap();
        let site = "plant-1".parse().unwrap();
        template.topic(&site, NodeId([0xab; 16]), device.map(|text| text.parse().unwrap()))
    }

    #[test]
    fn a_record_goes_to_its_site_and_device() {
        assert_eq!(
            topic(TOPIC_TEMPLATE_DEFAULT, Some("02124b0000000001")),
            "tidelog/plant-1/02124b0000000001"
        );
        assert_eq!(topic(TOPIC_TEMPLATE_DEFAULT, None), "tidelog/plant-1/points");
        assert_eq!(
            topic("a/{node}/{site}{site}/z", None),
            "a/abababababababababababababababab/plant-1plant-1/z"
        );
        assert_eq!(topic("plain", None), "plain");
    }

    #[test]
    fn a_template_is_written_as_it_was_read() {
        for text in [TOPIC_TEMPLATE_DEFAULT, "x", "{node}/{site}/{device}"] {
            assert_eq!(text.parse::<TopicTemplate>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn templates_that_make_no_topic_are_refused_by_reason() {
        let long = "x".repeat(TOPIC_BYTES_MAX + 1);
        for (text, error) in [
            ("", TopicError::Length),
            (long.as_str(), TopicError::Length),
            ("a/+/b", TopicError::Character('+')),
            ("a/#", TopicError::Character('#')),
            ("a\0b", TopicError::Character('\0')),
            ("$SYS/x", TopicError::Reserved),
            ("a/{sight}", TopicError::Placeholder("sight".into())),
            ("a/{site", TopicError::Placeholder("site".into())),
            ("a/site}", TopicError::Placeholder("a/site}".into())),
        ] {
            assert_eq!(text.parse::<TopicTemplate>(), Err(error), "{text}");
        }
    }

    #[test]
    fn the_default_filter_takes_what_the_default_template_publishes() {
        let filter: TopicFilter = TOPIC_FILTER_DEFAULT.parse().unwrap();
        for device in [None, Some("02124b0000000001")] {
            assert!(rumqttc::matches(&topic(TOPIC_TEMPLATE_DEFAULT, device), filter.as_str()));
        }
        for bad in ["", "a/#/b", "a/b#", "a+/b", "a\u{7}"] {
            assert!(bad.parse::<TopicFilter>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_device_of_a_command_is_a_level_of_its_topic() {
        let of =
            |text: &str| CommandTopic::of(&text.parse().unwrap(), &"plant".parse().unwrap(), NodeId([7; 16]));
        let topic = of("tidelog/{site}/{device}/command").unwrap();
        assert_eq!(topic.filter(), "tidelog/plant/+/command");
        let device = "02124b0000000001".parse().unwrap();
        assert_eq!(topic.device("tidelog/plant/02124b0000000001/command"), Some(device));
        for other in [
            "tidelog/plant/02124b0000000001/command/answer",
            "tidelog/plant/02124b0000000001",
            "tidelog/works/02124b0000000001/command",
            "tidelog/plant/lamp/command",
            "",
        ] {
            assert_eq!(topic.device(other), None, "{other}");
        }
        for bad in ["tidelog/{site}/command", "{device}/{device}", "tidelog/x-{device}/command"] {
            assert_eq!(of(bad), Err(CommandTopicError), "{bad}");
        }
    }
}
