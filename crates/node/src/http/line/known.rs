//! The series that were met before, by the bytes that name them in a line: measurement and tags as they were posted, then the
//! field. Clients write these alike from request to request, so a known line costs comparisons and no names. What is
//! known is bounded in bytes; past the bound all is forgotten, which costs time only.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::ops::Range;

use super::gather::point_bytes_max;
use super::naming::Naming;
use super::parse::{LineFault, unescaped_name};

/// What a key takes beside its name, about, in bytes: itself, its place in the table, its list of slots.
const KEY_BYTES: usize = 160;

/// What a field of a key takes beside its canonical form, about, in bytes.
const SLOT_BYTES: usize = 48;

/// A part of the text that names stand in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    from: u32,
    to: u32,
}

impl Span {
    fn range(self) -> Range<usize> {
        index(self.from)..index(self.to)
    }

    /// In bytes.
    pub fn len(self) -> usize {
        index(self.to - self.from)
    }
}

/// What the name of a field takes beside its bytes, about, in bytes.
const FIELD_BYTES: usize = 128;

/// Fields of a key that are found by comparing; further ones by hashing.
const FIELDS_COMPARED_MAX: usize = 16;

/// A measurement with its tags, as posted.
#[derive(Debug)]
pub(super) struct Key {
    raw: Span,
    /// The key that followed this one the last time.
    next: u32,
    pub slots: Vec<Slot>,
    pub open: OpenRows,
}

/// A key's rows in a record under way; what it says of another record says nothing of this one.
#[derive(Debug, Default)]
pub(super) struct OpenRows {
    pub record: u64,
    pub first: u32,
    pub last: u32,
    /// Whether each row has the key's first slots in their order, and as many of them.
    pub alike: bool,
    pub slots: u32,
}

/// A field of a key.
#[derive(Debug)]
pub(super) struct Slot {
    field: u32,
    /// The last record it has points in.
    pub record: u64,
    /// What a point of it and its name take in a record at most, in bytes; without a text.
    pub bytes_max: usize,
    pub canonical: Span,
}

/// What is known.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Keys' names and canonical forms, one after the other: forgetting them is forgetting one thing.
    text: Vec<u8>,
    keys: Vec<Key>,
    /// By a keyed hash of the name. Of two names with one hash, which nobody can find, the later one is known.
    numbers: HashMap<u64, u32>,
    hashes: RandomState,
    /// Names of fields, which many keys share.
    fields: Vec<Box<[u8]>>,
    field_numbers: HashMap<Box<[u8]>, u32>,
    /// Slots behind a key's first ones, by key and field.
    further: HashMap<(u32, u32), u32>,
    last: u32,
    /// Of the key that was read last.
    naming: Option<(u32, Naming)>,
    bytes: usize,
}

fn index(number: u32) -> usize {
    // Where u32 does not fit usize there is no room for as many keys either.
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn number(index: usize) -> u32 {
    // The bound on bytes is far below as many keys, fields or slots.
    u32::try_from(index).unwrap_or(u32::MAX)
}

impl Known {
    /// What it takes in memory, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Forgets all, and keeps the room: it will be filled again.
    pub fn forget(&mut self) {
        self.text.clear();
        self.keys.clear();
        self.numbers.clear();
        self.fields.clear();
        self.field_numbers.clear();
        self.further.clear();
        (self.last, self.naming, self.bytes) = (0, None, 0);
    }

    /// What stands there.
    #[inline]
    pub fn text(&self, span: Span) -> &[u8] {
        self.text.get(span.range()).unwrap_or_default()
    }

    pub fn key(&self, number: u32) -> Option<&Key> {
        self.keys.get(index(number))
    }

    pub fn key_mut(&mut self, number: u32) -> Option<&mut Key> {
        self.keys.get_mut(index(number))
    }

    /// The key that a line begins with, if it is known, and what stands behind it and its blank.
    #[inline]
    pub fn begins<'b>(&self, line: &'b [u8]) -> Option<(u32, &'b [u8])> {
        if let Some(foretold) = self.key(self.last).map(|key| key.next)
            && let Some(rest) = self.key(foretold).and_then(|key| line.strip_prefix(self.text(key.raw)))
            && let Some(rest) = rest.strip_prefix(b" ")
        {
            return Some((foretold, rest));
        }
        // A key with an escaped blank is longer than this and is not found, which is right: known keys hold no unescaped one.
        let length = memchr::memchr2(b' ', b'\n', line)?;
        let (raw, rest) = line.split_at_checked(length)?;
        Some((self.known_key(raw)?, rest.strip_prefix(b" ")?))
    }

    fn known_key(&self, raw: &[u8]) -> Option<u32> {
        let number = *self.numbers.get(&self.hashes.hash_one(raw))?;
        (self.text(self.key(number)?.raw) == raw).then_some(number)
    }

    /// A line of this key was taken in: remembers which key comes after which.
    #[inline]
    pub fn comes(&mut self, number: u32) {
        if let Some(last) = self.keys.get_mut(index(self.last))
            && last.next != number
        {
            last.next = number;
        }
        self.last = number;
    }

    /// The slot of the field that stands first in `rest`, if it is known, and what stands behind its equals sign. It is
    /// most likely the one that is expected.
    #[inline]
    pub fn field<'b>(&self, key: &Key, expected: usize, rest: &'b [u8]) -> Option<(usize, &'b [u8])> {
        let behind = |slot: &Slot| {
            let name = self.fields.get(index(slot.field))?;
            rest.strip_prefix(&**name)?.strip_prefix(b"=")
        };
        if let Some(rest) = key.slots.get(expected).and_then(behind) {
            return Some((expected, rest));
        }
        let compared = key.slots.iter().take(FIELDS_COMPARED_MAX).enumerate();
        compared.filter_map(|(at, slot)| Some((at, behind(slot)?))).next()
    }

    /// The number of a key, which is read and remembered if it is new.
    pub fn number_of_key(&mut self, raw: &[u8]) -> Result<u32, LineFault> {
        if let Some(number) = self.known_key(raw) {
            return Ok(number);
        }
        let naming = Naming::of_key(raw)?;
        let (new, from) = (number(self.keys.len()), self.text.len());
        self.text.extend_from_slice(raw);
        let raw_span = Span { from: number(from), to: number(self.text.len()) };
        self.keys.push(Key { raw: raw_span, next: new, slots: Vec::new(), open: OpenRows::default() });
        self.numbers.insert(self.hashes.hash_one(raw), new);
        self.naming = Some((new, naming));
        self.bytes += KEY_BYTES + raw.len();
        Ok(new)
    }

    /// The slot of a key's field, which is named and remembered if it is new.
    pub fn slot_of_field(&mut self, key: u32, expected: usize, field: &[u8]) -> Result<usize, LineFault> {
        let known = self.keys.get(index(key)).ok_or(LineFault::Measurement)?;
        let is_it = |slot: &Slot| self.fields.get(index(slot.field)).is_some_and(|name| **name == *field);
        if known.slots.get(expected).is_some_and(is_it) {
            return Ok(expected);
        }
        if let Some(at) = known.slots.iter().take(FIELDS_COMPARED_MAX).position(is_it) {
            return Ok(at);
        }
        let field_number = self.number_of_field(field);
        if let Some(at) = self.further.get(&(key, field_number)) {
            return Ok(index(*at));
        }
        let known = self.keys.get_mut(index(key)).ok_or(LineFault::Measurement)?;
        let naming = match &mut self.naming {
            Some((of, naming)) if *of == key => naming,
            other => {
                let raw = self.text.get(known.raw.range()).unwrap_or_default();
                &mut other.insert((key, Naming::of_key(raw)?)).1
            }
        };
        let from = self.text.len();
        naming.put_series(&unescaped_name(field)?, &mut self.text)?;
        let canonical = Span { from: number(from), to: number(self.text.len()) };
        let at = known.slots.len();
        self.bytes += SLOT_BYTES + canonical.len();
        let bytes_max = point_bytes_max(known.raw.len(), field.len());
        known.slots.push(Slot { field: field_number, record: 0, bytes_max, canonical });
        if at >= FIELDS_COMPARED_MAX {
            self.bytes += SLOT_BYTES;
            self.further.insert((key, field_number), number(at));
        }
        Ok(at)
    }

    fn number_of_field(&mut self, field: &[u8]) -> u32 {
        if let Some(number) = self.field_numbers.get(field) {
            return *number;
        }
        let new = number(self.fields.len());
        self.fields.push(field.into());
        self.field_numbers.insert(field.into(), new);
        self.bytes += FIELD_BYTES + 2 * field.len();
        new
    }
}
