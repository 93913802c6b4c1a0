//! Every bound of replication, with its unit. Nothing here is learnt from a peer.

/// The newest version of the messages that this node speaks.
pub const PROTOCOL_VERSION: u16 = 4;
/// The oldest version that this node still speaks: the one before the newest.
pub const PROTOCOL_VERSION_MIN: u16 = 3;
/// The first version in which the bodies of a message are packed together.
pub const GROUPED_SINCE_VERSION: u16 = 4;
/// The first version in which ranges above the contiguous part are told.
pub const RANGES_SINCE_VERSION: u16 = 4;

/// Most bytes of records that a message carries, unless one record alone is longer. Bodies are counted as they are, not as they travel.
pub const MESSAGE_BYTES_MAX: usize = 256 * 1024;
/// Most bytes of records in the first messages of a session, before it is known how fast its connection is.
pub const MESSAGE_BYTES_START: usize = 8 * 1024;
/// Messages of records become no smaller than this on a slow connection.
pub const MESSAGE_BYTES_LEAST: usize = 4 * 1024;
/// A message of records that took longer to write than this is followed by shorter ones, in milliseconds: so long waits what is urgent, and
/// so much is lost when the connection is cut.
pub const MESSAGE_WRITE_MS_MAX: u64 = 250;
/// Most bytes that a frame's payload may claim: the longest record and the words around it.
pub const FRAME_BYTES_MAX: usize = tidelog_record::BATCH_BYTES_MAX + 64 * 1024;
/// Most bytes that the records of a packed message may come to, with what each costs: what is unpacked has room in a frame as it is, too.
/// Counted while they are unpacked, however few bytes they were.
pub const RUN_BYTES_MAX: usize = tidelog_record::BATCH_BYTES_MAX + 32 * 1024;
/// Series that both ends of a connection keep in mind in one direction, to pack bodies by them: with more, packing begins anew. Some 100 bytes
/// each where they are read, twice that where they are written.
pub const SEQUENCE_SERIES_MAX: usize = 16 * 1024;
/// Bytes of their names, and 32 for each device that sent some, at most.
pub const SEQUENCE_LEARNT_BYTES_MAX: usize = 1024 * 1024;
/// Bodies after which packing begins anew in version 3, for each may name a device that is kept in mind.
pub const SEQUENCE_BODIES_MAX: usize = 16 * 1024;
/// Most records in one message.
pub const RECORDS_PER_MESSAGE_MAX: usize = 8192;
/// What a record costs of the credit besides its body, in bytes.
pub const RECORD_COST_BYTES: usize = 16;
/// Most streams told of in one message.
pub const HOLD_STREAMS_MAX: usize = 512;
/// Most ranges above the contiguous part that are told of one stream: the lowest, for those above can be had only after them.
pub const RANGES_ABOVE_MAX: usize = 8;
/// Longest reason for closing that is sent or kept, in bytes.
pub const CLOSE_TEXT_BYTES_MAX: usize = 200;

/// Credit given to a peer: bytes of records that may be on their way or waiting for the disk. It bounds what they take in memory here, so
/// bodies are counted as they are, also where they travel packed.
pub const WINDOW_BYTES_MAX: usize = 1024 * 1024;
/// The least credit that a session gets, however many there are.
pub const WINDOW_BYTES_MIN: usize = 64 * 1024;
/// Credit given to all peers together, unless the options say otherwise.
pub const RECEIVE_BYTES_TOTAL_DEFAULT: usize = 64 * 1024 * 1024;
/// Messages of records read ahead of what one session has sent.
pub const SEND_QUEUE_MESSAGES_MAX: usize = 2;
/// Bytes of them, when they are as long as can be.
pub const SEND_QUEUE_BYTES_MAX: usize = SEND_QUEUE_MESSAGES_MAX * MESSAGE_BYTES_MAX;
/// Reads that go to the streams nearest to their end, before one goes to the stream that waited longest: the backlog's share.
pub const FRESH_TURNS_MAX: u32 = 3;
/// Disk reads asked for and not answered, over all sessions.
pub const DISK_READS_MAX: usize = 8;
/// Messages handed to the connection and not written yet, above which no more data is handed to it. Control messages
/// wait behind no more than these.
pub const DATA_IN_FLIGHT_MESSAGES_MAX: usize = 2;
/// Messages handed to the connection and not written yet, above which nothing more is handed to it.
pub const CONTROL_IN_FLIGHT_MESSAGES_MAX: usize = 4;

/// Streams pulled from one peer at a time; the others wait for their turn.
pub const PULL_STREAMS_PER_SESSION_MAX: usize = 64;
/// Records asked for in one pull once half of those pulls are under way, so that none holds its place for long.
pub const PULL_RECORDS_PER_TURN_MAX: u64 = 4096;
/// Streams served to one peer at a time: those that it pulls, and the one in which it looks for a fork.
pub const SERVE_STREAMS_PER_SESSION_MAX: usize = PULL_STREAMS_PER_SESSION_MAX + 1;
/// Words for a peer that waits for records, above which it may not ask for what it was told of and is not there any more.
pub const REFUSALS_WAITING_MAX: usize = 4 * SERVE_STREAMS_PER_SESSION_MAX;
/// Words of a peer about forks that are being compared with the disk; further ones are dropped, and said again in its next session.
pub const FORK_CHECKS_MAX: usize = 64;
/// Branches that one node keeps written again under runs of their own, over all streams.
pub const BRANCHES_MAX: usize = 1024;
/// Lives of one node that are remembered, to tell a copy of it from a restart.
pub const INSTANCES_PER_NODE_MAX: usize = 4;
/// Nodes whose lives are remembered.
pub const INSTANCE_NODES_MAX: usize = 65_536;
/// Streams that one peer may tell of; and so many of which it may tell ranges above the contiguous part, some 130 bytes each beside the name.
pub const STREAMS_PER_PEER_MAX: usize = 65_536;

/// Least time between two announcements of news to one peer, in milliseconds.
pub const ANNOUNCE_INTERVAL_MS: u64 = 10;
/// Least time between two announcements of what the peer itself has already, in milliseconds.
pub const ACKNOWLEDGE_INTERVAL_MS: u64 = 250;
/// A session sends something at least this often, in milliseconds.
pub const KEEPALIVE_INTERVAL_MS: u64 = 5_000;
/// A session on which nothing was heard for so long is cut, in milliseconds.
pub const SILENCE_TIMEOUT_MS: u64 = 20_000;
/// Time for the first message of a session, in milliseconds.
pub const HELLO_TIMEOUT_MS: u64 = 10_000;
/// A peer that was asked for records and sent none for so long is cut, in milliseconds.
pub const STALL_TIMEOUT_MS: u64 = 300_000;
/// When peers say that policy dropped what this node lacks of a stream, and nobody has sent any of it for so long, it goes on behind
/// that, in milliseconds: longer than a peer takes to come back from a restart or a cut that nobody was told of.
pub const FLOOR_WAIT_MS: u64 = 60_000;
/// Somebody may still have what was dropped elsewhere: it is looked again after so long, in milliseconds.
pub const FLOOR_LOOK_AGAIN_MS: u64 = 5_000;
/// Two sessions of one pair of nodes that began within this time were dialled at once, in milliseconds.
pub const SIMULTANEOUS_DIAL_MS: u64 = 5_000;
/// Pause before pulling again after the disk refused records, in milliseconds.
pub const RETRY_AFTER_DISK_FAILURE_MS: u64 = 5_000;
