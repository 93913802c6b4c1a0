//! The log against a naive model, with the power lost at every single word and erase, and at random.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::VecDeque;

use proptest::prelude::*;
use tidelog_flashlog::{Error, FlashLog, NOTES_MAX, PAYLOAD_BYTES_MAX};
use tidelog_sim::flash::SimFlash;

const BLOCK: usize = 512;
type Chip = SimFlash<4, BLOCK>;

#[derive(Debug, Clone)]
enum Step {
    Append(usize),
    Acknowledge(u64),
    GiveUp(u64),
    /// Raises the reservation by so many.
    Reserve(u32),
    /// Slot and value.
    Note(u8, u64),
}

/// What must be in the log: every payload ever appended, and which of them nobody acknowledged.
#[derive(Default)]
struct Model {
    history: Vec<Vec<u8>>,
    waiting: VecDeque<u64>,
    lost: u64,
    reserved: u32,
    notes: [Option<u64>; NOTES_MAX],
    /// What was given up, by number.
    given_up: Vec<u64>,
}

fn payload(seq: u64, length: usize) -> Vec<u8> {
    (0..length).map(|i| u8::try_from((seq * 31 + i as u64) % 251).unwrap()).collect()
}

impl Model {
    fn head(&self) -> u64 {
        self.history.len() as u64
    }

    fn appended(&mut self, length: usize) {
        let seq = self.head() + 1;
        self.history.push(payload(seq, length));
        self.waiting.push_back(seq);
    }

    fn forget(&mut self, upto: u64) -> u64 {
        let before = self.waiting.len();
        self.waiting.retain(|seq| *seq > upto);
        (before - self.waiting.len()) as u64
    }

    fn gave_up(&mut self, upto: u64) {
        self.given_up.extend(self.waiting.iter().filter(|seq| **seq <= upto));
        self.lost += self.forget(upto);
    }

    /// A cursor that stood in memory only is forgotten by a power cut: what was given up with it waits again, and is no loss yet.
    fn take_back(&mut self, log: &FlashLog<Chip>) {
        let before = self.given_up.len();
        self.given_up.retain(|seq| *seq <= log.acknowledged());
        self.lost -= (before - self.given_up.len()) as u64;
    }

    /// Takes over what a power cut decided: whether the step under way took place, which late acknowledgements are forgotten.
    fn after_power_cut(&mut self, log: &FlashLog<Chip>, under_way: &Step) {
        match under_way {
            Step::Append(length) if log.head() > self.head() => self.appended(*length),
            Step::GiveUp(upto) if log.acknowledged() >= *upto && *upto <= self.head() => {
                self.gave_up(*upto);
            }
            Step::Acknowledge(upto) if log.acknowledged() >= *upto && *upto <= self.head() => {
                self.forget(*upto);
            }
            Step::Reserve(more) if log.reserved() > self.reserved => self.reserved += more,
            Step::Note(slot, value) if log.noted(*slot) == Some(*value) => self.note(*slot, *value),
            _ => {}
        }
        assert_eq!(log.reserved(), self.reserved, "a reservation that was promised is kept");
        assert_eq!(noted(log), self.notes, "a note is the old one or the new one");
        self.take_back(log);
        self.evicted(log);
        assert!(self.waiting.front().is_none_or(|seq| log.acknowledged() < *seq));
        self.waiting = (log.acknowledged() + 1..=self.head()).collect();
    }

    /// What the log let go must be counted, one by one.
    fn evicted(&mut self, log: &FlashLog<Chip>) {
        self.lost += self.forget(log.acknowledged());
        assert_eq!(log.lost(), self.lost, "every loss is counted once");
    }

    fn note(&mut self, slot: u8, value: u64) {
        if let Some(note) = self.notes.get_mut(usize::from(slot)) {
            *note = Some(value);
        }
    }

    fn check(&self, log: &mut FlashLog<Chip>) {
        assert_eq!((log.head(), log.reserved(), noted(log)), (self.head(), self.reserved, self.notes));
        let mut buffer = [0; PAYLOAD_BYTES_MAX];
        let mut after = log.acknowledged();
        for wanted in &self.waiting {
            let (seq, length) = log.read_after(after, &mut buffer).unwrap().expect("a payload that waits");
            assert_eq!(seq, *wanted);
            assert_eq!(&buffer[..length], self.history[usize::try_from(seq).unwrap() - 1], "payload {seq}");
            after = seq;
        }
        assert_eq!(log.read_after(after, &mut buffer).unwrap(), None);
    }
}

fn noted(log: &FlashLog<Chip>) -> [Option<u64>; NOTES_MAX] {
    std::array::from_fn(|slot| log.noted(u8::try_from(slot).unwrap()))
}

/// Runs steps until the power goes; the step it went in.
fn run(log: &mut FlashLog<Chip>, model: &mut Model, steps: &[Step]) -> Option<(usize, Step)> {
    for (index, step) in steps.iter().enumerate() {
        let done = match step {
            Step::Append(length) => {
                let fits = log.fits(*length);
                let lost = log.lost();
                let done = log
                    .append(&payload(model.head() + 1, *length))
                    .map(|seq| assert_eq!(seq, model.head() + 1));
                assert!(!fits || log.lost() == lost, "what fits loses nothing");
                done
            }
            Step::Acknowledge(upto) => log.acknowledge(*upto),
            Step::GiveUp(upto) => log.give_up(*upto),
            Step::Reserve(more) => log.reserve(model.reserved + more),
            Step::Note(slot, value) => log.note(*slot, *value),
        };
        match (done, step) {
            (Ok(()), Step::Append(length)) => model.appended(*length),
            (Ok(()), Step::Acknowledge(upto)) => drop(model.forget(*upto)),
            (Ok(()), Step::GiveUp(upto)) => model.gave_up(*upto),
            (Ok(()), Step::Reserve(more)) => model.reserved += more,
            (Ok(()), Step::Note(slot, value)) => model.note(*slot, *value),
            (Err(Error::NoSlot), Step::Note(slot, _)) => assert!(usize::from(*slot) >= NOTES_MAX),
            (Err(Error::Unwritten { head }), Step::Acknowledge(upto) | Step::GiveUp(upto)) => {
                assert!(*upto > head);
            }
            (Err(_), _) => return Some((index, step.clone())),
        }
        model.evicted(log);
    }
    None
}

fn reopen(log: FlashLog<Chip>) -> FlashLog<Chip> {
    let mut chip = log.into_flash();
    chip.power_on();
    FlashLog::open(chip, 0xbad).unwrap()
}

/// Opens a log on a chip whose power may go meanwhile, and then once more; whether it went.
fn open_or_restart(mut chip: Chip) -> (FlashLog<Chip>, bool) {
    if let Ok(log) = FlashLog::open(chip.clone(), 1) {
        return (log, true);
    }
    assert!(FlashLog::open(&mut chip, 1).is_err(), "the same chip, the same cut");
    chip.power_on();
    (FlashLog::open(chip, 1).unwrap(), false)
}

fn script() -> Vec<Step> {
    let mut steps = Vec::new();
    for i in 1..=60u64 {
        steps.push(Step::Append(usize::try_from(i * 7 % 60).unwrap()));
        if i % 5 == 0 && i < 30 {
            steps.push(Step::Acknowledge(i - 2));
        }
        if i % 4 == 0 {
            steps.push(Step::Reserve(u32::try_from(i).unwrap()));
        }
        if i % 3 == 0 {
            steps.push(Step::Note(u8::try_from(i % 4).unwrap(), i << 40));
        }
        if i == 55 {
            steps.push(Step::GiveUp(50));
        }
    }
    steps
}

#[test]
fn with_the_power_lost_at_every_word_and_erase_nothing_appended_is_missing() {
    let steps = script();
    let mut cuts = 0;
    for seed in 0..2 {
        for cut in 0.. {
            let mut chip = Chip::new(4);
            chip.cut_after(cut, seed * 1_000_003 + cut);
            let mut model = Model::default();
            // A cut in formatting: nothing was promised, and the next start makes a log.
            let (mut log, formatted) = open_or_restart(chip);
            let Some((at, step)) = run(&mut log, &mut model, &steps) else {
                if formatted {
                    break;
                }
                continue;
            };
            cuts += 1;
            let mut log = reopen(log);
            model.after_power_cut(&log, &step);
            model.check(&mut log);
            assert!(run(&mut log, &mut model, &steps[at..]).is_none());
            model.check(&mut log);
            let mut again = reopen(log);
            model.check(&mut again);
            assert_eq!(again.lost(), model.lost);
        }
    }
    assert!(cuts > 1000, "{cuts} cuts");
}

#[test]
fn lives_that_end_in_their_first_word_do_not_end_the_log() {
    for seed in 0..200 {
        let mut chip = Chip::new(4);
        let mut log = FlashLog::open(&mut chip, 1).unwrap();
        for seq in 1..=3 {
            log.append(&payload(seq, 20)).unwrap();
        }
        // Some of them leave a word that looks as if it was never written.
        for life in 0..6 {
            chip.cut_after(0, seed * 31 + life);
            assert!(FlashLog::open(&mut chip, 1).unwrap().append(&payload(4, 20)).is_err());
            chip.power_on();
        }
        let mut log = FlashLog::open(&mut chip, 1).unwrap();
        let mut buffer = [0; PAYLOAD_BYTES_MAX];
        for seq in 4..=8 {
            assert_eq!(log.append(&payload(seq, 20)), Ok(seq), "seed {seed}");
        }
        for seq in 1..=8 {
            assert_eq!(log.read_after(seq - 1, &mut buffer).unwrap(), Some((seq, 20)));
            assert_eq!(&buffer[..20], payload(seq, 20));
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0usize..=PAYLOAD_BYTES_MAX).prop_map(Step::Append),
        8 => (0usize..40).prop_map(Step::Append),
        3 => (0u64..400).prop_map(Step::Acknowledge),
        1 => (0u64..400).prop_map(Step::GiveUp),
        3 => (0u32..2_000).prop_map(Step::Reserve),
        3 => (0u8..5, any::<u64>()).prop_map(|(slot, value)| Step::Note(slot, value)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn through_any_steps_and_many_power_cuts_the_log_holds_what_the_model_holds(
        blocks in 3usize..8, lives in prop::collection::vec((prop::collection::vec(step(), 1..80), 0u64..700, any::<u64>()), 1..8),
    ) {
        let mut log = FlashLog::open(Chip::new(blocks), 1).unwrap();
        let mut model = Model::default();
        for (steps, cut, seed) in lives {
            log.flash_mut().cut_after(cut, seed);
            let mut under_way = run(&mut log, &mut model, &steps).map(|(_, step)| step);
            if under_way.is_none() {
                model.check(&mut log);
                log.flash_mut().power_off();
            }
            let mut chip = log.into_flash();
            // The power may go again while the log is being opened.
            chip.power_on();
            chip.cut_after(seed % 3, seed);
            log = open_or_restart(chip).0;
            log.flash_mut().power_on();
            prop_assert_eq!(log.epoch(), 1);
            model.after_power_cut(&log, &under_way.take().unwrap_or(Step::Acknowledge(0)));
            model.check(&mut log);
        }
    }

    #[test]
    fn any_number_can_be_sought(appends in 1u64..200, blocks in 3usize..8, asked in prop::collection::vec(0u64..220, 1..20)) {
        let mut log = FlashLog::open(Chip::new(blocks), 1).unwrap();
        for seq in 1..=appends {
            log.append(&payload(seq, 20)).unwrap();
        }
        let mut buffer = [0; PAYLOAD_BYTES_MAX];
        for seq in asked {
            let found = log.read_after(seq, &mut buffer).unwrap();
            let wanted = seq.max(log.acknowledged()) + 1;
            prop_assert_eq!(found.map(|(seq, _)| seq), (wanted <= appends).then_some(wanted));
            if let Some((seq, length)) = found {
                prop_assert_eq!(&buffer[..length], payload(seq, 20));
            }
        }
    }

    #[test]
    fn a_reader_that_eviction_overtakes_goes_on_with_the_oldest_that_is_left(
        blocks in 3usize..6, bursts in prop::collection::vec((1u64..60, 0u64..10), 1..20),
    ) {
        let mut log = FlashLog::open(Chip::new(blocks), 1).unwrap();
        let mut buffer = [0; PAYLOAD_BYTES_MAX];
        let (mut head, mut read) = (0, 0);
        for (appends, reads) in bursts {
            for _ in 0..appends {
                head += 1;
                log.append(&payload(head, 20)).unwrap();
            }
            for _ in 0..reads {
                let wanted = read.max(log.acknowledged()) + 1;
                let found = log.read_after(read, &mut buffer).unwrap();
                prop_assert_eq!(found, (wanted <= head).then_some((wanted, 20)));
                if found.is_some() {
                    prop_assert_eq!(&buffer[..20], payload(wanted, 20));
                    read = wanted;
                }
            }
        }
    }

    #[test]
    fn rot_anywhere_is_skipped_or_counted_and_never_served(
        appends in 1u64..150, at in 0usize..6 * BLOCK, mask in 1u8.., acked in 0u64..100,
    ) {
        let mut log = FlashLog::open(Chip::new(6), 1).unwrap();
        for seq in 1..=appends {
            log.append(&payload(seq, 17)).unwrap();
        }
        log.acknowledge(acked.min(appends)).unwrap();
        let mut chip = log.into_flash();
        chip.rot(at, mask);
        let mut log = FlashLog::open(chip, 2).unwrap();
        let mut buffer = [0; PAYLOAD_BYTES_MAX];
        let mut after = log.acknowledged();
        while let Some((seq, length)) = log.read_after(after, &mut buffer).unwrap() {
            prop_assert!(seq > after);
            prop_assert_eq!(&buffer[..length], payload(seq, 17));
            after = seq;
        }
        let seq = log.append(b"new").unwrap();
        prop_assert!(seq > log.acknowledged());
        prop_assert_eq!(log.read_after(seq - 1, &mut buffer).unwrap(), Some((seq, 3)));
    }

    #[test]
    fn a_flash_full_of_noise_becomes_a_log(noise in prop::collection::vec(any::<u8>(), 4 * BLOCK)) {
        let mut chip = Chip::new(4);
        for (at, byte) in noise.iter().enumerate() {
            chip.rot(at, *byte);
        }
        let mut log = FlashLog::open(chip, 9).unwrap();
        prop_assert_eq!((log.epoch(), log.append(b"x").unwrap()), (9, 1));
    }
}

#[test]
fn the_cost_of_a_step_does_not_grow_with_the_log() {
    let mut log = FlashLog::open(SimFlash::<4, 4096>::new(256), 1).unwrap();
    let started = std::time::Instant::now();
    let mut buffer = [0; PAYLOAD_BYTES_MAX];
    let mut after = 0;
    for seq in 1..=100_000u64 {
        log.append(&payload(seq, 40)).unwrap();
        if seq % 10 == 0 {
            while let Some((seq, _)) = log.read_after(after, &mut buffer).unwrap() {
                after = seq;
            }
            log.acknowledge(after).unwrap();
        }
    }
    println!("100,000 payloads appended, read and acknowledged in {:.2} s", started.elapsed().as_secs_f64());
    let reads = log.flash_mut().reads();
    assert!(reads < 300_000, "two reads a record and a few a block, not {reads}");
    let mut chip = log.into_flash();
    let mounted = FlashLog::open(&mut chip, 1).unwrap().head();
    let mount = chip.reads() - reads;
    assert!(mounted == 100_000 && mount < 2 * 256 + 2 * 64 + 2 * 100, "a mount took {mount} reads");
    let mut log = FlashLog::open(chip, 1).unwrap();
    let before = log.flash_mut().reads();
    log.acknowledge(90_000).unwrap();
    assert!(log.read_after(95_000, &mut buffer).unwrap().is_some());
    let seek = log.flash_mut().reads() - before;
    assert!(seek < 3 * 100, "a seek took {seek} reads");
}

#[test]
fn wear_is_spread_evenly_over_all_blocks() {
    let mut log = FlashLog::open(Chip::new(8), 1).unwrap();
    for seq in 1..=20_000 {
        log.append(&payload(seq, 20)).unwrap();
        if seq % 10 == 0 {
            log.acknowledge(seq).unwrap();
        }
    }
    let wear = log.into_flash().wear().to_vec();
    let (least, most) = (wear.iter().min().unwrap(), wear.iter().max().unwrap());
    assert!(*least > 100 && most - least <= 1, "{wear:?}");
}

#[test]
fn a_log_of_another_size_is_refused_and_left_alone() {
    let log = FlashLog::open(Chip::new(4), 1).unwrap();
    let mut chip = log.into_flash();
    let steps = chip.steps();
    let mut smaller = Chip::new(3);
    for at in 0..3 * BLOCK {
        let mut byte = [0];
        embedded_storage::nor_flash::ReadNorFlash::read(&mut chip, u32::try_from(at).unwrap(), &mut byte)
            .unwrap();
        smaller.rot(at, !byte[0]);
    }
    assert!(matches!(FlashLog::open(smaller, 2), Err(Error::Geometry { blocks: 3 })));
    assert!(matches!(FlashLog::open(Chip::new(2), 2), Err(Error::Geometry { blocks: 2 })));
    assert_eq!(chip.steps(), steps);
}

#[test]
fn room_is_never_more_than_what_fits() {
    let mut log = FlashLog::open(Chip::new(5), 1).unwrap();
    let mut acknowledged = 0;
    for seq in 1..=500u64 {
        let room = log.room();
        assert!(room < 28 || log.fits(20), "{room} bytes of room");
        if !log.fits(20) {
            assert_eq!(log.lost(), 0);
            acknowledged = seq - 1;
            log.acknowledge(acknowledged).unwrap();
            assert!(log.fits(20));
        }
        log.append(&payload(seq, 20)).unwrap();
    }
    assert!(acknowledged > 0);
    assert_eq!(log.lost(), 0);
}

#[test]
fn a_full_flash_takes_reservations_through_power_cuts_and_loses_nothing_for_them() {
    let mut log = FlashLog::open(SimFlash::<4, 4096>::new(4), 1).unwrap();
    while log.fits(40) {
        log.append(&payload(log.head() + 1, 40)).unwrap();
    }
    for life in 1..=16 {
        log.reserve(life * 1_024).unwrap();
        let mut chip = log.into_flash();
        chip.power_on();
        log = FlashLog::open(chip, 2).unwrap();
        assert_eq!((log.reserved(), log.lost()), (life * 1_024, 0), "life {life}");
    }
    let head = log.head();
    log.acknowledge(head).unwrap();
    assert_eq!((log.acknowledged(), log.lost(), log.reserved()), (head, 0, 16 * 1_024));
}

#[test]
fn a_full_flash_takes_notes_and_loses_nothing_for_them() {
    let mut log = FlashLog::open(SimFlash::<4, 4096>::new(4), 1).unwrap();
    while log.fits(40) {
        log.append(&payload(log.head() + 1, 40)).unwrap();
    }
    for value in 1..=10 {
        log.note(3, value).unwrap();
        let mut chip = log.into_flash();
        chip.power_on();
        log = FlashLog::open(chip, 2).unwrap();
        assert_eq!((log.noted(3), log.lost()), (Some(value), 0));
    }
}

#[test]
fn a_note_outlives_every_block_that_it_was_written_to() {
    let mut log = FlashLog::open(Chip::new(3), 1).unwrap();
    assert_eq!(noted(&log), [None; NOTES_MAX]);
    assert_eq!(log.note(4, 1), Err(Error::NoSlot));
    log.note(2, u64::MAX).unwrap();
    log.note(0, 7).unwrap();
    let steps = log.flash_mut().steps();
    log.note(0, 7).unwrap();
    assert_eq!(log.flash_mut().steps(), steps, "nothing is written for what is noted already");
    for seq in 1..=500 {
        log.append(&payload(seq, 20)).unwrap();
        log.acknowledge(seq).unwrap();
    }
    assert!(log.flash_mut().wear().iter().all(|erased| *erased > 10));
    let mut again = reopen(log);
    assert_eq!(noted(&again), [Some(7), None, Some(u64::MAX), None]);
    again.note(0, 0).unwrap();
    assert_eq!(reopen(again).noted(0), Some(0));
}

#[test]
fn a_reservation_never_goes_back() {
    let mut log = FlashLog::open(Chip::new(4), 1).unwrap();
    assert_eq!(log.reserved(), 0);
    log.reserve(500).unwrap();
    let steps = log.flash_mut().steps();
    log.reserve(400).unwrap();
    assert_eq!((log.reserved(), log.flash_mut().steps()), (500, steps), "nothing is written for it");
}
