//! What an endpoint counts: every frame, byte and datagram, and every drop by its reason. Nothing here decides
//! anything; a reason that is not counted here does not exist.

/// Totals since the endpoint was made. Bytes are those of frames without their check sequence.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames handed in, of any kind.
    pub frames_in: u64,
    /// Bytes of the frames handed in.
    pub bytes_in: u64,
    /// Frames handed out, acknowledgements and repetitions included.
    pub frames_out: u64,
    /// Bytes of the frames handed out.
    pub bytes_out: u64,
    /// Acknowledgements that ended the wait of a frame.
    pub acks_in: u64,
    /// Acknowledgements handed out.
    pub acks_out: u64,
    /// Frames handed out again because no acknowledgement came.
    pub retries: u64,
    /// Frames given up after the last repetition.
    pub unacknowledged: u64,
    /// Complete datagrams received.
    pub datagrams_in: u64,
    /// Datagrams whose last frame was acknowledged (or handed to a radio that acknowledges by itself).
    pub datagrams_out: u64,
    /// Datagrams given up because frames of them stayed without acknowledgement.
    pub datagrams_failed: u64,
    /// What was dropped, by reason.
    pub drops: Drops,
}

/// Frames and datagrams dropped, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Drops {
    /// Not an 802.15.4 frame, or one with parts that are not understood.
    pub malformed: u64,
    /// A beacon, a MAC command or another type that this station has no use for.
    pub unexpected: u64,
    /// Addressed to another station or another PAN.
    pub foreign: u64,
    /// Secured at the link layer, for which there is no key.
    pub secured: u64,
    /// Not secured at the link layer, though this network has a key.
    pub unsecured: u64,
    /// Secured at another level, or with another key index, than this network's.
    pub security_level: u64,
    /// The integrity code is wrong: another key, or changed on the way.
    pub forged: u64,
    /// Rightly secured, with a frame counter that this station has passed.
    pub replayed: u64,
    /// The same frame again, recognised by source and sequence number.
    pub duplicate: u64,
    /// An acknowledgement that nothing waited for.
    pub stray_ack: u64,
    /// 6LoWPAN headers that are malformed or use what is not supported.
    pub bad_headers: u64,
    /// A fragment that contradicts its datagram's size, its neighbours or its alignment.
    pub bad_fragment: u64,
    /// A datagram larger than this station stores.
    pub too_long: u64,
    /// No slot was free for one more datagram.
    pub no_room: u64,
    /// Incomplete datagrams whose time ran out.
    pub timed_out: u64,
    /// Incomplete datagrams given up for newer ones.
    pub evicted: u64,
    /// IPv6 packets that are no UDP for this station: wrong address, port or checksum.
    pub bad_packet: u64,
}

impl Counters {
    /// Each counter with its name, for a metrics page.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("frames_in", self.frames_in),
            ("bytes_in", self.bytes_in),
            ("frames_out", self.frames_out),
            ("bytes_out", self.bytes_out),
            ("acks_in", self.acks_in),
            ("acks_out", self.acks_out),
            ("retries", self.retries),
            ("unacknowledged", self.unacknowledged),
            ("datagrams_in", self.datagrams_in),
            ("datagrams_out", self.datagrams_out),
            ("datagrams_failed", self.datagrams_failed),
        ]
        .into_iter()
    }
}

impl Drops {
    /// Each reason with its count, for a metrics page.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("malformed", self.malformed),
            ("unexpected", self.unexpected),
            ("foreign", self.foreign),
            ("secured", self.secured),
            ("unsecured", self.unsecured),
            ("security_level", self.security_level),
            ("forged", self.forged),
            ("replayed", self.replayed),
            ("duplicate", self.duplicate),
            ("stray_ack", self.stray_ack),
            ("bad_headers", self.bad_headers),
            ("bad_fragment", self.bad_fragment),
            ("too_long", self.too_long),
            ("no_room", self.no_room),
            ("timed_out", self.timed_out),
            ("evicted", self.evicted),
            ("bad_packet", self.bad_packet),
        ]
        .into_iter()
    }
}
