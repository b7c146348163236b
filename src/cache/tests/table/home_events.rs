//! Everything that can happen to a home.

use trine_protocol::{Error, ErrorCode};

use super::home::{Bench, life};
use crate::cache::{Applied, Committed, Config, HomeOut, ToHome};
use crate::ids::Incarnation;

/// An event by its name. Where it takes several steps, the last one is what the table shows.
pub(super) type Event = (&'static str, fn(&mut Bench) -> HomeOut);

pub(super) const EVENTS: [Event; 50] = [
    // Requests.
    ("BusRd of n1", |b| b.reads(1)),
    ("BusRd of n2", |b| b.reads(2)),
    ("BusRd of n3", |b| b.reads(3)),
    ("BusRd of n3, under a lease that is over", |b| {
        b.runs_out(&[3]);
        b.reads(3)
    }),
    ("BusRdX of n1, a new one", |b| b.writes(1, 2)),
    ("BusRdX of n2, a new one", |b| b.writes(2, 2)),
    ("BusRdX of n3, a new one", |b| b.writes(3, 2)),
    ("BusRdX of n1, its first again", |b| b.writes(1, 1)),
    ("BusRdX of n2, its first again", |b| b.writes(2, 1)),
    ("BusRdX of n3, its first again", |b| b.writes(3, 1)),
    ("WriteBack of n1, keeps", |b| b.writes_back(1, 0, false)),
    ("WriteBack of n1, ends", |b| b.writes_back(1, 0, true)),
    ("WriteBack of n1, of an older epoch", |b| b.writes_back(1, 1, true)),
    ("WriteBack of n2, ends", |b| b.writes_back(2, 0, true)),
    // Answers to snoops.
    ("SnoopAck of n1: Gone", |b| b.acknowledges(1, 0, life(1), "gone")),
    ("SnoopAck of n2: Gone", |b| b.acknowledges(2, 0, life(2), "gone")),
    ("SnoopAck of n2: Gone, after that of n1", |b| {
        b.acknowledges(1, 0, life(1), "gone");
        b.acknowledges(2, 0, life(2), "gone")
    }),
    ("SnoopAck of n1: Clean", |b| b.acknowledges(1, 0, life(1), "clean")),
    ("SnoopAck of n1: Dirty", |b| b.acknowledges(1, 0, life(1), "dirty")),
    ("SnoopAck of n1: Dirty, of an older epoch", |b| b.acknowledges(1, 0, life(1), "older")),
    ("SnoopAck of n2: Clean", |b| b.acknowledges(2, 0, life(2), "clean")),
    ("SnoopAck of n2: Dirty", |b| b.acknowledges(2, 0, life(2), "dirty")),
    ("SnoopAck of n1: Gone, of another transaction", |b| b.acknowledges(1, 1, life(1), "gone")),
    ("SnoopAck of n1: Clean, of another transaction", |b| b.acknowledges(1, 1, life(1), "clean")),
    ("SnoopAck of n1: Gone, of another life", |b| b.acknowledges(1, 0, Incarnation(11), "gone")),
    ("SnoopAck of n1: Clean, of another life", |b| b.acknowledges(1, 0, Incarnation(11), "clean")),
    // The log.
    ("entry applied", Bench::applied),
    ("entry applied twice", |b| {
        b.applied();
        b.applied()
    }),
    ("entry void", |b| b.committed(|_, _, _| Committed::Applied(Applied::Void))),
    ("entry repeated: done before, as epoch 3", |b| b.not_applied(Committed::Repeated(Applied::Owned(3)))),
    ("entry refused by its session", |b| b.not_applied(Committed::Refused(Error::new(ErrorCode::OutcomeUnknown, "")))),
    ("entry not taken by the log", Bench::refused),
    // Leases.
    ("the time of a retry passes", |b| {
        b.now_us += Config::default().retry_us;
        b.ticks()
    }),
    ("the lease of n1 runs out", |b| {
        b.runs_out(&[1]);
        b.ticks()
    }),
    ("the lease of n2 runs out", |b| {
        b.runs_out(&[2]);
        b.ticks()
    }),
    ("all leases run out", |b| {
        b.runs_out(&[1, 2, 3]);
        b.ticks()
    }),
    ("Register of n1", |b| b.registers(1, life(1))),
    ("Register of n1, then a tick", |b| {
        b.registers(1, life(1));
        b.ticks()
    }),
    ("Register of n1, late", |b| b.hears(1, ToHome::Register { incarnation: life(1), round: 1, home: b.term() })),
    ("Register of n1, in another life", |b| b.registers(1, Incarnation(12))),
    ("Renew of n1", |b| b.hears(1, ToHome::Renew { tag: b.tag(1), round: b.now_us })),
    ("Release of n1", |b| b.hears(1, ToHome::Release { incarnation: life(1), tag: b.tag(1) })),
    ("Leave of n1", |b| b.hears(1, ToHome::Leave { incarnation: life(1), tag: b.tag(1) })),
    ("Leave of n1, then a tick", |b| {
        b.hears(1, ToHome::Leave { incarnation: life(1), tag: b.tag(1) });
        b.ticks()
    }),
    // Without the leader lease.
    ("leader lease lost: BusRd of n3", |b| {
        b.leads_no_more();
        b.reads(3)
    }),
    ("leader lease lost: BusRdX of n3", |b| {
        b.leads_no_more();
        b.writes(3, 2)
    }),
    ("leader lease lost: Renew of n1", |b| {
        b.leads_no_more();
        b.hears(1, ToHome::Renew { tag: b.tag(1), round: b.now_us })
    }),
    ("leader lease lost: SnoopAck of n1: Clean", |b| {
        b.leads_no_more();
        b.acknowledges(1, 0, life(1), "clean")
    }),
    ("leader lease lost: entry applied", |b| {
        b.leads_no_more();
        b.applied()
    }),
    ("leader lease lost: a retry's time passes", |b| {
        b.leads_no_more();
        b.now_us += Config::default().retry_us;
        b.ticks()
    }),
];
