//! Every limit of the wire, named once, unit last, with its reason. What is over it gets the error named there.
//!
//! A node tells a client the limits that it may run into in its [`crate::handshake::Welcome`], so that a client of
//! another version asks for nothing that this node refuses.

macro_rules! limits {
    ($($name:ident: $unit:ty = $value:expr, $meaning:literal;)*) => {
        $(#[doc = $meaning] pub const $name: $unit = $value;)*

        /// Every limit: name, value, what it bounds and what happens there. The contract's table is held against it.
        pub const ALL: &[(&str, u64, &str)] = &[$((stringify!($name), $value as u64, $meaning)),*];
    };
}

limits! {
    FRAME_BYTES_MAX: usize = 4 * 1024 * 1024, "Bytes of a frame after its length field; above it `FrameTooLarge` and the connection is closed. Holds the largest value, an append batch of 1 MiB, and a snapshot chunk, with room for their headers.";
    HANDSHAKE_BYTES_MAX: usize = 16 * 1024, "Bytes of the first frame in either direction after its length field; above it `FrameTooLarge` and the connection is closed. Small, because who sends it is not known yet.";
    CREDENTIALS_BYTES_MAX: usize = 4096, "Bytes of the credentials in a hello; above it `TooLarge` and the connection is closed. Holds a signed token.";
    VALUE_BYTES_MAX: usize = 1024 * 1024, "Bytes of a queue body or a cache value; above it `TooLarge`. As NATS: a log entry must fit a batch.";
    KEY_BYTES_MAX: usize = 1024, "Bytes of a cache key; above it `TooLarge`.";
    CONTENT_TYPE_BYTES_MAX: usize = 127, "Bytes of a cache value's content type; above it `TooLarge`.";
    TTL_MS_MAX: u64 = 315_360_000_000, "Longest time that a cache key is given to live, in milliseconds, ten years; above it `InvalidArgument`.";
    FILL_MS_MAX: u32 = 300_000, "Longest right to fill a cache key, in milliseconds; above it `InvalidArgument`.";
    MULTI_MAX: usize = 256, "Keys of one multi-get or multi-put; above it `InvalidArgument`.";
    MULTI_BYTES_MAX: usize = 2 * 1024 * 1024, "Bytes of all values of one multi-get's answer or one multi-put; the keys of a multi-get that would go over it, and a multi-put that does, get `TooLarge`. Half a frame.";
    KEYS_MAX: usize = 1_000, "Keys of one answer to a listing.";
    TRANSITIONS_MAX: usize = 20, "Changes of a key's state that an explanation has at most.";
    COPY_LEASE_MS: u32 = 400, "Longest lease of a client's copies, in milliseconds: what a write waits at most for a client that says nothing. Less than half a node's bus lease, in which it lies.";
    COPIES_MAX: usize = 16_384, "Copies of one connection that a node keeps count of in a group; the value of one more is read and may not be kept.";
    NAME_BYTES_MAX: usize = 512, "Bytes of a queue's, lock's or client's name; above it `TooLarge`.";
    LEASE_MS_MAX: u32 = 86_400_000, "Longest lease of a lock in milliseconds, one day as in the REST contract; above it `InvalidArgument`.";
    WAIT_MS_FOREVER: u32 = u32::MAX, "The `wait_ms` of an acquire that waits for as long as it takes.";
    LOCKS_TOGETHER_MAX: usize = 64, "Locks of one acquire, release or renewal; above it `InvalidArgument`.";
    PERMITS_MAX: u32 = 1_000_000, "Permits of a semaphore; above it `InvalidArgument`.";
    LOCK_DELAY_MS_MAX: u32 = 60_000, "Longest delay of a lock after the end of its holder's lease, in milliseconds; above it `InvalidArgument`.";
    NOTE_BYTES_MAX: usize = 1024, "Bytes of what a holder says of itself; above it `TooLarge`.";
    LEFT_BYTES_MAX: usize = 1024, "Bytes of what a holder leaves for the next one; above it `TooLarge`.";
    SESSION_MS_MIN: u32 = 1_000, "Shortest time after which a session without a command ends, in milliseconds; below it `InvalidArgument`.";
    SESSION_MS_MAX: u32 = 600_000, "Longest time after which a session without a command ends, in milliseconds; above it `InvalidArgument`.";
    HOLDERS_SHOWN_MAX: usize = 64, "Holders that an explanation has at most.";
    WAITERS_SHOWN_MAX: usize = 64, "Waiters that an explanation has at most.";
    LOCKS_SHOWN_MAX: usize = 1_000, "Locks of one answer to a listing.";
    VISIBILITY_MS_MAX: u32 = 43_200_000, "Longest visibility timeout in milliseconds, 12 hours; above it `InvalidArgument`.";
    VISIBILITY_MS_DEFAULT: u32 = 30_000, "Visibility timeout where the request names none, in milliseconds.";
    BATCH_MAX: u32 = 256, "Messages of one dequeue; above it `InvalidArgument`.";
    DEQUEUE_BYTES_MAX: usize = 2 * 1024 * 1024, "Bytes of all bodies of one dequeue answer; what would go over it stays in the queue. Half a frame, so that the answer fits one frame even when it is forwarded between nodes.";
    PRIORITY_MAX: u8 = 31, "Highest priority of a message; above it `InvalidArgument`.";
    ORDER_KEY_BYTES_MAX: usize = 128, "Bytes of the key by which messages keep their order; above it `TooLarge`.";
    TENANT_BYTES_MAX: usize = 64, "Bytes of a tenant's name; above it `TooLarge`.";
    DEDUP_ID_BYTES_MAX: usize = 128, "Bytes of the id by which a message is taken once; above it `TooLarge`.";
    CONSUMER_BYTES_MAX: usize = 64, "Bytes of a consumer's name; above it `TooLarge`. Sixty-four of them share a record on disk.";
    REASON_BYTES_MAX: usize = 256, "Bytes of the reason for giving a message back; above it `TooLarge`.";
    DEDUP_WINDOW_MS_DEFAULT: u32 = 300_000, "For how long the id of a message is remembered where the queue's policy says nothing, in milliseconds.";
    DEDUP_WINDOW_MS_MAX: u32 = 604_800_000, "Longest window for ids of messages, in milliseconds, seven days; above it `InvalidArgument`.";
    WAIT_MS_MAX: u32 = 30_000, "Longest wait of a dequeue for messages, in milliseconds; above it `InvalidArgument`.";
    WEIGHTS_MAX: usize = 256, "Tenants whose weight a policy names; above it `InvalidArgument`.";
    WEIGHT_MAX: u32 = 1_000, "Highest weight of a tenant; above it `InvalidArgument`.";
    KEY_IN_FLIGHT_MAX: u32 = 1_000, "Highest number of messages of one key in flight that a policy allows; above it `InvalidArgument`.";
    PARTITIONS_MAX: u32 = 64, "Partitions of one queue; above it `InvalidArgument`.";
    HISTORY_MAX: usize = 16, "Deliveries that a message's history keeps; the oldest go.";
    PURGE_MAX: u32 = 10_000, "Messages that one purge removes.";
    REDRIVE_MAX: u32 = 10_000, "Dead messages that one redrive makes ready; above it `InvalidArgument`.";
    QUEUES_LISTED_MAX: usize = 1_000, "Queues of one answer to a listing.";
    CAUSES_MAX: usize = 16, "Causes of one explanation of a queue.";
    CREDIT_MAX: u32 = 4_096, "Deliveries that a subscription may have outstanding; a higher credit gets `InvalidArgument`.";
    SUBSCRIPTIONS_MAX: usize = 64, "Subscriptions of one connection; one more gets `Overloaded`.";
    BODY_DEPTH_MAX: usize = 32, "Nesting depth of a MessagePack body; above it `MalformedBody`. Our own messages reach 8.";
    IN_FLIGHT_MAX: usize = 4096, "Requests of one connection that wait for their answers; one more gets `TooManyInFlight`.";
    SESSION_WINDOW_MAX: u64 = 4096, "Distance of a session's newest sequence from its `acked_below`: a client waits rather than go beyond, where it may get `Overloaded`. Each number between may have an answer that the cluster keeps.";
    CONNECTIONS_MAX: usize = 16_384, "Connections of one node, clients and peers; one more gets `TooManyConnections` and is closed.";
    HANDSHAKE_MS_MAX: u64 = 2_000, "Milliseconds from the accepted connection to its complete handshake; after it the connection is closed.";
    DEADLINE_MS_DEFAULT: u32 = 5_000, "Milliseconds of a request without a deadline of its own.";
    DEADLINE_MS_MAX: u32 = 60_000, "Longest deadline a request may ask for, in milliseconds; a longer one is cut to it.";
    GROUPS_MAX: u32 = 256, "Groups of a cluster; above it `InvalidArgument`. Each is a replica with its own log and timers on every one of its nodes.";
    BACKUP_PART_BYTES_MAX: usize = 1024 * 1024, "Bytes of one part of a copy of a group's state.";
    BACKUPS_MAX: usize = 4, "Copies that one node makes at once; one more gets `Overloaded`.";
    BACKUP_IDLE_MS_MAX: u64 = 30_000, "Milliseconds after which a copy that nobody reads of is ended.";
}
