//! What happens to the messages on their way: they arrive, are lost, doubled or reversed, all or those that a filter names.

use goldenscript::ArgumentConsumer;

use super::{Result, key};
use crate::ids::NodeId;
use crate::raft::tests::cluster::{Cluster, Flight};
use crate::raft::tests::trace;
use crate::rules::Faithful;

pub(super) fn network(cluster: &mut Cluster<Faithful>, name: &str, arguments: &mut ArgumentConsumer<'_>) -> Result<()> {
    if name == "stabilize" {
        cluster.stabilize();
        return Ok(());
    }
    let from = key(arguments, "from")?.map(NodeId::numbered);
    let to = key(arguments, "to")?.map(NodeId::numbered);
    let only = arguments.take_key("only").map(str::to_owned);
    let count = std::cell::Cell::new(key(arguments, "count")?.unwrap_or(usize::MAX));
    let wanted = |flight: &Flight| {
        let text = trace::message(&flight.message, flight.message.term);
        let matches = from.is_none_or(|id| id == flight.from)
            && to.is_none_or(|id| id == flight.to)
            && only.as_ref().is_none_or(|kind| text.split(' ').next() == Some(kind.as_str()))
            && count.get() > 0;
        count.set(count.get() - usize::from(matches));
        matches
    };
    if name == "deliver" {
        // Together: the replica is asked what is to be done when it has heard them all.
        if arguments.next_pos() == Some("together") {
            cluster.deliver_together(wanted);
        } else {
            cluster.deliver(wanted);
        }
        return Ok(());
    }
    let (mut chosen, mut others): (Vec<Flight>, Vec<Flight>) =
        std::mem::take(&mut cluster.flights).into_iter().partition(wanted);
    match name {
        "drop" => chosen.clear(),
        "repeat" => chosen.extend(chosen.clone()),
        _ => chosen.reverse(),
    }
    others.extend(chosen);
    cluster.flights = others;
    Ok(())
}
