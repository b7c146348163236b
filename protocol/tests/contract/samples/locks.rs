//! The lock manager's messages beyond the plain ones.

use bytes::Bytes;
use trine_protocol::command::RequestHeader;
use trine_protocol::limits::WAIT_MS_FOREVER;
use trine_protocol::lock::{
    Acquire, Cancel, Cancelled, ClientExplained, ClientHold, ClientWait, Ending, ExplainClient, ExplainLock, Fence,
    Fenced, ForceRelease, ForceReleased, Granted, HolderView, Inspect, ListLocks, LockExplained, LockPage, LockView,
    Mode, Observe, Observed, Previous, Release, Released, Renew, WaiterView,
};
use trine_protocol::{Request, Response};

fn lock() -> String {
    "billing/7".to_string()
}

fn acquire() -> Acquire {
    Acquire::new(lock(), "c1", 10_000)
}

fn note() -> Bytes {
    Bytes::from_static(b"10.0.0.7:80")
}

pub(super) fn requests(header: RequestHeader, read: RequestHeader) -> Vec<(&'static str, RequestHeader, Request)> {
    let everything = Acquire {
        mode: Mode::Permits { count: 2, of: 5 },
        wait_ms: WAIT_MS_FOREVER,
        also: vec!["billing/8".into()],
        reenter: 99,
        through_session: true,
        delay_ms: 500,
        note: note(),
        ..acquire()
    };
    let client = || "c1".to_string();
    let cancel =
        Cancel { lock: lock(), sequence: 2, client: client(), give_back: true, also: vec!["billing/8".into()] };
    let release = Release { lock: lock(), client: client(), token: 99, ..Release::default() };
    let renew = Renew { lock: lock(), client: client(), token: 99, lease_ms: 10_000, also: vec![] };
    vec![
        ("inspect", read, Inspect { lock: lock() }.into()),
        ("acquire", header, acquire().into()),
        ("release", header, release.into()),
        ("renew", header, renew.into()),
        ("acquire: shared, waiting", header, Acquire { mode: Mode::Shared, wait_ms: 5_000, ..acquire() }.into()),
        ("acquire: everything", header, everything.into()),
        (
            "release: everything",
            header,
            Release {
                lock: lock(),
                client: client(),
                token: 99,
                left: Bytes::from_static(b"page 17"),
                also: vec!["billing/8".into()],
            }
            .into(),
        ),
        (
            "renew: several",
            header,
            Renew { lock: lock(), client: client(), token: 99, lease_ms: 10_000, also: vec!["billing/8".into()] }
                .into(),
        ),
        ("cancel", header, cancel.into()),
        ("force release", header, ForceRelease { lock: lock() }.into()),
        ("fence", read, Fence { resource: "billing/disk".into(), token: 99 }.into()),
        ("explain lock", read, ExplainLock { lock: lock() }.into()),
        ("explain client", read, ExplainClient { group: 2, client: client() }.into()),
        ("list locks", read, ListLocks { group: 2, prefix: "billing/".into(), after: lock() }.into()),
        ("observe", read, Observe { lock: lock(), seen: u64::MAX }.into()),
    ]
}

pub(super) fn responses() -> Vec<(&'static str, Response)> {
    let previous = |ending| Previous {
        lock: lock(),
        ending,
        client: "c0".into(),
        token: 90,
        left: Bytes::from_static(b"page 17"),
    };
    let endings = [Ending::Released, Ending::Expired, Ending::Forced];
    let holder = || HolderView {
        client: "c1".into(),
        token: 99,
        mode: Mode::Exclusive,
        held_ms: 1_800,
        lease_left_ms: 3_200,
        session: 0,
        depth: 1,
        note: note(),
    };
    let waiter = || WaiterView {
        client: "c2".into(),
        mode: Mode::Permits { count: 1, of: 3 },
        waited_ms: 700,
        gives_up_in_ms: 0,
        locks: vec![lock(), "billing/8".into()],
    };
    let explained = LockExplained {
        group: 2,
        holders: vec![holder()],
        holders_total: 1,
        waiters: vec![waiter()],
        waiters_total: 1,
        delayed_ms: 0,
        previous: Some(previous(Ending::Expired)),
    };
    let wait =
        ClientWait { lock: lock(), wait: waiter(), behind: vec!["c3".into()], holders: vec![holder()], delayed_ms: 0 };
    let view = LockView { lock: lock(), holder: Some(holder()), holders: 1, waiters: 1, waited_ms: 700 };
    let free = LockView { holder: None, holders: 0, ..view.clone() };
    vec![
        (
            "answer to acquire, after others",
            Response::Acquire(Granted {
                token: 99,
                lease_ms: 10_000,
                depth: 2,
                previous: endings.map(previous).to_vec(),
            }),
        ),
        ("answer to release, to be released again", Response::Release(Released { was_held: true, depth: 1 })),
        ("answer to cancel", Response::Cancel(Cancelled { was_waiting: false, token: 99 })),
        ("answer to force release", Response::ForceRelease(ForceReleased { holders: vec!["c1".into()], token: 100 })),
        ("answer to fence", Response::Fence(Fenced { before: 90 })),
        ("answer to explain lock", Response::ExplainLock(explained)),
        ("answer to explain lock, nothing known", Response::ExplainLock(LockExplained::default())),
        (
            "answer to explain client",
            Response::ExplainClient(ClientExplained {
                holds: vec![ClientHold { lock: lock(), hold: holder(), waiters: 1 }],
                waits: vec![wait],
            }),
        ),
        ("answer to list locks", Response::ListLocks(LockPage { locks: vec![view, free], more: true })),
        ("answer to observe", Response::Observe(Observed { client: "c1".into(), token: 99, note: note() })),
    ]
}
