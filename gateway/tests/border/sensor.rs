//! A sensor made of `lowpan`'s own parts over a UDP socket: CoAP client, UDP, 6LoWPAN, 802.15.4, ZEP. Its socket is the
//! air that the gateway dials, so it hears everything the gateway sends.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant as Clock};

use tidelog_lowpan::coap::{Code, Event, Exchange, Transmission};
use tidelog_lowpan::time::{Duration as Span, Instant};
use tidelog_lowpan::{
    COAP_PORT, EndpointConfig, FRAME_BUFFER_BYTES, NetworkKey, Peer, Quality, SensorEndpoint, zep,
};
use tidelog_record::DeviceId;
use tidelog_record::uplink::{Answer, BatchEncoder, Metric, Reading, Sample, Schema, encode_registration};

const METRICS: [Metric<'static>; 2] =
    [Metric { name: "temperature", scale: Some(2) }, Metric { name: "count", scale: None }];

/// Quick, so that a lost answer does not cost a test seconds.
const QUICK: Transmission = Transmission {
    ack_timeout: Span::from_millis(300),
    max_retransmit: 6,
    response_timeout: Span::from_secs(10),
};

/// The samples' times count from here, in seconds.
pub const FIRST_S: i64 = 1_600_000_000;

pub struct Sensor {
    socket: UdpSocket,
    gateway: Option<SocketAddr>,
    to: Peer,
    device: DeviceId,
    endpoint: Box<SensorEndpoint>,
    exchange: Exchange<600>,
    started: Clock,
    sequence: u32,
    draws: u32,
    /// Answers to lose before one is let through.
    pub deaf_to_answers: usize,
}

impl Sensor {
    pub fn new(device: DeviceId, gateway: DeviceId) -> Self {
        Self::with_key(device, gateway, None, 0)
    }

    /// One that encrypts, with frame counters from `first` on.
    pub fn with_key(device: DeviceId, gateway: DeviceId, key: Option<NetworkKey>, first: u32) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        let config = EndpointConfig { key, counter_block: 1 << 16, ..EndpointConfig::new(device) };
        let mut endpoint = Box::new(SensorEndpoint::new(config, 42).unwrap());
        endpoint.resume_counters(first);
        if let Some(upto) = endpoint.counter_reserve_due() {
            endpoint.counters_reserved(upto);
        }
        Self {
            socket,
            gateway: None,
            to: Peer { device: gateway, port: COAP_PORT },
            device,
            endpoint,
            exchange: Exchange::new(QUICK, 0x1234_5678),
            started: Clock::now(),
            sequence: 0,
            draws: 0,
            deaf_to_answers: 0,
        }
    }

    /// Frames from the gateway that link security refused.
    pub fn refused(&self) -> u64 {
        let drops = self.endpoint.counters().drops;
        drops.replayed + drops.forged + drops.unsecured + drops.security_level
    }

    pub fn air(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }

    /// Waits for the gateway's beacon, as after its restart.
    pub fn find_gateway(&mut self) {
        self.gateway = None;
        let deadline = Clock::now() + Duration::from_secs(20);
        while self.gateway.is_none() {
            assert!(Clock::now() < deadline, "no beacon came");
            self.hear();
        }
    }

    /// Sends any bytes to the gateway's socket.
    pub fn send_raw(&self, datagram: &[u8]) {
        self.socket.send_to(datagram, self.gateway.unwrap()).unwrap();
    }

    /// Puts any frame on the air.
    pub fn send_frame(&mut self, frame: &[u8]) {
        self.sequence += 1;
        let header = zep::Header { channel: 26, lqi: 200, sequence: self.sequence, ..zep::Header::default() };
        let mut packet = [0; zep::PACKET_BYTES_MAX];
        let length = zep::encode(&header, frame, &mut packet).unwrap();
        if let Some(gateway) = self.gateway {
            self.socket.send_to(&packet[..length], gateway).unwrap();
        }
    }

    /// Sends one UDP datagram to the gateway's CoAP port.
    pub fn send_datagram(&mut self, payload: &[u8]) {
        self.endpoint.send(self.now(), self.to, payload).unwrap();
        for _ in 0..4 {
            self.pump();
            self.hear();
            while self.endpoint.receive(&mut [0; 640]).is_some() {}
        }
    }

    pub fn batch(&self, epoch: u32, first_seq: u64, count: u64) -> Vec<u8> {
        let schema = Schema::new(1_000_000_000, &METRICS).unwrap();
        let mut out = vec![0; 512];
        let mut encoder =
            BatchEncoder::new(&mut out, self.device, epoch, first_seq, schema, FIRST_S).unwrap();
        for seq in first_seq..first_seq + count {
            let mut values = [None; 16];
            values[0] = Some(Reading::F64(20.0 + f64::from(u32::try_from(seq).unwrap()) / 100.0));
            values[1] = Some(Reading::I64(i64::try_from(seq).unwrap()));
            encoder.push(&Sample { ticks: FIRST_S + i64::try_from(seq).unwrap(), values }).unwrap();
        }
        let length = encoder.length();
        out.truncate(length);
        out
    }

    pub fn registration(&self) -> Vec<u8> {
        let mut out = vec![0; 128];
        let schema = Schema::new(1_000_000_000, &METRICS).unwrap();
        let length = encode_registration(&mut out, self.device, &schema, "1.2.3").unwrap();
        out.truncate(length);
        out
    }

    /// Posts and waits for the answer.
    pub fn post(&mut self, path: &str, payload: &[u8]) -> (Code, Option<Answer>) {
        self.begin(path, payload);
        self.finish(Duration::from_secs(30)).expect("no answer came")
    }

    pub fn begin(&mut self, path: &str, payload: &[u8]) {
        self.draws += 0x0001_4242;
        self.exchange.cancel();
        self.exchange.start(self.now(), self.draws, Code::POST, &[path], payload).unwrap();
    }

    pub fn finish(&mut self, patience: Duration) -> Option<(Code, Option<Answer>)> {
        let deadline = Clock::now() + patience;
        while Clock::now() < deadline {
            self.pump();
            self.hear();
            let mut datagram = [0; 640];
            while let Some((_, length)) = self.endpoint.receive(&mut datagram) {
                if self.deaf_to_answers > 0 {
                    self.deaf_to_answers -= 1;
                    continue;
                }
                let now = self.now();
                if let Event::Response(message) = self.exchange.handle_datagram(now, &datagram[..length]) {
                    return Some((message.code(), Answer::decode(message.payload()).ok()));
                }
            }
        }
        None
    }

    fn pump(&mut self) {
        let now = self.now();
        self.endpoint.handle_timeout(now);
        assert_eq!(self.exchange.handle_timeout(now), None, "the gateway fell silent");
        if let Some(request) = self.exchange.poll_transmit() {
            let request = request.to_vec();
            self.endpoint.send(now, self.to, &request).unwrap();
        }
        let mut frame = [0; FRAME_BUFFER_BYTES];
        while let Some(length) = self.endpoint.poll_transmit(now, &mut frame) {
            self.send_frame(&frame[..length]);
        }
    }

    fn hear(&mut self) {
        let mut packet = [0; 256];
        while let Ok((length, from)) = self.socket.recv_from(&mut packet) {
            self.gateway = Some(from);
            if let Ok(zep::Packet::Data(header, frame)) = zep::decode(&packet[..length]) {
                let quality = Quality { rssi_dbm: -40, lqi: header.lqi };
                self.endpoint.handle_frame(self.now(), frame, quality);
            }
            self.pump();
        }
    }

    fn now(&self) -> Instant {
        Instant::from_micros(i64::try_from(self.started.elapsed().as_micros()).unwrap())
    }
}
