//! What every row obeys, whatever the file says.

use trine_protocol::cache::LineState;
use trine_protocol::{ErrorCode, Response};

use super::node::Bench;
use crate::cache::tests::show::KEY;
use crate::cache::{AgentOut, HomeOut, LineChange, Snooped, ToHome, ToNode};

/// A row of the node's side: the agent after it, and what came out.
pub(super) fn node(start: &str, event: &str, bench: &Bench, out: &AgentOut) {
    let row = format!("'{event}' when {start}: {out:?}");
    let state = bench.agent.state_name(KEY);
    let leased = bench.agent.valid_tag(bench.now_us).is_some();
    let readable = bench.lines.find(KEY);
    assert_eq!(readable.is_some(), matches!(state, "S" | "E" | "M"), "{state}: readers see the line: {row}");
    assert!(leased || readable.is_none(), "a line is served without a lease: {row}");
    let acknowledged = |wanted: fn(&Snooped) -> bool| {
        out.to_home.iter().any(|it| matches!(it, ToHome::SnoopAck { snooped, .. } if wanted(snooped)))
    };
    if event == "SnoopInv of a copy" {
        assert!(acknowledged(|it| *it == Snooped::Gone), "an invalidation is not acknowledged: {row}");
        assert!(!matches!(state, "S" | "E"), "a copy outlives its invalidation: {row}");
    }
    if event.contains("of owner") {
        let waits = event.ends_with("owner 9") && bench.agent.show(KEY).contains("pending leaving");
        assert!(
            waits != acknowledged(|it| *it != Snooped::Gone),
            "one answer, now or when the journal is flushed: {row}"
        );
    }
    for change in &out.publish {
        let LineChange::Put(key, line) = change else { continue };
        let local = key == KEY && line.state == LineState::M && line.value.version.count > 0;
        assert!(!local || event.starts_with("journal flushed"), "a local write is seen before its journal: {row}");
        assert!(leased, "a line is published without a lease: {row}");
    }
    for (_, result) in &out.reply {
        let got = matches!(result, Ok(Response::Get(_)));
        assert!(leased || !got, "a read is answered without a lease: {row}");
        let refused = result.as_ref().is_err_and(|error| error.code == ErrorCode::BusLeaseLapsed);
        assert!(!(leased && refused), "a client is refused under a lease: {row}");
    }
    let asks = |it: &ToHome| matches!(it, ToHome::BusRd { .. } | ToHome::BusRdX { .. } | ToHome::WriteBack { .. });
    assert!(leased || !out.to_home.iter().any(asks), "the home is asked without a lease: {row}");
}

/// A row of the home's side: the state after it, and what came out.
pub(super) fn home(start: &str, event: &str, state: &str, out: &HomeOut) {
    let row = format!("'{event}' when {start}: {out:?}, then '{state}'");
    let leads = !event.starts_with("leader lease lost");
    for (node, message) in &out.to_node {
        let node = crate::cache::tests::show::node(*node);
        match message {
            ToNode::Filled { state: kept, .. } => {
                assert!(leads, "a fill without the leader lease: {row}");
                let copies = format!(" at {node}");
                assert!(*kept != LineState::E || state.contains(&format!("E{copies}")), "who has it alone? {row}");
            }
            ToNode::Registered { .. } | ToNode::Renewed { .. } => assert!(leads, "a lease without the leader's: {row}"),
            ToNode::Owned { owns: true, .. } => {
                assert!(!state.contains(" at "), "an owner beside copies: {row}");
                assert!(state.starts_with(&format!("{node} owns")), "the log says otherwise: {row}");
            }
            ToNode::WrittenBack { ended: true, state: kept, .. } if *kept != LineState::I => {
                assert!(state.contains(&node) && leads, "a copy that the home does not know of: {row}");
            }
            _ => {}
        }
    }
}
