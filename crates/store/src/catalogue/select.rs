//! Which series of a site meet all conditions. Conditions that name values are answered from their posting lists; when few
//! series are left, the rest of the conditions are held against these; else against the label's values.

use std::collections::HashMap;
use std::hash::RandomState;
use std::sync::{Arc, Mutex};

use tidelog_record::Series;

use super::error::CatalogueError;
use super::generations::Generations;
use super::matcher::{Matcher, Possible, all_hold};
use super::numbers::{Numbers, read_ranges};
use super::order::{escape, unescape};
use super::run::{Postings, Run, posting};
use super::shelf::Shelf;
use super::site::{View, read_name};
use crate::shared::locked;

/// Words of a regular expression that are looked up one by one.
const WORDS_MAX: usize = 1024;
/// So many series are held against any condition, one by one.
const FEW: u64 = 64;
/// So many values of a label are held against a condition in the time that one series takes.
const VALUES_PER_SERIES: u64 = 32;
/// Answers of so many series leave theirs in memory.
const KEPT_MAX: u64 = 16_384;
/// What a series takes in memory besides its name's length a few times, in bytes.
const SERIES_BYTES: usize = 256;

const BAD_LIST: CatalogueError = CatalogueError::Damaged("a posting list is none");

/// Site, run and number.
type Place = (u32, u32, u32);

/// Series that were asked for, as they are handed out.
pub(super) type SeriesCache = Mutex<Generations<Place, Arc<Series>, RandomState>>;

/// The series that meet all conditions, in canonical order.
pub(super) fn select(
    shelf: &Shelf,
    cache: &SeriesCache,
    view: &View,
    matchers: &[Matcher],
) -> Result<Vec<Arc<Series>>, CatalogueError> {
    let mut out = Vec::new();
    for run in &view.runs {
        let (numbers, rest) = candidates(shelf, run, matchers)?;
        load(shelf, cache, run, &numbers, &mut |series| {
            if rest.iter().all(|matcher| matcher.holds(&series)) {
                out.push(series);
            }
        })?;
    }
    for name in view.pending.iter() {
        let series = read_name(name)?;
        if all_hold(matchers, &series) {
            out.push(Arc::new(series));
        }
    }
    // What comes from one run is in order already, which this sort uses.
    out.sort();
    Ok(out)
}

/// Series of a run of which some may meet the conditions, and the conditions they are still to be held against.
fn candidates<'m>(
    shelf: &Shelf,
    run: &Run,
    matchers: &'m [Matcher],
) -> Result<(Numbers, Vec<&'m Matcher>), CatalogueError> {
    let mut found = Numbers::below(run.count);
    let mut rest = Vec::new();
    for matcher in matchers {
        let names_values = !matcher.is_negative() && !matcher.like("");
        match matcher.possible() {
            Possible::These(texts) if names_values && texts.len() <= WORDS_MAX => {
                found = found.and(&meeting(shelf, run, matcher)?);
            }
            _ => rest.push(matcher),
        }
        if found.is_empty() {
            return Ok((found, Vec::new()));
        }
    }
    let mut held_against = Vec::new();
    for matcher in rest {
        let begins = matches!(matcher.possible(), Possible::Beginning(_)) && !matcher.like("");
        if found.len() > FEW && begins || found.len() > u64::from(run.count) / VALUES_PER_SERIES {
            found = found.and(&meeting(shelf, run, matcher)?);
        } else {
            held_against.push(matcher);
        }
    }
    Ok((found, held_against))
}

/// The series of a run that meet one condition.
fn meeting(shelf: &Shelf, run: &Run, matcher: &Matcher) -> Result<Numbers, CatalogueError> {
    let label = matcher.name().as_bytes();
    let mut ranges = Vec::new();
    // Where the empty value is meant too, those that lack the label are among them: then take away the other values.
    let empty_is_like = matcher.like("");
    match matcher.possible() {
        Possible::These(texts) if !empty_is_like && texts.len() <= WORDS_MAX => {
            for text in texts.iter().filter(|text| matcher.like(text)) {
                let mut value = Vec::new();
                escape(&mut value, text);
                run.gather(shelf, &posting(label, &value), &mut ranges)?;
            }
        }
        Possible::Beginning(texts) if !empty_is_like => {
            let mut sorted: Vec<&String> = texts.iter().collect();
            sorted.sort_unstable();
            sorted.dedup_by(|later, earlier| later.starts_with(earlier.as_str()));
            for text in sorted {
                each_value(shelf, run, label, text, &mut |value, list| {
                    if matcher.like(value) { read_ranges(list, &mut ranges).ok_or(BAD_LIST) } else { Ok(()) }
                })?;
            }
        }
        _ => each_value(shelf, run, label, "", &mut |value, list| {
            if matcher.like(value) != empty_is_like {
                read_ranges(list, &mut ranges).ok_or(BAD_LIST)
            } else {
                Ok(())
            }
        })?,
    }
    let named = Numbers::of_ranges(ranges);
    Ok(if matcher.holds_for("") { named.not(run.count) } else { named })
}

/// What is done with each value and its numbers.
pub(super) type VisitValue<'v> = &'v mut dyn FnMut(&str, &[u8]) -> Result<(), CatalogueError>;

/// Visits the values of a label that begin so, in ascending order, each with its numbers in one or more lists.
pub(super) fn each_value(
    shelf: &Shelf,
    run: &Run,
    label: &[u8],
    beginning: &str,
    visit: VisitValue<'_>,
) -> Result<(), CatalogueError> {
    let mut prefix = posting(label, &[]);
    let value_at = prefix.len();
    escape(&mut prefix, beginning);
    let mut postings = Postings::from(run, shelf, &prefix)?;
    let (mut before, mut value) = (Vec::new(), String::new());
    while postings.advance()? && postings.posting().starts_with(&prefix) {
        if before.is_empty() || before != postings.posting() {
            before.clear();
            before.extend_from_slice(postings.posting());
            value = unescape(before.get(value_at..).unwrap_or_default()).ok_or(BAD_LIST)?;
        }
        visit(&value, postings.list())?;
    }
    Ok(())
}

/// Visits the labels of a run in ascending order.
pub(super) fn each_label(
    shelf: &Shelf,
    run: &Run,
    visit: &mut dyn FnMut(&str),
) -> Result<(), CatalogueError> {
    let mut start = Vec::new();
    loop {
        let mut postings = Postings::from(run, shelf, &start)?;
        if !postings.advance()? {
            return Ok(());
        }
        let label = postings.posting().split(|byte| *byte == 0).next().unwrap_or_default();
        // Behind all values of this label. Entries of a damaged page could lead back.
        let behind = [label, &[1]].concat();
        if behind <= start {
            return Err(BAD_LIST);
        }
        visit(std::str::from_utf8(label).map_err(|_| BAD_LIST)?);
        start = behind;
    }
}

/// Hands out series of a run in ascending order. Each page is read once; a few series are kept.
fn load(
    shelf: &Shelf,
    cache: &SeriesCache,
    run: &Run,
    numbers: &Numbers,
    visit: &mut dyn FnMut(Arc<Series>),
) -> Result<(), CatalogueError> {
    let keep = numbers.len() <= KEPT_MAX;
    let mut held: Option<(u32, Vec<Vec<u8>>)> = None;
    for number in numbers.iter() {
        let place = (run.site, run.id, number);
        if keep && let Some(series) = locked(cache).get(&place) {
            visit(series);
            continue;
        }
        let (page, at) = Run::place(number);
        if held.as_ref().is_none_or(|(before, _)| *before != page) {
            held = Some((page, run.names(shelf, page)?));
        }
        let name = held.as_ref().and_then(|(_, names)| names.get(at)).ok_or(BAD_LIST)?;
        let series = Arc::new(read_name(name)?);
        if keep {
            locked(cache).put(place, Arc::clone(&series), SERIES_BYTES + name.len() * 3);
        }
        visit(series);
    }
    Ok(())
}

/// Answers that are asked for again and again, as long as no series came.
#[derive(Debug)]
pub(super) struct Answers {
    answers: Mutex<HashMap<Question, Answer>>,
    series_max: usize,
}

/// How many series the site had, and those that were found.
type Answer = (u64, Arc<[Arc<Series>]>);

/// The site's number and the conditions.
pub(super) type Question = (u32, Vec<(String, super::matcher::MatchOp, String)>);

/// Answers that are kept.
const ANSWERS_MAX: usize = 32;
/// Parts of the memory for answers that one may take.
const ANSWER_SHARE: usize = 2;

impl Answers {
    pub fn new(bytes_max: usize) -> Self {
        Self { answers: Mutex::default(), series_max: bytes_max / (SERIES_BYTES * 2) }
    }

    pub fn question(site: u32, matchers: &[Matcher]) -> Question {
        let parts = matchers.iter().map(|m| (m.name().to_owned(), m.op(), m.value().to_owned()));
        (site, parts.collect())
    }

    pub fn get(&self, question: &Question, series: u64) -> Option<Vec<Arc<Series>>> {
        let answers = locked(&self.answers);
        answers.get(question).filter(|(then, _)| *then == series).map(|(_, answer)| answer.to_vec())
    }

    pub fn put(&self, question: Question, series: u64, answer: &[Arc<Series>]) {
        if answer.len() > self.series_max / ANSWER_SHARE {
            return;
        }
        let mut answers = locked(&self.answers);
        let held: usize = answers.values().map(|(_, answer)| answer.len()).sum();
        if answers.len() >= ANSWERS_MAX || held + answer.len() > self.series_max {
            answers.clear();
        }
        answers.insert(question, (series, answer.into()));
    }

    pub fn clear(&self) {
        locked(&self.answers).clear();
    }
}
