//! Commands against gateways that hand them over twice, late, out of order and after they expired, while the power goes: what the board did
//! and what the gateways were told is held to what must be so of any run (invariant 12). A clock of its own, no sockets, no threads.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod world;

use std::collections::BTreeSet;

use proptest::prelude::*;
use tidelog_firmware::lowpan::coap::{Code, Kind, Message, Writer};
use tidelog_firmware::lowpan::time::{Duration, Instant};
use tidelog_firmware::lowpan::{FRAME_BUFFER_BYTES, Quality};
use tidelog_firmware::uplink::{Act, Answer, Command, CommandId, CommandState, SAMPLE_BYTES_MAX, Uplink};
use tidelog_firmware::{INTERVAL_MS_MIN, WhenFull};

use world::{Policy, TIME_MS, World, unix_ms};

/// A command whose deed no other of the same plan has.
fn command(number: u8, kind: u8, issued_ms: i64, author: u16, lives_ms: i64) -> Command {
    let act = match kind {
        0 => Act::Read,
        1 => Act::Every { interval_ms: INTERVAL_MS_MIN + 300 + u32::from(number) * 10 },
        2 => Act::Reboot,
        3 => Act::Identify { seconds: number },
        4 => Act::Unknown(77),
        _ => Act::Switch { output: number, on: number.is_multiple_of(2) },
    };
    let id = CommandId::new(TIME_MS + issued_ms, author).unwrap();
    Command { id, expires_ms: TIME_MS + issued_ms + lives_ms, act }
}

/// One of each act, issued when the sensor knows the time, and with days to live.
fn one_of_each() -> Vec<Command> {
    let day_ms = 24 * 3600 * 1000;
    (0..6).map(|number| command(number, number, 8_000 + i64::from(number), 1, day_ms)).collect()
}

#[test]
fn each_act_is_begun_done_and_told_once() {
    let mut world = World::new(one_of_each(), Policy::InOrder, 16, WhenFull::LoseOldest);
    world.run(Duration::from_secs(120), |_| false);
    world.calm_down();
    world.judge();
    let outcomes: Vec<_> = world.plan.iter().map(|command| world.held.outcome_of(command.id)).collect();
    use CommandState::{Done, Unsupported};
    assert_eq!(outcomes, [Done, Done, Done, Done, Unsupported, Done].map(Some));
    let (started, all) = (CommandState::Started, world.held.events.values());
    assert_eq!(all.filter(|event| event.state == started).count(), 6);
    assert_eq!((world.reboots, world.lives), (1, 2));
    // The interval is there again after the restart, though the board's own is another.
    let interval = Act::Every { interval_ms: INTERVAL_MS_MIN + 310 };
    assert_eq!(world.deeds.borrow().iter().filter(|deed| deed.act == interval).count(), 2);
}

#[test]
fn with_the_power_lost_at_every_even_step_of_the_flash_each_command_ends_once() {
    assert!(cut_everywhere((0..).step_by(2), None) > 150);
}

#[test]
fn with_the_power_lost_at_every_odd_step_of_the_flash_each_command_ends_once() {
    assert!(cut_everywhere((1..).step_by(2), None) > 150);
}

#[test]
fn with_the_power_lost_again_soon_after_each_command_ends_once() {
    for (first, again) in [0, 1, 6, 13, 21].into_iter().enumerate() {
        assert!(cut_everywhere((first as u64..).step_by(11), Some(again)) > 25);
    }
}

/// Cuts at these steps of the flash until a run comes to its end before; how many there were.
fn cut_everywhere(steps: impl Iterator<Item = u64>, again: Option<u64>) -> usize {
    steps.take_while(|step| cut_at(*step, again)).count()
}

/// A run in which the power goes in this step of the flash, and `again` so many after that; whether it went.
fn cut_at(cut: u64, again: Option<u64>) -> bool {
    let mut world = World::new(one_of_each(), Policy::InOrder, 4, WhenFull::LoseOldest);
    world.board.flash_mut().cut_after(cut, cut);
    let ended = |world: &World| world.plan.iter().all(|command| world.held.outcome_of(command.id).is_some());
    world.run(Duration::from_secs(90), |world| world.cuts > 0 || ended(world));
    if let Some(again) = again.filter(|_| world.cuts > 0) {
        world.board.flash_mut().cut_after(again, cut);
    }
    world.run(Duration::from_secs(90), ended);
    assert!(ended(&world), "cut {cut}, again {again:?}: {:?}", world.held.events);
    world.board.flash_mut().power_on();
    world.judge();
    world.cuts > 0
}

#[test]
fn a_flash_without_history_begins_nothing_that_was_issued_before_it_knew_the_time() {
    // All of them are issued before the first answer, and handed over with each.
    let plan: Vec<_> = (0..6).map(|number| command(number, 5, 1 + i64::from(number), 1, 3_600_000)).collect();
    let mut world = World::new(plan, Policy::Any, 16, WhenFull::LoseOldest);
    world.gateways[0].alive = false;
    world.gateways[1].alive = false;
    world.run(Duration::from_secs(10), |_| false);
    world.gateways[1].alive = true;
    world.run(Duration::from_secs(200), |_| false);
    assert!(world.held.readings.len() > 50 && world.held.events.is_empty(), "{:?}", world.held.events);
    assert!(world.deeds.borrow().is_empty());
    // A flash with history begins the last one that it did not.
    let later = command(9, 5, 211_000, 1, 3_600_000);
    world.plan.push(later);
    world.run(Duration::from_secs(200), |world| world.held.outcome_of(later.id).is_some());
    assert_eq!(world.held.outcome_of(later.id), Some(CommandState::Done));
    // And on the next flash it is history.
    world.wipe(16);
    let held = world.held.events.len();
    world.run(Duration::from_secs(100), |_| false);
    assert_eq!((world.held.events.len(), world.deeds.borrow().len()), (held, 1));
}

#[test]
fn on_a_full_flash_that_must_lose_nothing_a_command_waits_for_room() {
    let mut world =
        World::new(vec![command(0, 0, 400_000, 1, 3_600_000)], Policy::InOrder, 6, WhenFull::Wait);
    world.run(Duration::from_secs(20), |_| false);
    for gateway in &mut world.gateways {
        gateway.alive = false;
    }
    world.run(Duration::from_secs(400), |_| false);
    assert!(!world.board.log().fits(SAMPLE_BYTES_MAX), "it is full");
    for gateway in &mut world.gateways {
        gateway.alive = true;
    }
    world.run(Duration::from_secs(300), |world| world.held.outcome_of(world.plan[0].id).is_some());
    assert_eq!((world.board.counters().commands, world.board.log().lost()), (1, 0));
    assert!(world.in_vain > 1, "it was handed over {} times before it began", world.in_vain);
    world.calm_down();
    world.judge();
}

#[test]
fn a_board_that_senses_nothing_asks_for_the_time_to_tell_that_it_is_back() {
    let mut world =
        World::new(vec![command(0, 2, 8_000, 1, 3_600_000)], Policy::InOrder, 16, WhenFull::LoseOldest);
    world.tires = true;
    world.power_cycle();
    world.run(Duration::from_secs(120), |world| world.held.outcome_of(world.plan[0].id).is_some());
    let told = world.held.outcome_of(world.plan[0].id);
    assert_eq!((world.reboots, told), (1, Some(CommandState::Done)));
}

#[test]
fn an_answer_that_was_long_on_its_way_is_taken_to_be_old() {
    // The answer is made in time, and gets through when the command has expired.
    let mut world =
        World::new(vec![command(0, 5, 8_000, 1, 30_000)], Policy::InOrder, 16, WhenFull::LoseOldest);
    world.run(Duration::from_millis(7_500), |_| false);
    let stale = Answer {
        command: Some(world.plan[0]),
        ..Answer::new(world.board.log().head() + 1, unix_ms(Instant::ZERO) + 8_000)
    };
    let mut body = [0; Answer::BYTES_MAX];
    let length = stale.encode(&mut body).unwrap();
    world.policy = Policy::Nothing;
    world.gateways[1].alive = false;
    // Asked, and silence: the gateway's answer is given to the last repeat, as a gateway gives the answer it kept.
    let mut frame = [0; FRAME_BUFFER_BYTES];
    let mut datagram = [0; 1232];
    let (mut first, mut repeats) = (None, 0);
    while repeats < 5 {
        world.now += Duration::from_millis(50);
        *world.clock.borrow_mut() = world.now;
        world.board.poll(world.now).unwrap();
        while let Some(length) = world.board.poll_transmit(world.now, &mut frame) {
            let quality = Quality { rssi_dbm: -50, lqi: 255 };
            world.gateways[0].endpoint.handle_frame(world.now, &frame[..length], quality);
        }
        world.gateways[0].endpoint.handle_timeout(world.now);
        while let Some((peer, got)) = world.gateways[0].endpoint.receive(&mut datagram) {
            let request = Message::parse(&datagram[..got]).unwrap();
            repeats = if first == Some(request.id()) { repeats + 1 } else { 1 };
            first = Some(request.id());
            if repeats == 5 {
                let mut out = [0; 128];
                let writer = Writer::new(
                    &mut out,
                    Kind::Acknowledgement,
                    Code::CHANGED,
                    request.id(),
                    request.token(),
                )
                .unwrap();
                let uplink = Uplink::parse(request.payload()).unwrap();
                let upto = Answer { acked_seq: uplink.head().first_seq, ..stale };
                let again = upto.encode(&mut body).unwrap_or(length);
                let sent = writer.payload(&body[..again]).unwrap();
                world.gateways[0].endpoint.send(world.now, peer, &out[..sent]).unwrap();
            }
        }
        while let Some(length) = world.gateways[0].endpoint.poll_transmit(world.now, &mut frame) {
            let quality = Quality { rssi_dbm: -50, lqi: 255 };
            world.board.handle_frame(world.now, &frame[..length], quality);
            world.board.poll(world.now).unwrap();
        }
    }
    assert!(unix_ms(world.now) >= world.plan[0].expires_ms, "{} of a repeat", world.now);
    assert!(world.deeds.borrow().is_empty(), "{:?}", world.deeds.borrow());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn whatever_is_handed_over_lost_cut_or_wiped_each_command_begins_at_most_once_and_in_time(
        seed: u64, loss in 0u8..70, blocks in 6usize..14, wait: bool,
        plan in prop::collection::btree_map((0i64..400_000, 0u16..3), (0u8..8, 1i64..120_000), 1..40),
        troubles in prop::collection::vec((1u64..60, 0u8..8, 0u64..90), 0..14),
    ) {
        let plan = (0u8..).zip(plan)
            .map(|(number, ((issued_ms, author), (kind, lives_ms)))| command(number, kind, issued_ms, author, lives_ms))
            .collect();
        let when_full = if wait { WhenFull::Wait } else { WhenFull::LoseOldest };
        let mut world = World::new(plan, Policy::Any, blocks, when_full);
        (world.loss, world.noise) = (loss, seed);
        for (seconds, trouble, steps) in troubles {
            world.run(Duration::from_secs(seconds), |_| false);
            let at = usize::from(steps % 2 == 0);
            match trouble {
                0..=2 => world.board.flash_mut().cut_after(steps, seed),
                3 => world.power_cycle(),
                4 => world.gateways[at].alive = false,
                5 => world.gateways[at].alive = true,
                // A gateway that forgets schemas, as one that was restarted does.
                6 => world.gateways[at].schemas.clear(),
                _ => world.wipe(blocks),
            }
        }
        world.calm_down();
        world.judge();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_command_of_two_authors_that_is_handed_over_in_order_is_begun(
        seed: u64, loss in 0u8..40, authors in prop::collection::vec(0u16..2, 1..12),
    ) {
        let hour_ms = 3_600_000;
        let plan: Vec<_> = (0u8..).zip(authors)
            .map(|(number, author)| command(number, number % 7, 60_000 + i64::from(number / 2), author + u16::from(number % 2) * 8, hour_ms))
            .collect();
        let mut world = World::new(plan, Policy::InOrder, 12, WhenFull::Wait);
        (world.loss, world.noise) = (loss, seed);
        world.run(Duration::from_secs(900), |world| {
            world.plan.iter().all(|command| world.held.outcome_of(command.id).is_some())
        });
        let told: BTreeSet<_> = world.held.events.values().map(|event| event.id).collect();
        prop_assert_eq!(told.len(), world.plan.len());
        world.calm_down();
        world.judge();
    }
}
