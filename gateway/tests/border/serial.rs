//! A gateway whose radio is a co-processor on a serial line: found, heard, unplugged, plugged in again, and kept for itself. And the same with
//! a real one, if there is one.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use tidelog_lowpan::coap::Code;

use crate::dongle::{Coprocessor, HARDWARE};
use crate::process::Gateway;
use crate::sensor::Sensor;
use crate::{DEVICE, EPOCH, GATEWAY, acked};

/// The third that is tried.
const BAUD: u32 = 921_600;

fn gateway(data: &Path, radio: &str) -> Gateway {
    Gateway::start_at(data, radio, &GATEWAY.to_string(), &[])
}

fn url(device: &Path) -> String {
    format!("spinel:serial://{}", device.display())
}

fn is_ready(radio: &Value) -> bool {
    radio["coprocessor"]["ready"] == true
}

#[test]
fn a_co_processor_is_found_at_its_rate_and_heard_again_after_it_was_unplugged() {
    let data = tempfile::tempdir().unwrap();
    let device = data.path().join("radio");
    let mut sensor = Sensor::new(DEVICE, GATEWAY);
    let coprocessor = Coprocessor::start(sensor.air());
    let gateway = gateway(data.path(), &url(&device));
    let error = gateway.radio_once(|radio| radio["error"].is_string())["error"].take();
    assert!(error.as_str().unwrap().contains("is the radio plugged in?"), "{error}");

    let mut upto = 0;
    for life in 0..2 {
        let line = coprocessor.plug_in(&device, Some(BAUD));
        let radio = gateway.radio_once(is_ready);
        let found = &radio["coprocessor"];
        assert_eq!((&found["baud"], &found["eui"]), (&BAUD.into(), &HARDWARE.to_string().into()));
        assert!(radio["error"].is_null(), "{radio:#}");
        sensor.find_gateway();
        if life == 0 {
            assert_eq!(sensor.post("s", &sensor.registration()).0, Code::CREATED);
        }
        assert_eq!(acked(sensor.post("b", &sensor.batch(EPOCH, upto + 1, 3))), upto + 3);
        upto += 3;
        drop(line);
        gateway.radio_once(|radio| !is_ready(radio) && radio["error"].is_string());
    }
    assert_eq!(gateway.points("count").len() as u64, upto);
}

#[test]
fn where_no_co_processor_answers_the_rates_that_were_tried_are_named_and_tried_again() {
    let data = tempfile::tempdir().unwrap();
    let device = data.path().join("radio");
    let sensor = Sensor::new(DEVICE, GATEWAY);
    let coprocessor = Coprocessor::start(sensor.air());
    let deaf = coprocessor.plug_in(&device, Some(1));
    let gateway = gateway(data.path(), &url(&device));
    let status = gateway.radio_once(|radio| radio["error"].is_string());
    let error = status["error"].as_str().unwrap();
    assert!(error.contains("no radio co-processor answers at 115200, 460800, 921600, "), "{error}");
    assert!(error.contains("?baud=") && status["coprocessor"]["baud"].is_null(), "{status:#}");
    drop(deaf);
    let _line = coprocessor.plug_in(&device, None);
    gateway.radio_once(is_ready);
}

#[test]
fn a_device_that_another_gateway_has_is_refused_in_words_and_free_when_that_has_ended() {
    let data = tempfile::tempdir().unwrap();
    let device = data.path().join("radio");
    let sensor = Sensor::new(DEVICE, GATEWAY);
    let coprocessor = Coprocessor::start(sensor.air());
    let _line = coprocessor.plug_in(&device, None);
    let radio = format!("{}?baud=115200", url(&device));
    let first = gateway(&data.path().join("first"), &radio);
    first.radio_once(is_ready);
    let second = gateway(&data.path().join("second"), &radio);
    let refused = second.radio_once(|radio| radio["error"].is_string());
    let error = refused["error"].as_str().unwrap();
    assert!(error.contains("another program is using it"), "{error}");
    assert!(!is_ready(&refused));
    first.radio_once(is_ready);
    assert!(first.terminate().1);
    second.radio_once(is_ready);
}

/// A command whose standard input and output speak Spinel, behind a TCP socket for one host: the address. It ends when its host goes.
fn serve(command: &str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut child = Command::new("sh")
        .args(["-c", command])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::spawn(move || {
        let (mut host, _) = listener.accept().unwrap();
        let (mut to, mut from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut said = host.try_clone().unwrap();
        // Whichever end goes first, the other learns of it by the pipe or the socket that is closed then.
        std::thread::spawn(move || pass(&mut from, &mut said));
        pass(&mut host, &mut to);
        child.kill().unwrap();
        child.wait().unwrap();
    });
    address
}

fn pass(from: &mut impl Read, to: &mut impl Write) {
    let mut bytes = [0; 256];
    while let Ok(length) = from.read(&mut bytes) {
        if length == 0 || to.write_all(&bytes[..length]).and_then(|()| to.flush()).is_err() {
            return;
        }
    }
}

/// `TIDELOG_RCP` names a co-processor: a serial device, with its rate or without, `HOST:PORT`, or with `!` before it a command whose standard
/// input and output speak Spinel.
#[test]
fn a_real_co_processor_is_set_up_if_one_is_named() {
    let Some(named) = std::env::var("TIDELOG_RCP").ok().filter(|named| !named.is_empty()) else {
        eprintln!("skipped: TIDELOG_RCP names none");
        return;
    };
    let radio = if let Some(command) = named.strip_prefix('!') {
        format!("spinel:tcp://{}", serve(command))
    } else if named.starts_with('/') {
        format!("spinel:serial://{named}")
    } else {
        format!("spinel:tcp://{named}")
    };
    let data = tempfile::tempdir().unwrap();
    let gateway = gateway(data.path(), &radio);
    let status = gateway.radio_once(is_ready);
    println!("{named}: {:#}", status["coprocessor"]);
}
