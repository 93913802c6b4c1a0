//! Topics of other programs: a filter whose levels may have names, so that a topic says something about what is published on it. What
//! the names mean is not known here.

use std::fmt;

use super::super::topic::TOPIC_BYTES_MAX;

/// A topic filter, `+` and `#` where MQTT allows them, and `{name}` for a whole level that is to be remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern {
    levels: Vec<Level>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Level {
    Text(String),
    Named(String),
    /// `+`
    Any,
    /// `#`, which is the last.
    Rest,
}

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Nothing in it, or more than [`TOPIC_BYTES_MAX`].
    #[error("a topic has 1 to {TOPIC_BYTES_MAX} bytes, and no control characters")]
    Length,
    /// A wildcard or a name as a part of a level, or `#` before the end.
    #[error("level {0:?}: '+' and {{name}} stand for a whole level, '#' for all levels at the end")]
    Level(String),
    /// A name that stands twice.
    #[error("{{{0}}} stands twice")]
    Twice(String),
}

impl Pattern {
    pub fn read(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() || text.len() > TOPIC_BYTES_MAX || text.chars().any(char::is_control) {
            return Err(PatternError::Length);
        }
        let mut levels = Vec::new();
        for written in text.split('/') {
            let name = written.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
            let level = match (written, name) {
                _ if levels.last() == Some(&Level::Rest) => return Err(PatternError::Level("#".to_owned())),
                ("+", _) => Level::Any,
                ("#", _) => Level::Rest,
                (_, Some(name)) if !name.is_empty() && !name.contains(['{', '}', '+', '#']) => {
                    let named = Level::Named(name.to_owned());
                    if levels.contains(&named) {
                        return Err(PatternError::Twice(name.to_owned()));
                    }
                    named
                }
                (text, _) if text.contains(['{', '}', '+', '#']) => {
                    return Err(PatternError::Level(text.to_owned()));
                }
                (text, _) => Level::Text(text.to_owned()),
            };
            levels.push(level);
        }
        Ok(Self { levels })
    }

    /// What to subscribe to.
    pub fn filter(&self) -> String {
        let level = |level: &Level| match level {
            Level::Text(text) => text.clone(),
            Level::Named(_) | Level::Any => "+".to_owned(),
            Level::Rest => "#".to_owned(),
        };
        self.levels.iter().map(level).collect::<Vec<_>>().join("/")
    }

    /// The names of its levels.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.levels
            .iter()
            .filter_map(|level| if let Level::Named(name) = level { Some(&**name) } else { None })
    }

    /// What the named levels of a topic are; `None` if the pattern is not of this topic.
    pub fn of<'p, 't>(&'p self, topic: &'t str) -> Option<Vec<(&'p str, &'t str)>> {
        // A wildcard does not stand for the broker's own topics.
        if topic.starts_with('$') && !matches!(self.levels.first(), Some(Level::Text(_))) {
            return None;
        }
        let (mut topic, mut named) = (topic.split('/'), Vec::new());
        for level in &self.levels {
            match (level, topic.next()) {
                // `a/#` is of `a` as well.
                (Level::Rest, _) => return Some(named),
                (Level::Text(expected), Some(text)) if expected == text => {}
                (Level::Any, Some(_)) => {}
                (Level::Named(name), Some(text)) => named.push((name.as_str(), text)),
                (_, _) => return None,
            }
        }
        topic.next().is_none().then_some(named)
    }
}

/// Whether two filters are of one topic, such as a broker might deliver twice.
pub(in crate::mqtt) fn overlap(one: &str, other: &str) -> bool {
    let (mut one, mut other) = (one.split('/'), other.split('/'));
    loop {
        return match (one.next(), other.next()) {
            (Some("#"), _) | (_, Some("#")) | (None, None) => true,
            (None, Some(_)) | (Some(_), None) => false,
            (Some(a), Some(b)) if a == "+" || b == "+" || a == b => continue,
            (Some(_), Some(_)) => false,
        };
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, level) in self.levels.iter().enumerate() {
            if index > 0 {
                f.write_str("/")?;
            }
            match level {
                Level::Text(text) => f.write_str(text)?,
                Level::Named(name) => write!(f, "{{{name}}}")?,
                Level::Any => f.write_str("+")?,
                Level::Rest => f.write_str("#")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(pattern: &str, topic: &str) -> Option<Vec<(String, String)>> {
        let pattern = Pattern::read(pattern).unwrap();
        let owned = |(name, text): (&str, &str)| (name.to_owned(), text.to_owned());
        pattern.of(topic).map(|named| named.into_iter().map(owned).collect())
    }

    #[test]
    fn named_levels_are_what_stands_in_the_topic() {
        let named = of("home/{room}/+/{device}", "home/attic/x/lamp").unwrap();
        assert_eq!(named, [("room".into(), "attic".into()), ("device".into(), "lamp".into())]);
        for other in ["home/attic/x", "home/attic/x/lamp/y", "work/attic/x/lamp", ""] {
            assert_eq!(of("home/{room}/+/{device}", other), None, "{other}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused_by_reason() {
        let long = "x".repeat(TOPIC_BYTES_MAX + 1);
        for (text, expected) in [
            ("", PatternError::Length),
            (long.as_str(), PatternError::Length),
            ("a\0", PatternError::Length),
            ("a/#/b", PatternError::Level("#".into())),
            ("a/b#", PatternError::Level("b#".into())),
            ("a+", PatternError::Level("a+".into())),
            ("a/x{b}", PatternError::Level("x{b}".into())),
            ("a/{}", PatternError::Level("{}".into())),
            ("{a}/{a}", PatternError::Twice("a".into())),
        ] {
            assert_eq!(Pattern::read(text), Err(expected), "{text}");
        }
    }

    fn level() -> impl Strategy<Value = String> {
        prop_oneof![Just("+".to_owned()), "[ab$]{0,2}", "[n-q]".prop_map(|name| format!("{{{name}}}"))]
    }

    fn pattern() -> impl Strategy<Value = Pattern> {
        (prop::collection::vec(level(), 1..5), any::<bool>()).prop_filter_map(
            "no pattern",
            |(mut levels, rest)| {
                if rest {
                    levels.push("#".to_owned());
                }
                Pattern::read(&levels.join("/")).ok()
            },
        )
    }

    proptest! {
        #[test]
        fn a_pattern_is_of_the_topics_that_the_broker_delivers_by_its_filter(
            pattern in pattern(), topic in prop::collection::vec("[ab$]{0,2}", 1..6),
        ) {
            let topic = topic.join("/");
            prop_assume!(!topic.is_empty() && !topic.starts_with('$'));
            prop_assert_eq!(pattern.of(&topic).is_some(), rumqttc::matches(&topic, &pattern.filter()), "{} {}", pattern, topic);
            prop_assert_eq!(Pattern::read(&pattern.to_string()), Ok(pattern));
        }

        #[test]
        fn filters_overlap_if_one_topic_is_of_both(
            one in pattern(), other in pattern(), topic in prop::collection::vec("[ab]{0,2}", 1..6),
        ) {
            let topic = topic.join("/");
            if one.of(&topic).is_some() && other.of(&topic).is_some() {
                prop_assert!(overlap(&one.filter(), &other.filter()));
            }
        }
    }

    #[test]
    fn a_wildcard_is_not_of_the_brokers_own_topics() {
        for (pattern, expected) in
            [("#", false), ("+/a", false), ("{x}/a", false), ("$SYS/a", true), ("$SYS/#", true)]
        {
            assert_eq!(of(pattern, "$SYS/a").is_some(), expected, "{pattern}");
        }
    }

    #[test]
    fn filters_of_different_topics_do_not_overlap() {
        for (one, other, expected) in [
            ("a/+", "b/+", false),
            ("a/+", "a/+/c", false),
            ("a/#", "a", true),
            ("+/x", "a/+", true),
            ("tidelog/+/+", "zigbee2mqtt/+", false),
        ] {
            assert_eq!(overlap(one, other), expected, "{one} {other}");
        }
    }
}
