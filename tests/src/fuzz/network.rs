//! What peers and clients send: replication, line protocol, points, MQTT payloads, selectors, tokens.

use std::time::Duration;

use tidelog_node::mqtt::payload::{Encoding, Message as MqttMessage};
use tidelog_node::senml;
use tidelog_node::untrusted;
use tidelog_query::{Selectors, parse_instant};
use tidelog_record::{Body, ChainHash, Lsn, NodeId, Run, StreamId, Value};
use tidelog_replication::{
    Above, Bodies, BodyBytes, Decoder, DiskReply, DiskRequest, Encoder, FRAME_BYTES_MAX, FrameHeader, Head,
    Held, Hello, Message, Options, PROTOCOL_VERSION, PROTOCOL_VERSION_MIN, Peer, Pull, RECORD_COST_BYTES,
    RECORDS_PER_MESSAGE_MAX, Range, Records, Replica, SessionId, Sites,
};

const SESSION: SessionId = SessionId(1);
const PEER: NodeId = NodeId([9; 16]);

fn stream() -> StreamId {
    StreamId { site: "s".parse().expect("a name"), node: PEER, run: Run(1) }
}

/// What a peer says in the beginning.
fn hello() -> Message {
    Message::Hello(Hello {
        version_min: PROTOCOL_VERSION_MIN,
        version_max: PROTOCOL_VERSION,
        node: PEER,
        credit_bytes: 1 << 20,
        instance: 1,
    })
}

pub(super) fn replication_seeds() -> Vec<Vec<u8>> {
    let stream = stream();
    let body = vec![1, 2, 3];
    let chain = ChainHash::GENESIS.after(&stream.key(), Lsn(1), &body);
    let head = Head { lsn: Lsn(1), chain };
    let messages = [
        Message::Hold(vec![Held { stream: stream.clone(), head }]),
        Message::Above(vec![Above {
            stream: stream.clone(),
            ranges: vec![Range { first: Lsn(3), last: Lsn(4) }],
        }]),
        Message::Records(Records {
            stream: stream.clone(),
            first: Lsn(1),
            chain,
            bodies: Bodies(vec![BodyBytes(body)]),
        }),
        Message::Pull(Pull { stream: stream.clone(), after: Lsn::ZERO, chain: None, until: Lsn(1) }),
        Message::Credit(100),
        Message::Forked { stream: stream.clone(), lsn: Lsn(1), chain },
        Message::Stop(stream.clone()),
        Message::Keepalive,
    ];
    let points = super::record::batch().encode().unwrap();
    let bodies = [points.clone(), vec![1, 2, 3], points.clone(), points].map(BodyBytes);
    let packed = Records { stream, first: Lsn(1), chain, bodies: Bodies(bodies.into()) };
    let messages = messages.into_iter().chain([Message::Records(packed)]);
    let messages: Vec<Message> = messages.collect();
    let mut seeds = Vec::new();
    for version in [None, Some(PROTOCOL_VERSION_MIN), Some(PROTOCOL_VERSION)] {
        let (mut encoder, mut all) = (Encoder::default(), Vec::new());
        for message in &messages {
            let start = all.len();
            match version {
                Some(version) => encoder.encode(version, message, &mut all).unwrap(),
                None => tidelog_replication::encode(message, &mut all).unwrap(),
            }
            seeds.push(all.get(start..).unwrap().to_vec());
        }
        seeds.push(all);
    }
    seeds
}

/// Both ends of a connection: what was read can be written packed, and is read again.
fn again(encoder: &mut Encoder, decoder: &mut Decoder, message: &Message) {
    if let Message::Records(records) = message {
        let most = FRAME_BYTES_MAX + RECORDS_PER_MESSAGE_MAX * RECORD_COST_BYTES;
        assert!(records.bodies.cost_bytes() <= most, "few bytes come to no more than a message may bring");
    }
    let mut bytes = Vec::new();
    encoder.encode(PROTOCOL_VERSION, message, &mut bytes).expect("what was read can be written");
    decoder.push(&bytes);
    assert_eq!(decoder.next_message().as_ref().map(Option::as_ref), Ok(Some(message)));
}

/// Frames as they come in pieces, their checksums put right, and a machine that hears them after a good hello: it may end the
/// session, and its own records stay as they are.
pub(super) fn replication(input: &[u8]) {
    let mut bytes = input.to_vec();
    let mut at = 0;
    while let Some((head, rest)) =
        bytes.get_mut(at..).and_then(|rest| rest.split_first_chunk_mut::<{ FrameHeader::BYTES }>())
    {
        let [l0, l1, l2, l3, ..] = *head;
        let length = usize::try_from(u32::from_le_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX);
        let Some(payload) = rest.get(..length) else { break };
        let [c0, c1, c2, c3] = crc32fast::hash(payload).to_le_bytes();
        at += FrameHeader::BYTES + payload.len();
        *head = [l0, l1, l2, l3, c0, c1, c2, c3];
    }
    let own = StreamId { node: NodeId([5; 16]), ..stream() };
    let told = (own.clone(), Head { lsn: Lsn(3), chain: ChainHash([3; 16]) });
    let mut replica = Replica::new(Options::new(own.node, own.run, Sites::All, 1), vec![told.clone()]);
    let mut now = Duration::ZERO;
    replica.connected(now, SESSION, Peer { node: PEER, sites: Sites::All, dialled: true });
    let mut open = replica.handle_message(now, SESSION, hello()).is_ok();
    let mut decoder = Decoder::default();
    let (mut encoder, mut other) = (Encoder::default(), Decoder::default());
    for piece in bytes.chunks(7) {
        decoder.push(piece);
        while let Ok(Some(message)) = decoder.next_message() {
            again(&mut encoder, &mut other, &message);
            open = open && replica.handle_message(now, SESSION, message).is_ok();
            now += Duration::from_millis(10);
            replica.handle_timeout(now);
            while let Some((session, _)) = replica.poll_transmit() {
                replica.transmitted(now, session);
            }
            while let Some(request) = replica.poll_disk() {
                if let DiskRequest::Read { ticket, .. } = request {
                    replica.handle_disk(now, DiskReply::Read { ticket, outcome: Ok(Vec::new()) });
                }
            }
            while replica.poll_event().is_some() {}
        }
    }
    assert_eq!(replica.vector().find(|(id, _)| **id == own).map(|(_, head)| head), Some(told.1));
}

pub(super) fn line_seeds() -> Vec<Vec<u8>> {
    [
        "weather,room=cellar temperature=21.5,open=true,count=3i,note=\"a \\\"b\\\"\" 1795248000000000000\n",
        "a\\ b,c\\,d=e\\=f x=1\r\n# a comment\n\ny z=-1e-9,w=18446744073709551615u",
        "m,t=a v=1 1\nm,t=b v=2 2\nm,t=a v=NaN 3\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into()
}

fn all_are_points(records: &[Vec<u8>]) {
    for record in records {
        assert!(matches!(Body::decode(record), Ok(Body::Points(_))), "what was taken in can be read");
    }
}

/// Whatever lines say, what is kept of them is points, and names that are known already change nothing in them.
pub(super) fn line(bytes: &[u8]) {
    let [new, known] = untrusted::records_of_lines(bytes);
    all_are_points(&new);
    let decoded = |records: &[Vec<u8>]| -> Vec<Body> {
        records.iter().map(|r| Body::decode(r).expect("points")).collect()
    };
    assert_eq!(decoded(&new), decoded(&known));
}

pub(super) fn json_seeds() -> Vec<Vec<u8>> {
    [
        r#"{"points":[{"metric":"t","labels":{"room":"lab"},"timestamp_ms":1795248000000,"value":21.5}]}"#,
        r#"{"points":[{"metric":"t","time":"2026-11-20T12:00:00.5Z","value":"NaN","type":"f64"},{"metric":"t","timestamp_ns":-1,"value":true}]}"#,
        r#"{"deviceinfo":{"deviceid":"d1","fw_ver":"1.2","batt_lvl":87},"tsdata":[{"timestamp":1795248000000,"t":21.5,"open":true},{"timestamp":1,"t":null}]}"#,
    ]
    .map(|text| text.as_bytes().to_vec())
    .into()
}

/// Points in JSON: taken as points or refused.
pub(super) fn json(bytes: &[u8]) {
    all_are_points(&untrusted::records_of_json(bytes));
}

/// The first byte chooses between JSON and CBOR.
pub(super) fn senml_seeds() -> Vec<Vec<u8>> {
    let packs = [
        serde_json::json!([{"bn": "urn:dev:mac:0024befffe804ff1/", "bt": 1.320_067_464e9, "bu": "Cel", "n": "t", "v": 23.1}, {"n": "l", "vs": "x"}]),
        serde_json::json!([{"bver": 10, "bs": 1, "n": "a/b-c", "s": 2, "t": -5, "x": [1, {"y": null}]}, {"n": "open", "vb": true, "ut": 60}]),
    ];
    let mut seeds = Vec::new();
    for pack in packs {
        seeds.push([b"0", pack.to_string().as_bytes()].concat());
        let mut cbor = b"1".to_vec();
        ciborium::into_writer(&pack, &mut cbor).unwrap();
        seeds.push(cbor);
    }
    seeds
}

/// A pack of SenML: taken as points, one or two of a record, or refused.
pub(super) fn senml_pack(bytes: &[u8]) {
    let Some((encoding, pack)) = bytes.split_first() else { return };
    let encoding = if encoding & 1 == 0 { senml::Encoding::Json } else { senml::Encoding::Cbor };
    let Ok(batch) = senml::read(encoding, pack, "sender", 1_795_248_000_000_000_000) else {
        return;
    };
    // Each takes some bytes of the pack.
    assert!(batch.points() <= pack.len());
    all_are_points(&batch.encode().into_iter().collect::<Vec<_>>());
}

pub(super) fn table_seeds() -> Vec<Vec<u8>> {
    [
        "time,device,temp,note\n1795248000000,d1,21.5,\"a, \"\"b\"\"\"\n2,,x,\n",
        "\u{feff}timestamp,a\r\n2026-11-21T08:00:00Z,true\r\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into()
}

/// Points in a table: taken as points, line by line, or refused.
pub(super) fn table(bytes: &[u8]) {
    all_are_points(&untrusted::records_of_table(bytes));
}

pub(super) fn points_seeds() -> Vec<Vec<u8>> {
    let documents = json_seeds();
    let read = |text: &Vec<u8>| serde_json::from_slice::<serde_json::Value>(text).unwrap();
    documents.iter().map(|text| rmp_serde::to_vec_named(&read(text)).unwrap()).collect()
}

/// Points in MessagePack: taken as points or refused.
pub(super) fn points(bytes: &[u8]) {
    all_are_points(&untrusted::records_of_msgpack(bytes));
}

/// One series, `t{room="lab"}`, with a sample of 21.5 at 5 ms, as protocol buffers; and the same as a body.
pub(super) fn remote_write_seeds() -> Vec<Vec<u8>> {
    let mut request = b"\x0a\x2f\x0a\x0d\x0a\x08__name__\x12\x01t\x0a\x0b\x0a\x04room\x12\x03lab".to_vec();
    request.extend_from_slice(b"\x12\x0b\x09\x00\x00\x00\x00\x00\x80\x35\x40\x10\x05\x22\x02\x08\x01");
    let body = snap::raw::Encoder::new().compress_vec(&request).expect("short");
    vec![request, body]
}

/// A request of Prometheus's remote write: taken as points or refused, whether the input is its body or what its body expands to.
pub(super) fn remote_write(bytes: &[u8]) {
    all_are_points(&untrusted::records_of_remote_write(bytes));
    if let Ok(body) = snap::raw::Encoder::new().compress_vec(bytes) {
        all_are_points(&untrusted::records_of_remote_write(&body));
    }
}

pub(super) fn mqtt_seeds() -> Vec<Vec<u8>> {
    let (stream, batch) = (stream(), super::record::batch());
    let message = MqttMessage::of_record(&stream, Lsn(4), &batch).next().unwrap();
    [Encoding::Json, Encoding::MessagePack].map(|encoding| message.encode(encoding).unwrap()).into()
}

/// A payload that is read is written in both forms, and means the same then, but that JSON has one NaN.
pub(super) fn mqtt(bytes: &[u8]) {
    let Ok(message) = MqttMessage::decode(bytes) else { return };
    let packed = message.encode(Encoding::MessagePack).expect("what was read can be written");
    assert_eq!(MqttMessage::decode(&packed).ok().as_ref(), Some(&message));

    let text = message.encode(Encoding::Json).expect("what was read can be written");
    let mut message = message;
    for (_, _, value) in &mut message.points {
        match value {
            Value::F64(v) if v.is_nan() => *v = f64::NAN,
            _ => {}
        }
    }
    assert_eq!(MqttMessage::decode(&text).ok(), Some(message));
}

pub(super) fn selector_seeds() -> Vec<Vec<u8>> {
    [
        r#"temperature{room="lab",site!~"a.*|b"}"#,
        r#"{__name__=~"t.+"}"#,
        "2026-11-20T12:00:00Z",
        "1795248000000ms",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into()
}

/// Selectors and instants as a client writes them.
pub(super) fn selector(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(selectors) = Selectors::parse(&[text]) {
        for (series, _) in &super::record::batch().series {
            // Either answer is right; that there is one is the test.
            std::hint::black_box(selectors.matches(series));
        }
    }
    drop(parse_instant(text));
}

/// A token's text, for seeds.
const TOKEN: &str = "tl_0123456789abcdef_0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

pub(super) fn token_seeds() -> Vec<Vec<u8>> {
    // The last is `Basic`, of the user `u` and that token.
    let basic = "Basic dTp0bF8wMTIzNDU2Nzg5YWJjZGVmXzAxMjM0NTY3ODlhYmNkZWYwMTIzNDU2Nzg5YWJjZGVmMDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
    let texts = [&format!("Bearer {TOKEN}"), &format!("Token u:{TOKEN}"), &format!("u=x&p={TOKEN}"), basic];
    texts.into_iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// What is found in a request is a token, whole and in its one form, wherever it stood.
pub(super) fn token(bytes: &[u8]) {
    let query = std::str::from_utf8(bytes).unwrap_or_default();
    for found in untrusted::tokens_of_request(bytes, query).into_iter().flatten() {
        assert_eq!(found.len(), TOKEN.len());
        let again = untrusted::tokens_of_request(format!("Bearer {found}").as_bytes(), &format!("p={found}"));
        assert_eq!(again, [Some(found.clone()), Some(found)]);
    }
}
