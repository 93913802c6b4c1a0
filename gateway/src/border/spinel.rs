//! The radio as a co-processor that speaks Spinel: an OpenThread RCP on a serial line, or behind a TCP socket that another program hands it on
//! by, or a simulated one. [`tidelog_spinel::Host`] decides; this module has the line and the clock, opens the line again when it closes, and
//! looks for the rate of a serial line that nobody told.

use std::io;
use std::time::Duration;

use tidelog_lowpan::{EndpointConfig, Quality};
use tidelog_record::DeviceId;
use tidelog_spinel::{Event, Host, HostConfig, Loss, RADIO_FRAME_BYTES_MAX, SendError, WIRE_BYTES_MAX};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::air::Heard;
use super::line::Line;
use super::rates::{Rates, Silence, USUAL_BAUD};
use crate::settings::SpinelPlace;

/// Pause before the line is opened again.
const OPEN_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Bytes read at once.
const READ_BYTES: usize = 4096;
/// Repetitions of a frame that nobody acknowledges.
const RETRIES_MAX: u8 = 3;
/// Each frame of Spinel ends with it.
const FLAG: u8 = 0x7e;
/// How a frame was heard, before it: RSSI, LQI.
const QUALITY_BYTES: usize = 2;

#[derive(Debug)]
enum Door {
    Closed { until: Instant },
    Opening(JoinHandle<io::Result<Line>>),
    Open(Line),
}

/// How the co-processor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CoprocessorState {
    /// Whether it is set up and on the air.
    pub ready: bool,
    /// The EUI-64 that the one heard last was made with.
    pub hardware: Option<DeviceId>,
    /// The rate of its serial line in baud, once it has answered at it.
    pub baud: Option<u32>,
}

/// A radio co-processor.
#[derive(Debug)]
pub struct SpinelAir {
    place: SpinelPlace,
    config: HostConfig,
    host: Host,
    start: Instant,
    door: Door,
    rates: Rates,
    ready: bool,
    hardware: Option<DeviceId>,
    /// Bytes from the line that the host has not taken; those before `taken` it has.
    unread: Vec<u8>,
    taken: usize,
    unsent: Vec<u8>,
}

impl SpinelAir {
    /// A radio that is opened by the first [`receive`](Self::receive), and again whenever it is gone.
    #[must_use]
    pub fn new(place: &SpinelPlace, station: &EndpointConfig) -> Self {
        let EndpointConfig { eui, pan, channel, .. } = *station;
        let config = HostConfig { eui, pan, channel, retries_max: RETRIES_MAX };
        let start = Instant::now();
        let rates = match place {
            SpinelPlace::Tcp(_) => Rates::none(),
            SpinelPlace::Serial { baud, .. } => Rates::of_serial(*baud),
        };
        Self {
            place: place.clone(),
            config,
            host: Host::new(config, Duration::ZERO),
            start,
            door: Door::Closed { until: start },
            rates,
            ready: false,
            hardware: None,
            unread: Vec::new(),
            taken: 0,
            unsent: Vec::new(),
        }
    }

    /// Whether a frame would be taken now.
    #[must_use]
    pub fn can_send(&self) -> bool {
        matches!(self.door, Door::Open(_)) && self.host.can_send()
    }

    /// How the co-processor is.
    #[must_use]
    pub fn state(&self) -> CoprocessorState {
        CoprocessorState { ready: self.ready, hardware: self.hardware, baud: self.rates.found() }
    }

    /// Hands a frame to the co-processor; it leaves with the next [`receive`](Self::receive).
    ///
    /// # Errors
    /// When the radio is not ready for one; the frame is lost, as frames may be.
    pub fn send(&mut self, frame: &[u8]) -> Result<(), SendError> {
        if matches!(self.door, Door::Open(_)) { self.host.send(frame) } else { Err(SendError::NotReady) }
    }

    /// Waits until something happened: a frame that was heard, whose length with what is known of it is given, or anything else (0), after which
    /// [`can_send`](Self::can_send) may say something else. Cancel-safe.
    ///
    /// # Errors
    /// Why there is no radio for now; it is opened again by the calls after it.
    pub async fn receive(&mut self, packet: &mut [u8]) -> io::Result<usize> {
        loop {
            match &mut self.door {
                Door::Closed { until } => {
                    tokio::time::sleep_until(*until).await;
                    self.door = Door::Opening(tokio::spawn(Line::open(self.place.clone())));
                }
                Door::Opening(task) => {
                    let opened = task.await.map_err(io::Error::other).and_then(|opened| opened);
                    self.open(opened).map_err(|error| self.close(error))?;
                }
                Door::Open(_) => {
                    if let Some(told) = self.take(packet) {
                        return told;
                    }
                    if let Err(error) = self.exchange().await {
                        return Err(self.close(error));
                    }
                }
            }
        }
    }

    /// What [`receive`](Self::receive) put into a packet; nothing if it was no frame.
    #[must_use]
    pub fn decode(packet: &[u8]) -> Option<Heard<'_>> {
        let ([rssi, lqi], frame) = packet.split_first_chunk::<QUALITY_BYTES>()?;
        Some(Heard { frame, quality: Quality { rssi_dbm: rssi.cast_signed(), lqi: *lqi } })
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn open(&mut self, opened: io::Result<Line>) -> io::Result<()> {
        self.door = Door::Open(opened?);
        self.rates.begin();
        if self.rates.is_search() {
            tracing::info!(place = %self.place, "looking for the rate of the radio co-processor");
        }
        self.begin()
    }

    /// Begins with the co-processor, at the next rate that the line takes.
    fn begin(&mut self) -> io::Result<()> {
        if let (Door::Open(line), Some(mut baud)) = (&self.door, self.rates.now()) {
            while let Err(error) = line.set_baud(baud) {
                tracing::debug!(place = %self.place, %error, "a rate is passed over");
                if !self.rates.advance() {
                    return Err(error);
                }
                baud = self.rates.now().unwrap_or(baud);
            }
            tracing::debug!(place = %self.place, baud, "asking for a radio co-processor");
        }
        self.unread.clear();
        self.unsent.clear();
        (self.taken, self.ready) = (0, false);
        self.host = Host::new(self.config, self.now());
        Ok(())
    }

    fn close(&mut self, error: io::Error) -> io::Error {
        self.ready = false;
        self.rates.begin();
        self.door = Door::Closed { until: Instant::now() + OPEN_AGAIN_AFTER };
        self.told(error)
    }

    fn told(&self, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
        io::Error::other(format!("radio at {}: {}", self.place, error.into()))
    }

    /// Lets the host go on, and gives what happened.
    fn take(&mut self, packet: &mut [u8]) -> Option<io::Result<usize>> {
        let now = self.now();
        self.host.handle_timeout(now);
        loop {
            if let Some(event) = self.host.poll_event() {
                return Some(self.tell(&event, packet));
            }
            // One frame at a time, so that none is dropped for want of room in the host.
            let rest = self.unread.get(self.taken..).filter(|rest| !rest.is_empty())?;
            let length = rest.iter().position(|byte| *byte == FLAG).map_or(rest.len(), |at| at + 1);
            self.host.handle_bytes(now, rest.get(..length).unwrap_or_default());
            self.taken += length;
        }
    }

    fn tell(&mut self, event: &Event, packet: &mut [u8]) -> io::Result<usize> {
        match event {
            Event::Ready { hardware } => {
                self.rates.answered();
                (self.ready, self.hardware) = (true, *hardware);
                let hardware = hardware.map(|eui| eui.to_string());
                let baud = self.rates.found();
                tracing::info!(place = %self.place, ?hardware, baud, "the radio co-processor is ready");
                Ok(0)
            }
            Event::Lost(loss) => self.lose(*loss).map(|()| 0),
            // What was not acknowledged is repeated by the sensor's CoAP.
            Event::Done(_) => Ok(0),
            Event::Heard(heard) => {
                let length = QUALITY_BYTES + heard.frame.len();
                let [rssi] = heard.rssi_dbm.to_le_bytes();
                let bytes = [rssi, heard.lqi].into_iter().chain(heard.frame.iter().copied());
                for (place, byte) in packet.iter_mut().zip(bytes) {
                    *place = byte;
                }
                Ok(length.min(packet.len()))
            }
        }
    }

    /// Silence may be another rate's fault; every other loss is the answer of a co-processor.
    fn lose(&mut self, loss: Loss) -> io::Result<()> {
        self.ready = false;
        if loss != Loss::Silent {
            self.rates.answered();
            return Err(self.told(loss));
        }
        match self.rates.silent() {
            Silence::Wait => Err(self.told(loss)),
            Silence::Next => self.begin().map_err(|error| self.close(error)),
            Silence::Exhausted => {
                let tried: Vec<String> = USUAL_BAUD.iter().map(ToString::to_string).collect();
                let tried = tried.join(", ");
                Err(self.close(io::Error::other(format!(
                    "no radio co-processor answers at {tried} baud: it needs an RCP firmware; if that has another rate, name it by ?baud="
                ))))
            }
        }
    }

    /// Moves bytes to and from the line once, or waits until the host has something to do.
    async fn exchange(&mut self) -> io::Result<()> {
        let now = self.now();
        let mut wire = [0; WIRE_BYTES_MAX];
        while let Some(length) = self.host.poll_transmit(now, &mut wire) {
            self.unsent.extend_from_slice(wire.get(..length).unwrap_or_default());
        }
        let due = self.host.poll_timeout().map(|due| self.start + due);
        let Door::Open(line) = &self.door else { return Ok(()) };
        let mut bytes = [0; READ_BYTES];
        tokio::select! {
            length = line.read(&mut bytes) => {
                self.taken = 0;
                self.unread.clear();
                self.unread.extend_from_slice(bytes.get(..length?).unwrap_or_default());
            }
            length = line.write(&self.unsent), if !self.unsent.is_empty() => drop(self.unsent.drain(..length?)),
            () = super::sleep_until(due) => {}
        }
        Ok(())
    }
}

/// What [`SpinelAir::receive`] wants room for, in bytes.
pub const PACKET_BYTES_MAX: usize = QUALITY_BYTES + RADIO_FRAME_BYTES_MAX;

#[cfg(test)]
mod tests {
    use super::*;
    use tidelog_record::DeviceId;
    use tidelog_sim::air::{Air, AirOptions};
    use tidelog_sim::rcp::{Place, Rcp};
    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpListener;

    const STATION: EndpointConfig = EndpointConfig::new(DeviceId([2, 1, 0, 0, 0, 0, 0, 9]));
    const OTHER: EndpointConfig = EndpointConfig::new(DeviceId([2, 1, 0, 0, 0, 0, 0, 8]));

    async fn radio(air: &Air, station: &EndpointConfig) -> (Rcp, SpinelAir) {
        let place = Place::Tcp(([127, 0, 0, 1], 0).into());
        let rcp = Rcp::start(&place, air.address(), station.eui).await.unwrap();
        let mut radio = SpinelAir::new(&SpinelPlace::Tcp(rcp.place().to_string().parse().unwrap()), station);
        while !radio.can_send() {
            // On a busy machine the co-processor may count as silent for a while.
            assert_eq!(radio.receive(&mut [0; PACKET_BYTES_MAX]).await.unwrap_or(0), 0);
        }
        (rcp, radio)
    }

    fn frame(sequence: u8) -> Vec<u8> {
        let mut frame = vec![0x41, 0xdc, sequence, 0x23, 0];
        frame.extend(STATION.eui.0.iter().rev().chain(OTHER.eui.0.iter().rev()));
        frame
    }

    #[tokio::test]
    async fn more_frames_than_the_host_has_room_for_are_heard_all() {
        let air = Air::start(AirOptions::default()).await.unwrap();
        let (_rcp, mut ours) = radio(&air, &STATION).await;
        let (_other_rcp, mut theirs) = radio(&air, &OTHER).await;
        // The air knows a station from its first frame.
        ours.send(&super::super::air::beacon(&STATION, 0)).unwrap();
        while !ours.can_send() {
            ours.receive(&mut [0; PACKET_BYTES_MAX]).await.unwrap();
        }
        let mut packet = [0; PACKET_BYTES_MAX];
        for sequence in 0..20 {
            theirs.send(&frame(sequence)).unwrap();
            while !theirs.can_send() {
                theirs.receive(&mut packet).await.unwrap();
            }
        }
        for sequence in 0..20 {
            let length = loop {
                let length = ours.receive(&mut packet).await.unwrap();
                if length > 0 {
                    break length;
                }
            };
            let heard = SpinelAir::decode(&packet[..length]).unwrap();
            assert_eq!((heard.frame, heard.quality.lqi), (&frame(sequence)[..], 255));
        }
    }

    #[tokio::test]
    async fn a_line_that_closes_is_told_and_opened_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let place = SpinelPlace::Tcp(listener.local_addr().unwrap().to_string().parse().unwrap());
        let mut radio = SpinelAir::new(&place, &STATION);
        for _ in 0..2 {
            let dropped = async {
                let (mut line, _) = listener.accept().await.unwrap();
                let mut first = [0; 7];
                line.read_exact(&mut first).await.unwrap();
                assert_eq!(first, [0x7e, 0x80, 0x01, 0x02, 0xea, 0xf0, 0x7e], "it begins with a reset");
            };
            let mut packet = [0; PACKET_BYTES_MAX];
            let ((), told) = tokio::join!(dropped, radio.receive(&mut packet));
            assert!(told.is_err() && !radio.can_send(), "{told:?}");
            assert_eq!(radio.send(&frame(1)), Err(SendError::NotReady));
        }
    }
}
