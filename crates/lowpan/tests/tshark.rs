//! The air as Wireshark reads it: frames of two stations with a network key, written as a capture, are decrypted by
//! `tshark` (Debian package of that name) down to CoAP, with good checksums. Without the key nothing of it is seen.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::Command;

use tidelog_lowpan::coap::{Code, Kind, Writer};
use tidelog_lowpan::time::{Duration, Instant};
use tidelog_lowpan::{COAP_PORT, Endpoint, EndpointConfig, KEY_INDEX, NetworkKey, Peer, Quality, pcap};
use tidelog_record::DeviceId;

const HEX: &str = "000102030405060708090a0b0c0d0e0f";
const EUIS: [DeviceId; 2] =
    [DeviceId([2, 0x12, 0x4b, 0, 0, 0, 0, 1]), DeviceId([2, 0x12, 0x4b, 0, 0, 0, 0, 2])];
const QUALITY: Quality = Quality { rssi_dbm: -60, lqi: 200 };

type Station = Endpoint<1280, 4, 4, 4>;

fn station(n: usize, key: Option<NetworkKey>) -> Station {
    let config = EndpointConfig { key, ..EndpointConfig::new(EUIS[n]) };
    let mut station = Station::new(config, n as u64).unwrap();
    station.resume_counters(0x0102_0304);
    if let Some(upto) = station.counter_reserve_due() {
        station.counters_reserved(upto);
    }
    station
}

/// A post of so many bytes and its answer, for each length: the capture.
fn capture(key: Option<NetworkKey>, lengths: &[usize]) -> Vec<u8> {
    let mut stations = [station(0, key), station(1, key)];
    let mut file = pcap::FILE_HEADER.to_vec();
    let mut now = Instant::from_millis(1);
    for (id, length) in (1u16..).zip(lengths) {
        let mut message = [0; 1300];
        let post = Writer::new(&mut message, Kind::Confirmable, Code::POST, id, b"tk").unwrap();
        let written = post.path(&["b"]).unwrap().payload(&vec![0x5a; *length]).unwrap();
        stations[0].send(now, Peer { device: EUIS[1], port: COAP_PORT }, &message[..written]).unwrap();
        for _ in 0..100 {
            now += Duration::from_millis(3);
            for n in 0..2 {
                let mut frame = [0; 127];
                while let Some(length) = stations[n].poll_transmit(now, &mut frame) {
                    let mut record = [0; pcap::RECORD_BYTES_MAX];
                    let micros = u64::try_from(now.total_micros()).unwrap();
                    let written = pcap::record(micros, 26, 200, &frame[..length], &mut record).unwrap();
                    file.extend_from_slice(&record[..written]);
                    stations[1 - n].handle_frame(now, &frame[..length], QUALITY);
                }
            }
        }
        assert!(stations[1].receive(&mut [0; 1280]).is_some());
    }
    file
}

/// One line for each frame: the fields, parted by `|`. `None` where tshark is not installed.
fn tshark(file: &Path, key: Option<&str>, fields: &[&str]) -> Option<Vec<String>> {
    let mut command = Command::new("tshark");
    command.arg("-r").arg(file).args(["-o", "udp.check_checksum:TRUE", "-T", "fields", "-E", "separator=|"]);
    if let Some(key) = key {
        command.arg("-o").arg(format!("uat:ieee802154_keys:\"{key}\",\"{KEY_INDEX}\",\"No hash\""));
    }
    for field in fields {
        command.args(["-e", field]);
    }
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => {
            println!("skipped: tshark cannot be run ({error}); it is in Debian's package tshark");
            return None;
        }
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect())
}

#[test]
fn tshark_decrypts_a_capture_down_to_coap_with_the_key_and_sees_nothing_without() {
    let lengths = [0, 40, 60, 300, 1_200];
    let folder = std::env::temp_dir().join(format!("tidelog-tshark-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    for (name, key) in [("open", None), ("secured", Some(HEX))] {
        let file = folder.join(format!("{name}.pcap"));
        std::fs::write(&file, capture(key.map(|key| key.parse().unwrap()), &lengths)).unwrap();
        let fields = [
            "coap.mid",
            "coap.opt.uri_path_recon",
            "coap.payload_length",
            "udp.checksum.status",
            "_ws.malformed",
            "wpan-tap.ch_num",
        ];
        let Some(lines) = tshark(&file, key, &fields) else { break };
        let messages: Vec<&String> = lines.iter().filter(|line| !line.starts_with('|')).collect();
        let expected: Vec<String> = (1..)
            .zip(lengths)
            .map(|(id, length)| {
                let length = if length == 0 { String::new() } else { length.to_string() };
                format!("{id}|/b|{length}|1||26")
            })
            .collect();
        assert!(messages.iter().copied().eq(&expected), "{name}: {lines:#?}");
        let bad = tshark(&file, key, &["wpan.decrypt_error", "_ws.malformed", "_ws.expert.message"]).unwrap();
        assert!(
            bad.iter()
                .map(|line| line.to_lowercase())
                .all(|line| !line.contains("error") && !line.contains("malformed")),
            "{name}: {bad:#?}"
        );
        if key.is_some() {
            let wrong = HEX.replace('f', "e");
            for key in [None, Some(wrong.as_str())] {
                let blind = tshark(&file, key, &["udp.port", "coap.mid"]).unwrap();
                assert!(blind.iter().all(|line| line == "|"), "{blind:#?}");
            }
        }
    }
    std::fs::remove_dir_all(&folder).unwrap();
}
