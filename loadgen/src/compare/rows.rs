//! The rows of work, in one table.

use std::fmt::Write as _;

/// What one client of a row does over and over, and so what one unit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Acquire and release a lock of the client's own.
    OwnLock,
    /// Acquire and release the one lock that all want.
    HotLock,
    /// Put a batch into the one queue of the row, take one out of it, acknowledge that.
    Queue {
        /// Messages of a batch.
        batch: usize,
    },
    /// Half of the connections put messages into a queue, the others take and acknowledge them.
    Pipeline,
    /// Read one of some keys that every node has a copy of.
    Hit,
    /// Write a key that only this client writes.
    OwnedWrite,
    /// Write a key that the clients of two other nodes have just read.
    SharedWrite,
    /// Have something kept for good, then the next.
    Commit,
}

/// One row of work.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// What it is selected and shown by.
    pub(crate) name: &'static str,
    /// What its clients do.
    pub(crate) kind: Kind,
    /// Connections.
    pub(crate) clients: usize,
    /// Workers on each connection.
    pub(crate) in_flight: usize,
    /// Whether it is about a latency (its ratio is then of the medians of the latency) and not about a rate.
    pub(crate) is_latency: bool,
    /// What is counted, and what to know about it.
    pub(crate) note: &'static str,
}

const fn row(name: &'static str, kind: Kind, clients: usize, note: &'static str) -> Row {
    Row { name, kind, clients, in_flight: 1, is_latency: false, note }
}

/// Every row, in the order in which they are run and shown.
pub(crate) const ROWS: &[Row] = &[
    row("lock-own-1", Kind::OwnLock, 1, "acquire + release, as one; the lock is the client's own"),
    row("lock-own-32", Kind::OwnLock, 32, "the same, 32 clients with a lock each"),
    row("lock-own-128", Kind::OwnLock, 128, "the same, 128 clients with a lock each"),
    row(
        "lock-hot-32",
        Kind::HotLock,
        32,
        "acquire + release, as one, the wait included; etcd's acquire waits in line, who is refused elsewhere asks again after 2 ms",
    ),
    row("queue-32", Kind::Queue { batch: 1 }, 32, "enqueue + take + acknowledge, as one, on one queue"),
    Row {
        in_flight: 16,
        ..row(
            "queue-8x16",
            Kind::Pipeline,
            16,
            "messages that went all the way; 8 connections publish, 16 in flight on each, 8 more take and acknowledge; p50 is of the publish",
        )
    },
    row(
        "queue-batch-100",
        Kind::Queue { batch: 100 },
        8,
        "messages; 8 clients, p50 is of a batch of 100 from the first publish to the last acknowledgement; Trine: 100 pipelined enqueues, a dequeue of up to 100, pipelined acks",
    ),
    row(
        "hit-1x50",
        Kind::Hit,
        50,
        "reads; Trine's are hits of the cache of the node that is asked, any other counts as failed",
    ),
    Row { in_flight: 64, ..row("hit-64x50", Kind::Hit, 50, "the same, 64 in flight on each connection") },
    row(
        "write-owned-128",
        Kind::OwnedWrite,
        128,
        "writes; Trine's are on the owner's disk when answered, on a majority's within about a second",
    ),
    Row {
        is_latency: true,
        ..row(
            "write-two-sharers",
            Kind::SharedWrite,
            1,
            "one write; Trine's invalidates the copies of two other nodes first; the rate contains the reads of the two others before each",
        )
    },
    Row {
        is_latency: true,
        ..row(
            "commit-1",
            Kind::Commit,
            1,
            "one command after the other: enqueue (Trine), put (etcd), SET (Redis), publish (NATS)",
        )
    },
];

/// The row of a name.
pub(crate) fn find(name: &str) -> Result<&'static Row, String> {
    ROWS.iter().find(|row| row.name == name).ok_or_else(|| {
        let names: Vec<_> = ROWS.iter().map(|row| row.name).collect();
        format!("there is no row '{name}'; the rows are {}", names.join(", "))
    })
}

/// Every row with what it counts, a line each.
pub(crate) fn list() -> String {
    ROWS.iter().fold(String::new(), |mut out, row| {
        let _ = writeln!(out, "{:<18} {}", row.name, row.note);
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_and_are_different() {
        for row in ROWS {
            assert_eq!(find(row.name), Ok(row), "the first row of this name is another one");
            assert!(list().contains(row.name));
        }
        let error = find("lock-own-2").unwrap_err();
        assert!(error.contains("no row 'lock-own-2'") && error.contains("write-two-sharers"), "{error}");
    }

    #[test]
    fn the_clients_are_those_that_the_names_say() {
        let shape = |name| find(name).map(|row| (row.clients, row.in_flight)).unwrap();
        assert_eq!(
            ["lock-own-1", "lock-own-32", "lock-own-128", "lock-hot-32"].map(shape),
            [(1, 1), (32, 1), (128, 1), (32, 1)]
        );
        assert_eq!(["hit-1x50", "hit-64x50", "write-owned-128"].map(shape), [(50, 1), (50, 64), (128, 1)]);
        // 8 connections that publish, 16 in flight on each, and as many that take.
        assert_eq!(shape("queue-8x16"), (2 * 8, 16));
        let latency: Vec<_> = ROWS.iter().filter(|row| row.is_latency).map(|row| row.name).collect();
        assert_eq!(latency, ["write-two-sharers", "commit-1"]);
    }
}
