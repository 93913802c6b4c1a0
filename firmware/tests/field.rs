//! The application against gateways of a few lines, under a clock of its own: no sockets, no threads, nothing waits.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod world;

use proptest::prelude::*;
use tidelog_firmware::flashlog::FlashLog;
use tidelog_firmware::lowpan::time::Duration;
use tidelog_firmware::lowpan::{FRAME_BUFFER_BYTES, Peer, Quality, SINGLE_FRAME_PAYLOAD_BYTES_MAX};
use tidelog_firmware::{DeviceId, WhenFull};

use world::{GATEWAYS, Mood, SENSOR, Setup, TestApp, World, app};

#[test]
fn a_gateway_that_does_not_know_the_schema_is_told_it_once_and_then_gets_everything() {
    let setup = Setup::default();
    let mut world = World::new(&setup);
    world.run(Duration::from_secs(300), |world| world.delivered(100));
    world.check(100);
    let schemas = world.gateways[0].asked.iter().filter(|(_, path)| path == "s").count();
    assert_eq!((schemas, world.app.log().lost(), world.app.counters().moves), (1, 0, 0));
    assert!(world.gateways[1].asked.is_empty());
}

#[test]
fn the_whole_application_fits_a_sensors_memory() {
    let bytes = size_of::<TestApp>();
    println!("{bytes} bytes of state, network stack and buffers included");
    assert!(bytes <= 8 * 1024, "{bytes} bytes");
}

#[test]
fn batches_fit_one_frame_unless_told_otherwise() {
    let setup = Setup { pause: Duration::from_millis(10), ..Setup::default() };
    let mut world = World::new(&setup);
    world.run(Duration::from_secs(300), |world| world.delivered(100));
    world.check(100);
    assert!(world.gateways[0].payload_bytes_most <= SINGLE_FRAME_PAYLOAD_BYTES_MAX);
    let one_frame = world.app.counters().batches;
    let mut world = World::new(&Setup { batch_bytes: 400, ..setup });
    world.run(Duration::from_secs(300), |world| world.delivered(100));
    world.check(100);
    assert!(world.app.counters().batches * 3 < one_frame, "{one_frame} batches in one frame each");
}

#[test]
fn a_sensor_moves_when_its_gateway_falls_silent_and_back_when_the_other_does() {
    let mut world = World::new(&Setup { samples: 1000, ..Setup::default() });
    world.run(Duration::from_secs(100), |_| false);
    assert_eq!(world.app.gateway(), GATEWAYS[0]);
    for (dead, alive) in [(0, 1), (1, 0)] {
        world.gateways[dead].mood = Mood::Dead;
        world.gateways[alive].mood = Mood::Serves;
        let left = world.now;
        world.run(Duration::from_secs(200), |world| world.app.gateway() == GATEWAYS[alive]);
        assert!(world.now - left < Duration::from_secs(120), "it took {}", world.now - left);
    }
    world.run(Duration::from_secs(2000), |world| world.delivered(1000));
    world.check(1000);
    assert_eq!(world.app.counters().moves, 2);
}

#[test]
fn a_sensor_goes_where_its_gateway_advises_and_stays_there_for_a_while_whatever_it_is_advised() {
    let mut world = World::new(&Setup { samples: 3000, ..Setup::default() });
    world.gateways[0].advice = Some(GATEWAYS[0]);
    world.run(Duration::from_secs(100), |_| false);
    assert_eq!(world.app.counters().moves, 0, "it is there already");
    for gateway in 0..2 {
        world.gateways[gateway].advice = Some(GATEWAYS[1 - gateway]);
    }
    world.run(Duration::from_secs(60), |world| world.app.counters().moves > 0);
    assert_eq!(world.app.gateway(), GATEWAYS[1]);
    let moved = world.now;
    world.run(Duration::from_secs(1000), |world| world.app.counters().moves > 1);
    let stayed = world.now - moved;
    assert!(stayed >= Duration::from_secs(600) && stayed < Duration::from_secs(700), "{stayed}");
    world.run(Duration::from_secs(4000), |world| world.delivered(3000));
    world.check(3000);
    assert_eq!(world.app.counters().silences, 0);
}

#[test]
fn a_sensor_that_is_advised_to_go_where_nobody_hears_it_comes_back_and_loses_nothing() {
    let mut world = World::new(&Setup { samples: 1000, ..Setup::default() });
    world.gateways[0].advice = Some(DeviceId([2, 0, 0, 0, 0, 0, 0, 0xc]));
    world.run(Duration::from_secs(600), |_| false);
    assert_eq!((world.app.gateway(), world.app.counters().moves), (GATEWAYS[0], 2));
    world.run(Duration::from_secs(2000), |world| world.delivered(1000));
    world.check(1000);
    assert!(world.gateways[1].asked.is_empty(), "it returns to where it was heard");
}

#[test]
fn a_gateway_that_asks_for_a_pause_gets_it_and_a_long_one_means_moving() {
    for (seconds, moves) in [(5, 0), (60, 1)] {
        let mut world = World::new(&Setup::default());
        world.gateways[0].mood = Mood::Unavailable(seconds);
        world.run(Duration::from_secs(60), |world| world.delivered(3));
        assert_eq!(world.app.counters().moves, moves);
        let times: Vec<_> = world.gateways[0].asked.iter().map(|(at, _)| *at).collect();
        let rest = Duration::from_secs(u64::from(seconds));
        assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= rest), "{times:?}");
        world.gateways[0].mood = Mood::Serves;
        world.run(Duration::from_secs(400), |world| world.delivered(100));
        world.check(100);
    }
}

#[test]
fn an_answer_that_can_not_be_true_acknowledges_nothing() {
    for mood in [Mood::Boasts, Mood::Babbles, Mood::Forgets] {
        let mut world = World::new(&Setup::default());
        world.gateways[0].mood = mood;
        world.run(Duration::from_secs(100), |_| false);
        assert_eq!(world.app.log().acknowledged(), 0);
        assert!(world.app.counters().refused >= 3, "{:?}", world.app.counters());
        assert!(world.gateways[0].asked.len() < 30, "it is not asked again at once");
        world.gateways[0].mood = Mood::Serves;
        world.run(Duration::from_secs(400), |world| world.delivered(100));
        world.check(100);
    }
}

#[test]
fn a_full_flash_loses_the_oldest_and_counts_them_or_waits_if_told_so() {
    for (when_full, loses) in [(WhenFull::LoseOldest, true), (WhenFull::Wait, false)] {
        let setup = Setup { samples: 300, blocks: 6, when_full, ..Setup::default() };
        let mut world = World::new(&setup);
        world.gateways[0].mood = Mood::Dead;
        world.gateways[1].mood = Mood::Dead;
        world.run(Duration::from_secs(1000), |_| false);
        assert_eq!((world.app.log().lost() > 0, world.app.log().head() == 300), (loses, loses));
        world.gateways[1].mood = Mood::Serves;
        world.run(Duration::from_secs(2000), |world| world.delivered(300));
        world.check(300);
        assert_eq!(world.app.log().lost() > 0, loses);
    }
}

#[test]
fn a_rotten_sample_is_counted_as_lost_and_the_others_keep_their_numbers() {
    let mut lost = 0;
    for at in (0..2048).step_by(37) {
        let setup = Setup { samples: 60, ..Setup::default() };
        let mut world = World::new(&setup);
        for gateway in &mut world.gateways {
            gateway.mood = Mood::Dead;
        }
        world.run(Duration::from_secs(70), |world| world.app.log().head() == 60);
        let mut flash = world.app.flash_mut().clone();
        flash.rot(at, 0x10);
        let head = FlashLog::open(flash.clone(), 7).unwrap().head();
        world.app = app(&setup, flash, world.now, 2).unwrap();
        for gateway in &mut world.gateways {
            gateway.mood = Mood::Serves;
        }
        world.run(Duration::from_secs(500), |world| world.delivered(60));
        // Rot in the very last record, and only there, is not told from a torn one: it is sensed again.
        assert!(head == 60 || world.app.log().lost() == 0, "rot at {at}");
        world.check(60);
        lost += world.app.log().lost();
    }
    assert!(lost > 10, "{lost} lost");
}

#[test]
fn a_sensor_that_needs_the_time_asks_for_it_before_its_first_sample() {
    let mut world = World::new(&Setup { needs_time: true, ..Setup::default() });
    world.run(Duration::from_secs(300), |world| world.delivered(100));
    world.check(100);
    assert_eq!(world.gateways[0].held.len(), 100);
    assert_eq!(world.app.sampler_mut().told, 1);
}

/// Of a seed, 1 unless `TIDELOG_SEED` says another.
#[test]
fn a_thousand_power_cuts_at_random_moments_take_nothing_that_reached_the_flash() {
    const CUTS: u32 = 1000;
    let seed: u64 = std::env::var("TIDELOG_SEED").map_or(1, |seed| seed.parse().unwrap());
    println!("TIDELOG_SEED={seed}");
    let samples = 5000;
    let setup = Setup { samples, when_full: WhenFull::Wait, ..Setup::default() };
    let mut world = World::new(&setup);
    (world.loss, world.noise) = (13, seed);
    let mut noise = seed;
    let mut dice = |most: u64| {
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (noise >> 33) % most
    };
    let (mut in_a_write, mut in_the_start) = (0, 0);
    for _ in 0..CUTS {
        world.run(Duration::from_millis(dice(4000)), |_| false);
        // Somewhere in its next writes and erases, if it comes to so many within seconds.
        world.app.flash_mut().cut_after(dice(40), dice(u64::MAX));
        let still_on = world.run(Duration::from_secs(3), |_| false);
        in_a_write += u32::from(!still_on);
        let (again, torn) = ((dice(4) == 0).then(|| dice(6)), dice(u64::MAX));
        in_the_start += u32::from(again.is_some());
        world.power_cycle(&setup, |flash| match again {
            Some(steps) => flash.cut_after(steps, torn),
            None => flash.power_on(),
        });
        world.app.flash_mut().power_on();
    }
    let counted = world.app.log().head();
    println!(
        "{CUTS} cuts, {in_a_write} of them in a write, {in_the_start} followed by one at the start; {counted} samples"
    );
    assert!(in_a_write > CUTS / 3 && counted > 500);
    world.run(Duration::from_secs(20_000), |world| world.delivered(samples));
    assert_eq!(world.app.log().lost(), 0);
    world.check(samples);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn frames_of_noise_and_forged_answers_change_nothing(
        noise in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..126), 1..40),
        forged in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 1..40),
    ) {
        let mut world = World::new(&Setup::default());
        world.gateways[0].mood = Mood::Dead;
        world.run(Duration::from_secs(5), |_| false);
        let mut frame = [0; FRAME_BUFFER_BYTES];
        for (noise, forged) in noise.iter().zip(&forged) {
            world.app.handle_frame(world.now, noise, Quality { rssi_dbm: -90, lqi: 0 });
            // From the gateway itself, so that it reaches the exchange.
            let peer = Peer { device: SENSOR, port: 5683 };
            world.gateways[0].endpoint.send(world.now, peer, forged).unwrap_or_default();
            while let Some(length) = world.gateways[0].endpoint.poll_transmit(world.now, &mut frame) {
                world.app.handle_frame(world.now, &frame[..length], Quality { rssi_dbm: -50, lqi: 255 });
            }
            world.app.poll(world.now).unwrap();
            world.now += Duration::from_millis(200);
            world.gateways[0].endpoint.handle_timeout(world.now);
        }
        prop_assert_eq!(world.app.log().acknowledged(), 0);
        world.gateways[0].mood = Mood::Serves;
        world.run(Duration::from_secs(400), |world| world.delivered(100));
        world.check(100);
    }

    #[test]
    fn whatever_is_lost_cut_or_dead_each_sample_arrives_as_sensed(
        seed: u64, loss in 0u8..80, blocks in 6usize..16,
        events in prop::collection::vec((1u64..120, 0u8..5, 0u64..60), 0..12),
    ) {
        let setup = Setup { samples: 150, pause: Duration::from_millis(700), blocks, when_full: WhenFull::Wait, ..Setup::default() };
        let mut world = World::new(&setup);
        (world.loss, world.noise) = (loss, seed);
        for (seconds, event, steps) in events {
            let alive = world.run(Duration::from_secs(seconds), |_| false);
            match event {
                // The power goes in the middle of a write.
                0 if alive => {
                    world.app.flash_mut().cut_after(steps, seed);
                    let still_on = world.run(Duration::from_secs(30), |_| false);
                    world.power_cycle(&setup, |flash| if still_on { flash.power_on() } else { flash.cut_after(steps % 3, seed) });
                    world.app.flash_mut().power_on();
                }
                1 => world.gateways[usize::from(steps % 2 == 0)].mood = Mood::Dead,
                2 => world.gateways[usize::from(steps % 2 == 0)].mood = Mood::Serves,
                // A gateway that forgets schemas, as one that was restarted does.
                3 => world.gateways[usize::from(steps % 2 == 0)].schema = None,
                _ => world.power_cycle(&setup, |_| {}),
            }
        }
        for gateway in &mut world.gateways {
            gateway.mood = Mood::Serves;
        }
        world.run(Duration::from_secs(5000), |world| world.delivered(150));
        prop_assert_eq!(world.app.log().lost(), 0);
        world.check(150);
    }
}
