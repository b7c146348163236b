//! Every limit of the wire, named once, unit last, with its reason. What is over it gets the error named there.

/// Bytes of a frame after its length field; above it `FrameTooLarge` and the connection is closed. Holds the
/// largest value, an append batch of 1 MiB, and a snapshot chunk, with room for their headers.
pub const FRAME_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of a queue body or a cache value; above it `TooLarge`. As NATS: a log entry must fit a batch.
pub const VALUE_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of a cache key; above it `TooLarge`.
pub const KEY_BYTES_MAX: usize = 1024;
/// Bytes of a queue's, lock's or client's name; above it `TooLarge`.
pub const NAME_BYTES_MAX: usize = 512;
/// Longest lease of a lock in milliseconds, one day as in the REST contract; above it `InvalidArgument`.
pub const LEASE_MS_MAX: u32 = 86_400_000;
/// Longest visibility timeout in milliseconds, 12 hours; above it `InvalidArgument`.
pub const VISIBILITY_MS_MAX: u32 = 43_200_000;
/// Visibility timeout where the request names none, in milliseconds.
pub const VISIBILITY_MS_DEFAULT: u32 = 30_000;
/// Messages of one dequeue; above it `InvalidArgument`.
pub const BATCH_MAX: u32 = 256;
/// Nesting depth of a MessagePack body; above it `MalformedBody`. Our own messages reach 8.
pub const BODY_DEPTH_MAX: usize = 32;
/// Requests of one connection that wait for their answers; one more gets `TooManyInFlight`.
pub const IN_FLIGHT_MAX: usize = 4096;
/// Connections of one node, clients and peers; one more gets `TooManyConnections` and is closed.
pub const CONNECTIONS_MAX: usize = 16_384;
/// Milliseconds from the accepted connection to its complete handshake; after it the connection is closed.
pub const HANDSHAKE_MS_MAX: u64 = 2_000;
/// Milliseconds of a request without a deadline of its own.
pub const DEADLINE_MS_DEFAULT: u32 = 5_000;
/// Longest deadline a request may ask for, in milliseconds; a longer one is cut to it.
pub const DEADLINE_MS_MAX: u32 = 60_000;
