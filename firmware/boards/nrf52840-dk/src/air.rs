//! The chip's radio between the air and the application: it listens, acknowledges at once what is for this board, and lets one frame at a
//! time out when the medium is clear. What a frame says it does not know; repeating is the endpoint's.
//!
//! Another station waits 864 microseconds for its acknowledgement (54 symbols), which itself takes 352 on the air; some want its first 160 by 562. From the
//! end of its frame to the start of ours go the interrupt that ends the sleep, the look at the addresses, and what the driver does before it
//! sends: 128 microseconds to find the medium clear and 40 to turn the transmitter on. A frame that came while the board was busy with something
//! else is therefore not acknowledged any more, but taken: its sender repeats it, and the endpoint knows the repetition.

use core::cell::{Cell, RefCell};
use core::convert::Infallible;
use core::future::poll_fn;
use core::task::Poll;

use embassy_futures::select::{Either, select};
use embassy_nrf::pac;
use embassy_nrf::radio::ieee802154::{Packet, Radio};
use heapless::{Deque, Vec};
use tidelog_firmware::DeviceId;
use tidelog_firmware::lowpan::time::{Duration, Instant};
use tidelog_firmware::lowpan::{Csma, EndpointConfig, FRAME_BYTES_MAX, Quality, mac};

use crate::clock;

/// Frames that wait for the application at most; one for which there is no room is not acknowledged, and so comes again.
const HEARD_MAX: usize = 4;
/// A frame that may have ended longer ago gets no acknowledgement: it would come too late.
const ANSWERED_WITHIN: Duration = Duration::from_micros(150);
/// The signal strength of which the radio says 0, in dBm, and what one of its steps is of the 255 of link quality (product specification,
/// 802.15.4 operation: ED_RSSIOFFS, ED_RSSISCALE).
const STRENGTH_ZERO_DBM: i8 = -92;
const QUALITY_STEP: u8 = 4;

/// A frame that was heard.
#[derive(Debug)]
pub struct Heard {
    /// Without its check sequence.
    pub frame: Vec<u8, FRAME_BYTES_MAX>,
    /// How it was heard.
    pub quality: Quality,
}

/// What waits to leave.
struct Outgoing {
    packet: Packet,
    /// When it may look whether the medium is clear.
    at: Instant,
}

/// What passes between the radio and the application.
pub struct Air {
    eui: DeviceId,
    pan: u16,
    heard: RefCell<Deque<Heard, HEARD_MAX>>,
    outgoing: RefCell<Option<Outgoing>>,
    /// Whether one is leaving now.
    leaving: Cell<bool>,
    csma: RefCell<Csma>,
    /// When it was last certain that no frame waited unseen.
    watched: Cell<Instant>,
}

impl Air {
    /// Silence. `entropy` should differ between boards.
    pub fn new(station: &EndpointConfig, entropy: u64) -> Self {
        Self {
            eui: station.eui,
            pan: station.pan,
            heard: RefCell::new(Deque::new()),
            outgoing: RefCell::new(None),
            leaving: Cell::new(false),
            csma: RefCell::new(Csma::new(entropy)),
            watched: Cell::new(Instant::ZERO),
        }
    }

    /// The next frame that was heard.
    pub fn take(&self) -> Option<Heard> {
        self.heard.borrow_mut().pop_front()
    }

    /// Whether one is there.
    pub fn has_heard(&self) -> bool {
        !self.heard.borrow().is_empty()
    }

    /// Whether a frame can be given to it.
    pub fn can_send(&self) -> bool {
        self.outgoing.borrow().is_none() && !self.leaving.get()
    }

    /// Takes a frame to send, without its check sequence, when it [can](Self::can_send).
    pub fn send(&self, frame: &[u8]) {
        let mut packet = Packet::new();
        packet.copy_from_slice(frame.get(..FRAME_BYTES_MAX).unwrap_or(frame));
        let at = clock::now() + self.csma.borrow_mut().begin();
        self.outgoing.replace(Some(Outgoing { packet, at }));
    }

    /// When the frame that waits wants to try.
    pub fn due(&self) -> Option<Instant> {
        self.outgoing.borrow().as_ref().map(|outgoing| outgoing.at)
    }

    /// Says that by now the radio was looked after, or that an interrupt just ended a sleep before which it was.
    pub fn watched(&self) {
        self.watched.set(clock::now());
    }

    /// Listens and sends. It wants to be polled after each interrupt, after [`send`](Self::send) and when it is [`due`](Self::due).
    pub async fn serve(&self, mut radio: Radio<'static>) -> Infallible {
        // Transmitter and receiver are on after 40 microseconds, and not after 130 as on older chips. The driver never says which.
        pac::RADIO.modecnf0().modify(|mode| mode.set_ru(pac::radio::vals::Ru::Fast));
        let (mut packet, mut answer) = (Packet::new(), Packet::new());
        loop {
            match select(radio.receive(&mut packet), self.turn()).await {
                Either::First(Ok(())) => {
                    let Some(heard) = self.room().then(|| heard(&packet)).flatten() else { continue };
                    let recent = clock::now() <= self.watched.get() + ANSWERED_WITHIN;
                    if let Some(ack) =
                        mac::acknowledgement(&heard.frame, self.eui, self.pan).filter(|_| recent)
                    {
                        answer.copy_from_slice(&ack);
                        // Someone else speaks: the frame comes again, as if it had been lost.
                        radio.try_send(&mut answer).await.unwrap_or_default();
                    }
                    // There is room, as just asked.
                    self.heard.borrow_mut().push_back(heard).unwrap_or_default();
                }
                // A frame that was damaged on the air is none.
                Either::First(Err(_)) => {}
                Either::Second(()) => {
                    let Some(mut outgoing) = self.outgoing.take() else { continue };
                    self.leaving.set(true);
                    let left = radio.try_send(&mut outgoing.packet).await;
                    self.leaving.set(false);
                    if left.is_err()
                        && let Some(wait) = self.csma.borrow_mut().busy()
                    {
                        outgoing.at = clock::now() + wait;
                        self.outgoing.replace(Some(outgoing));
                    }
                }
            }
        }
    }

    fn room(&self) -> bool {
        !self.heard.borrow().is_full()
    }

    /// Ends when a frame may try to leave.
    async fn turn(&self) {
        poll_fn(|_| match self.due() {
            Some(at) if at <= clock::now() => Poll::Ready(()),
            _ => Poll::Pending,
        })
        .await;
    }
}

/// What a packet is to the application. `None`: its length is no frame's, and must not be believed: the driver would read beyond its buffer's end.
fn heard(packet: &Packet) -> Option<Heard> {
    let length = usize::from(packet.len());
    if !(mac::ACK_BYTES..=FRAME_BYTES_MAX).contains(&length) {
        return None;
    }
    let frame = Vec::from_slice(packet).ok()?;
    let steps = packet.lqi();
    let rssi_dbm = STRENGTH_ZERO_DBM.saturating_add_unsigned(steps);
    Some(Heard { frame, quality: Quality { rssi_dbm, lqi: steps.saturating_mul(QUALITY_STEP) } })
}
