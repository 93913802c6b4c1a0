//! The chip's radio between the air and the application: it listens, acknowledges at once what [`Access`] says, and lets one frame at a time out
//! when the medium is clear. What a frame says it does not know; repeating is the endpoint's.
//!
//! Another station waits 864 microseconds for its acknowledgement (54 symbols), which itself takes 352 on the air; some want its first 160 by 562. From the
//! end of its frame to the start of ours go the interrupt that ends the sleep, the look at the addresses, and what the driver does before it
//! sends: 128 microseconds to find the medium clear and 40 to turn the transmitter on. A frame that came while the board was busy with something
//! else is therefore not acknowledged any more, but taken: its sender repeats it, and the endpoint knows the repetition.

use core::cell::RefCell;
use core::convert::Infallible;
use core::future::poll_fn;
use core::task::Poll;

use embassy_futures::select::{Either, select};
use embassy_nrf::pac;
use embassy_nrf::radio::ieee802154::{Packet, Radio};
use tidelog_firmware::lowpan::access::{Access, FrameBytes};
use tidelog_firmware::lowpan::time::Duration;
use tidelog_firmware::lowpan::{EndpointConfig, FRAME_BYTES_MAX, Quality, mac};

use crate::clock;

/// A frame that may have ended longer ago gets no acknowledgement: it would come too late.
const ANSWERED_WITHIN: Duration = Duration::from_micros(150);
/// The signal strength of which the radio says 0, in dBm, and what one of its steps is of the 255 of link quality (product specification,
/// 802.15.4 operation: ED_RSSIOFFS, ED_RSSISCALE).
const STRENGTH_ZERO_DBM: i8 = -92;
const QUALITY_STEP: u8 = 4;

/// What passes between the radio and the application.
pub struct Air(RefCell<Access>);

impl Air {
    /// Silence. `entropy` should differ between boards.
    pub fn new(station: &EndpointConfig, entropy: u64) -> Self {
        Self(RefCell::new(Access::new(station, ANSWERED_WITHIN, entropy)))
    }

    /// Asks what waits on either side. It is nobody else's until `ask` ends.
    pub fn with<R>(&self, ask: impl FnOnce(&mut Access) -> R) -> R {
        ask(&mut self.0.borrow_mut())
    }

    /// Says that by now the radio was looked after, or that an interrupt just ended a sleep before which it was.
    pub fn watched(&self) {
        self.with(|access| access.watched(clock::now()));
    }

    /// Listens and sends. It wants to be polled after each interrupt, after a frame was given to it and when one is due.
    pub async fn serve(&self, mut radio: Radio<'static>) -> Infallible {
        // Transmitter and receiver are on after 40 microseconds, and not after 130 as on older chips. The driver never says which.
        pac::RADIO.modecnf0().modify(|mode| mode.set_ru(pac::radio::vals::Ru::Fast));
        let (mut packet, mut answer) = (Packet::new(), Packet::new());
        loop {
            match select(radio.receive(&mut packet), self.turn()).await {
                Either::First(Ok(())) => {
                    let Some((frame, quality)) = frame(&packet) else { continue };
                    let ack = self.with(|access| access.answer(clock::now(), frame));
                    if let Some(ack) = ack {
                        answer.copy_from_slice(&ack);
                        // Someone else speaks: the frame comes again, as if it had been lost.
                        radio.try_send(&mut answer).await.unwrap_or_default();
                    }
                    self.with(|access| access.keep(frame, quality));
                }
                // A frame that was damaged on the air is none.
                Either::First(Err(_)) => {}
                Either::Second(leaving) => {
                    packet.copy_from_slice(&leaving);
                    let clear = radio.try_send(&mut packet).await.is_ok();
                    self.with(|access| access.left(clock::now(), clear));
                }
            }
        }
    }

    /// Ends when a frame may try to leave.
    async fn turn(&self) -> FrameBytes {
        let leaving = || self.with(|access| access.leave(clock::now()).cloned());
        poll_fn(|_| leaving().map_or(Poll::Pending, Poll::Ready)).await
    }
}

/// What a packet is to the application. `None`: its length is no frame's, and must not be believed: the driver would read beyond its buffer's end.
fn frame(packet: &Packet) -> Option<(&[u8], Quality)> {
    if !(mac::ACK_BYTES..=FRAME_BYTES_MAX).contains(&usize::from(packet.len())) {
        return None;
    }
    let steps = packet.lqi();
    let rssi_dbm = STRENGTH_ZERO_DBM.saturating_add_unsigned(steps);
    Some((packet, Quality { rssi_dbm, lqi: steps.saturating_mul(QUALITY_STEP) }))
}
