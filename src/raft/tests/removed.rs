//! A replica that was taken out while it was away.

use crate::ids::{NodeId, ReplicaId};
use crate::raft::Role;
use crate::rules::Faithful;

use super::cluster::Cluster;

fn id(number: usize) -> NodeId {
    NodeId::numbered(number)
}

/// Lets time pass, until it is so or ten seconds are over.
fn pass(cluster: &mut Cluster<Faithful>, done: impl Fn(&Cluster<Faithful>) -> bool) -> bool {
    for _ in 0..1_000 {
        if done(cluster) {
            return true;
        }
        cluster.now_us += 10_000;
        for id in cluster.ids() {
            cluster.input(id, |raft, now| raft.tick(now));
        }
        cluster.settle();
    }
    false
}

fn leads(cluster: &Cluster<Faithful>, number: usize) -> bool {
    cluster.raft(id(number)).is_some_and(|raft| raft.role() == Role::Leader && raft.committed_in_term())
}

fn knows(cluster: &Cluster<Faithful>) -> bool {
    cluster.raft(id(1)).is_some_and(|raft| !raft.membership().contains(ReplicaId::founder(id(1))))
}

/// Nodes 1, 2, 3 begin; while 1 is down, 4 and 5 take the places of 1 and 3, and 4 leads. 1 comes back and knows none of it.
fn taken_out_while_away() -> Cluster<Faithful> {
    let mut cluster = Cluster::<Faithful>::new(5, 1, |config| {
        config.voters.truncate(3);
        config.first = Some(id(2));
    });
    (1..=5).for_each(|number| cluster.start(id(number)));
    assert!(pass(&mut cluster, |cluster| leads(cluster, 2)));
    cluster.crash(id(1), usize::MAX);
    for voters in [[2, 3, 4], [2, 4, 5]] {
        let wanted = voters.map(|number| ReplicaId::founder(id(number)));
        let changed = cluster.input(id(2), |raft, now| raft.change(now, wanted.into(), [].into()));
        changed.expect("node 2 is up").expect("nothing is in the way");
        let over = |cluster: &Cluster<Faithful>| cluster.raft(id(2)).is_some_and(|raft| !raft.change_under_way());
        assert!(pass(&mut cluster, over));
    }
    cluster.input(id(2), |raft, now| raft.transfer_to(now, id(4)));
    assert!(pass(&mut cluster, |cluster| leads(cluster, 4)));
    cluster.start(id(1));
    cluster
}

#[test]
fn it_hears_of_it_from_a_leader_that_its_log_does_not_name() {
    let mut cluster = taken_out_while_away();
    let all = (1..=5).map(|number| ReplicaId::founder(id(number))).collect();
    cluster.input(id(1), |raft, _| raft.acquaint(all));
    assert!(pass(&mut cluster, knows), "{:?}", cluster.raft(id(1)).map(|raft| raft.membership().clone()));
}

#[test]
fn without_acquaintances_it_asks_those_who_may_not_tell() {
    let mut cluster = taken_out_while_away();
    assert!(!pass(&mut cluster, knows), "then the other test shows nothing");
    assert!(leads(&cluster, 4), "and it disturbs nobody");
}
