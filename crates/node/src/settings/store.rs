//! What the store may take and what it keeps: memory, disk, age. The kinds of value that say so are checked here; what is done
//! with them is the store's affair.

use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use tidelog_record::{NodeId, SiteName};
use tidelog_store::{Keep, Retention, StoreOptions};

const MIB: usize = 1024 * 1024;
/// Memory for the store unless it is said, in bytes: this part of what the machine has, within these bounds.
const MEMORY_PART: u64 = 8;
const MEMORY_BYTES_LEAST: usize = 4 * MIB;
const MEMORY_BYTES_MOST: usize = 64 * MIB;

/// The store: what it may take, and what it keeps.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "[store]")]
pub struct StoreSettings {
    /// Memory for the store, in MiB: what is not sealed yet, sealing, caches. Without it, an eighth of what the machine has, from 4
    /// to 64.
    #[arg(id = "store-memory-mib", long = "store-memory-mib", value_name = "MIB", value_parser = clap::value_parser!(u32).range(4..=16_384))]
    pub memory_mib: Option<u32>,

    /// Longest time that a point waits before it is packed into a segment, in seconds. Many points are packed sooner.
    #[arg(id = "store-seal-s-max", long = "store-seal-s-max", value_name = "SECONDS", default_value_t = 3600, value_parser = clap::value_parser!(u32).range(1..))]
    pub seal_s_max: u32,

    /// Log that is packed already and kept for consumers that have not read it, in MiB; behind that they read segments, which is slower.
    #[arg(id = "store-log-keep-mib", long = "store-log-keep-mib", value_name = "MIB", default_value_t = 64)]
    pub log_keep_mib: u32,

    /// What is kept, as [SITE=]AGE, [SITE=]SIZE or both as [SITE=]AGE/SIZE: 90d, 2GiB, plant=30d/500MiB. Units: s, m, h, d, w, y;
    /// KiB, MiB, GiB, TiB. Older points are no longer shown, and their segments go; of a site that takes more the oldest go. Without
    /// it everything is kept. May stand more than once: once without a site, for all that are not named.
    #[arg(id = "store-keep", long = "store-keep", value_name = "KEEP", value_delimiter = ',')]
    pub keep: Vec<KeepRule>,

    /// What happens when the disk is full: writes are refused until there is room, or the oldest segments go.
    #[arg(id = "store-when-full", long = "store-when-full", value_name = "WHAT", default_value = "refuse")]
    pub when_full: WhenFull,

    /// Bytes of segments that are read each second to find rot before a query does, in KiB; 0: none. All segments are read, then there
    /// is a pause of a day.
    #[arg(
        id = "store-scrub-kib-per-s",
        long = "store-scrub-kib-per-s",
        value_name = "KIB",
        default_value_t = 1024
    )]
    pub scrub_kib_per_s: u32,
}

/// What happens when the disk is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WhenFull {
    /// Writes are refused.
    Refuse,
    /// The oldest segment goes.
    DropOldest,
}

/// What is kept of one site, or of all that are not named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeepRule {
    /// The site.
    pub site: Option<SiteName>,
    /// What is kept of it.
    pub keep: Keep,
}

/// Why a text says nothing about what is kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeepError {
    /// No name of a site before the `=`.
    #[error("{0:?} is no name of a site")]
    Site(String),
    /// Neither an age nor a size.
    #[error("{0:?} is neither an age such as 90d nor a size such as 2GiB")]
    Limit(String),
    /// Two ages or two sizes.
    #[error("two ages or two sizes for one site")]
    Twice,
}

impl FromStr for KeepRule {
    type Err = KeepError;

    fn from_str(text: &str) -> Result<Self, KeepError> {
        let (site, limits) = match text.split_once('=') {
            Some((site, limits)) => {
                (Some(site.parse().map_err(|_| KeepError::Site(site.to_owned()))?), limits)
            }
            None => (None, text),
        };
        let mut keep = Keep::default();
        for limit in limits.split('/') {
            let twice = match limit_of(limit).ok_or_else(|| KeepError::Limit(limit.to_owned()))? {
                Limit::Age(age) => keep.age.replace(age).is_some(),
                Limit::Bytes(bytes) => keep.bytes.replace(bytes).is_some(),
            };
            if twice {
                return Err(KeepError::Twice);
            }
        }
        Ok(Self { site, keep })
    }
}

enum Limit {
    Age(Duration),
    Bytes(u64),
}

fn limit_of(text: &str) -> Option<Limit> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok().filter(|number| *number > 0)?;
    let age = |seconds: u64| number.checked_mul(seconds).map(|s| Limit::Age(Duration::from_secs(s)));
    let bytes = |power: u32| number.checked_mul(1024u64.pow(power)).map(Limit::Bytes);
    match unit {
        "s" => age(1),
        "m" => age(60),
        "h" => age(3_600),
        "d" => age(86_400),
        "w" => age(7 * 86_400),
        "y" => age(365 * 86_400),
        "KiB" => bytes(1),
        "MiB" => bytes(2),
        "GiB" => bytes(3),
        "TiB" => bytes(4),
        _ => None,
    }
}

impl StoreSettings {
    /// What is kept of each site.
    ///
    /// # Errors
    /// The site that is named twice; `None` when two rules name none.
    pub fn retention(&self) -> Result<Retention, Option<SiteName>> {
        let drop_when_full = self.when_full == WhenFull::DropOldest;
        let mut retention = Retention { drop_when_full, ..Retention::default() };
        let mut for_all = false;
        for KeepRule { site, keep } in &self.keep {
            match site {
                None if for_all => return Err(None),
                None => {
                    for_all = true;
                    retention.all = *keep;
                }
                Some(site) => {
                    if retention.sites.insert(site.clone(), *keep).is_some() {
                        return Err(Some(site.clone()));
                    }
                }
            }
        }
        Ok(retention)
    }

    /// The store's options; `machine_bytes` is the memory that the machine has, if it is known.
    ///
    /// # Errors
    /// As [`StoreSettings::retention`].
    pub fn options(
        &self,
        node: NodeId,
        machine_bytes: Option<u64>,
    ) -> Result<StoreOptions, Option<SiteName>> {
        let of_machine = || {
            let part = machine_bytes.map_or(u64::MAX, |bytes| bytes / MEMORY_PART);
            usize::try_from(part).unwrap_or(usize::MAX).clamp(MEMORY_BYTES_LEAST, MEMORY_BYTES_MOST)
        };
        let said = self.memory_mib.and_then(|mib| usize::try_from(mib).ok()?.checked_mul(MIB));
        let mut options = StoreOptions::new(node).within(said.unwrap_or_else(of_machine));
        options.upkeep.seal_after = Duration::from_secs(u64::from(self.seal_s_max));
        options.upkeep.log_keep_bytes_max = u64::from(self.log_keep_mib) * MIB as u64;
        options.upkeep.retention = self.retention()?;
        options.upkeep.scrub_bytes_per_second = u64::from(self.scrub_kib_per_s) * 1024;
        Ok(options)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    type Rule = (Option<String>, Option<u64>, Option<u64>);

    fn rule(text: &str) -> Result<Rule, KeepError> {
        let KeepRule { site, keep } = text.parse()?;
        Ok((site.map(|site| site.to_string()), keep.age.map(|age| age.as_secs()), keep.bytes))
    }

    #[test]
    fn a_rule_says_an_age_a_size_or_both_of_a_site_or_of_all() {
        assert_eq!(rule("90d"), Ok((None, Some(90 * 86_400), None)));
        assert_eq!(rule("2GiB"), Ok((None, None, Some(2 << 30))));
        assert_eq!(rule("plant=1w/500MiB"), Ok((Some("plant".to_owned()), Some(604_800), Some(500 << 20))));
        for bad in [
            "",
            "90",
            "d",
            "0d",
            "90d/30d",
            "1GiB/2GiB",
            "=1d",
            "a b=1d",
            "1.5d",
            "-1d",
            "99999999999999999999y",
            "9999999999999TiB",
            "1GB",
        ] {
            assert!(rule(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_memory_of_the_machine_decides_unless_it_is_said() {
        let settings = |memory_mib| StoreSettings {
            memory_mib,
            seal_s_max: 1,
            log_keep_mib: 1,
            keep: Vec::new(),
            when_full: WhenFull::Refuse,
            scrub_kib_per_s: 0,
        };
        let points = |memory_mib, machine: Option<u64>| {
            settings(memory_mib).options(NodeId([0; 16]), machine).unwrap().upkeep.seal_points
        };
        assert_eq!(points(None, None), points(Some(64), Some(1)));
        assert_eq!(points(None, Some(64 << 20)), points(Some(8), None));
        assert!(points(Some(8), None) < points(Some(64), None));
    }

    #[test]
    fn a_site_that_is_named_twice_is_refused() {
        let keep = |rules: &[&str]| {
            let keep = rules.iter().map(|rule| rule.parse().unwrap()).collect();
            let settings = StoreSettings {
                memory_mib: None,
                seal_s_max: 1,
                log_keep_mib: 1,
                keep,
                when_full: WhenFull::DropOldest,
                scrub_kib_per_s: 0,
            };
            settings.retention()
        };
        let found = keep(&["1d", "plant=2d/1MiB", "house=1KiB"]).unwrap();
        assert_eq!(found.of(&"plant".parse().unwrap()).bytes, Some(1 << 20));
        assert_eq!(found.of(&"elsewhere".parse().unwrap()).age, Some(Duration::from_secs(86_400)));
        assert_eq!(keep(&["1d", "2d"]), Err(None));
        assert_eq!(keep(&["plant=1d", "plant=2d"]), Err(Some("plant".parse().unwrap())));
    }
}
