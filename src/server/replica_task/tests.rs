use std::collections::VecDeque;
use std::sync::Mutex;

use trine_protocol::cache::{Get, LineState, Version};
use trine_protocol::cluster::Kept;
use trine_protocol::{Request, Response};

use crate::cache::{LeaseTag, Line, LineChange, Versioned, Visits};
use crate::ids::NodeId;
use crate::node::message::GroupMessage;
use crate::raft::{self, SnapshotMeta};
use crate::transport::peer::Peer;

use super::*;

const GROUP: GroupId = GroupId(0);

/// Answers each input with the next effects of a script, and notes what it was given.
struct Scripted {
    script: VecDeque<Effects>,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Replicated for Scripted {
    fn handle_all(&mut self, inputs: &mut dyn Iterator<Item = (Now, Input)>) -> Effects {
        match inputs.next() {
            None | Some((_, Input::Tick)) => Effects::default(),
            Some((_, input)) => {
                let kind = format!("{input:?}").chars().take_while(|c| c.is_alphabetic()).collect();
                self.seen.lock().unwrap().push(kind);
                self.script.pop_front().unwrap_or_default()
            }
        }
    }

    fn status(&self, _: Now) -> GroupStatus {
        not_started(GROUP).status
    }

    fn is_released(&self) -> bool {
        false
    }

    fn is_drained(&self, _: Now) -> bool {
        self.script.is_empty()
    }

    fn sample(&self, _: Now) -> Sample {
        Sample::default()
    }

    fn commit_of_leader(&self) -> Option<Index> {
        None
    }

    fn take_ended_locks(&mut self) -> Vec<Ended> {
        Vec::new()
    }

    fn take_waited(&mut self) -> Vec<u64> {
        Vec::new()
    }
}

/// Notes, at each call, what had been done by then.
struct Watching {
    lines: Arc<SharedLines>,
    pending: Arc<Pending>,
    peer: Mutex<Peer>,
    log: Mutex<Vec<String>>,
}

impl Watching {
    fn note(&self, what: &str) {
        let has = |key| if self.lines.find(GROUP, key).is_some() { "there" } else { "absent" };
        let (old, new) = (has("old"), has("new"));
        let sent = self.peer.lock().unwrap().waiting();
        let waiting = self.pending.count();
        let line = format!("{what}: old {old}, new {new}, sent {sent}, waiting {waiting}");
        self.log.lock().unwrap().push(line);
    }
}

impl Disk for Watching {
    async fn persist(&self, write: Write) {
        self.note(&format!("persist {}", write.sequence));
    }

    async fn checkpoint(&self, _: Checkpoint) {
        self.note("checkpoint");
    }

    async fn fetch(&self, _: Fetch) {
        self.note("fetch");
    }
}

struct Bench {
    inbox: Arc<Inbox>,
    disk: Arc<Watching>,
    seen: Arc<Mutex<Vec<String>>>,
    standing: watch::Receiver<Standing>,
    pending: Arc<Pending>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

static FATAL: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn start(script: impl FnOnce(&Arc<Pending>, &Arc<SharedLines>) -> Vec<Effects>) -> Bench {
    let lines = Arc::new(SharedLines::new(1));
    let pending = Arc::new(Pending::default());
    let (outbox, mut peers) = Outbox::new([(NodeId::numbered(2), "unused:1".to_owned())]);
    let script = script(&pending, &lines).into();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let peer = Mutex::new(peers.remove(0));
    let (log, inbox) = (Mutex::default(), Arc::new(Inbox::default()));
    let disk = Arc::new(Watching { lines: Arc::clone(&lines), pending: Arc::clone(&pending), peer, log });
    let (sender, standing) = watch::channel(not_started(GROUP));
    let shell = Shell {
        group: GROUP,
        inbox: Arc::clone(&inbox),
        lines,
        pending: Arc::clone(&pending),
        outbox,
        disk: Arc::clone(&disk),
        standing: sender,
        heard: watch::channel(crate::node::Roster::default()).0,
        main_memory: None,
        meter: Meter::new(GROUP),
        watch: Watch::default(),
        fatal: |reason| FATAL.lock().unwrap().push(reason.to_owned()),
    };
    let stop = CancellationToken::new();
    let task = tokio::spawn(run(Scripted { script, seen: Arc::clone(&seen) }, shell, stop.clone()));
    Bench { inbox, disk, seen, standing, pending, stop, task }
}

fn line(key: &str) -> LineChange {
    let value = Versioned::new(Version::default(), None);
    LineChange::Put(key.to_owned(), Line { state: LineState::S, value, tag: tag(), visits: Visits::default() })
}

fn tag() -> LeaseTag {
    LeaseTag { term: 1, number: 1 }
}

fn write(sequence: u64) -> Write {
    Write { group: GROUP, sequence, raft: None, journal: Vec::new(), compact: None }
}

#[tokio::test]
async fn effects_are_performed_in_the_order_of_their_fields() {
    let mut place = None;
    let bench = start(|pending, lines| {
        lines.apply(GROUP, vec![LineChange::Lease(tag(), u64::MAX), line("old")]);
        let entered = pending.enter(&Request::from(Get { key: "k".into() })).unwrap();
        let message = raft::Message::new(1, raft::Body::TimeoutNow);
        let effects = Effects {
            retract: vec![LineChange::Drop("old".to_owned())],
            persist: vec![write(1), write(2)],
            publish: vec![line("new")],
            send: vec![(NodeId::numbered(2), Arc::new(GroupMessage::Raft(message)))],
            reply: vec![(entered.id(), Ok(Response::KeepAlive(Kept {})))],
            checkpoint: vec![Checkpoint {
                group: GROUP,
                meta: SnapshotMeta::default(),
                changes: Vec::new(),
                whole: false,
            }],
            fetch: vec![Fetch { group: GROUP, ticket: 1, keys: Vec::new() }],
            ..Effects::default()
        };
        place = Some(entered);
        vec![effects]
    });
    bench.inbox.persisted(1);
    let answer = place.as_mut().unwrap().answer().await;
    assert_eq!(answer, Some(Ok(Response::KeepAlive(Kept {}))));
    let mut standing = bench.standing.clone();
    standing.wait_for(|standing| standing.drained).await.unwrap();
    let log = bench.disk.log.lock().unwrap().clone();
    let expected = [
        "persist 1: old absent, new absent, sent 0, waiting 1",
        "persist 2: old absent, new absent, sent 0, waiting 1",
        "checkpoint: old absent, new there, sent 1, waiting 0",
        "fetch: old absent, new there, sent 1, waiting 0",
    ];
    assert_eq!(log, expected);
    bench.stop.cancel();
    bench.task.await.unwrap();
}

#[tokio::test]
async fn a_replica_that_cannot_go_on_stops_the_node_before_anything_else() {
    let bench = start(|_, _| {
        let fatal = Some("the state cannot be read".to_owned());
        vec![Effects { persist: vec![write(1)], fatal, ..Effects::default() }, Effects::default()]
    });
    bench.inbox.persisted(1);
    bench.inbox.drain();
    bench.task.await.unwrap();
    assert_eq!(*FATAL.lock().unwrap(), ["g0: the state cannot be read"]);
    assert_eq!(*bench.disk.log.lock().unwrap(), [""; 0], "nothing of that step is performed");
    assert_eq!(*bench.seen.lock().unwrap(), ["Persisted"], "and nothing after it is handled");
    assert_eq!(bench.pending.count(), 0);
}

#[tokio::test]
async fn a_full_inbox_is_worked_off_without_another_wake() {
    let bench = start(|_, _| Vec::new());
    for _ in 0..3 * INPUTS_PER_TURN_MAX {
        assert!(bench.inbox.peer(
            NodeId::numbered(2),
            GroupMessage::Raft(raft::Message::new(1, raft::Body::TimeoutNow)),
            1
        ));
    }
    bench.inbox.drain();
    let all = async {
        while bench.seen.lock().unwrap().len() < 3 * INPUTS_PER_TURN_MAX + 1 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), all).await.unwrap();
    bench.stop.cancel();
    bench.task.await.unwrap();
}
