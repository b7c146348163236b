//! Power cuts at any moment, and what follows from syncs that are none.

use crate::disk::{Cut, Manner};
use crate::life::{Life, Start};
use crate::random::Random;
use crate::report::Report;

/// Cuts that one data directory lives through; then everything is asked for, and a new one is begun.
const CUTS_PER_LIFE: u64 = 12;
/// Of a hundred kills so many meet a start,
const START_PERCENT: u64 = 25;
/// and of the first ones in a life so many.
const FIRST_START_PERCENT: u64 = 50;
/// Of a hundred kills so many are followed by another start without a power cut: it reads what may be in the page cache only.
const KILL_ONLY_PERCENT: u64 = 30;

/// Starts and cuts, so often or until the node refuses, and looks at what is left.
async fn live(life: &mut Life, cuts: u64, manner: &Manner, random: &Random) -> Result<(), String> {
    for cut in 0..cuts {
        let mut random = random.part(cut);
        let mut again = true;
        while again {
            let start = match random.chance(if cut == 0 { FIRST_START_PERCENT } else { START_PERCENT }) {
                true => life.kill_at_start(manner, &mut random).await?,
                false => life.kill_under_load(manner, &mut random).await?,
            };
            if start == Start::Refused {
                return Ok(());
            }
            again = random.chance(KILL_ONLY_PERCENT);
        }
        life.cut(Cut::Some, &mut random);
    }
    life.look().await?;
    Ok(())
}

/// Cuts the power of nodes `cuts` times. An error says what was broken.
pub(crate) async fn run(cuts: u64, random: &Random) -> Result<Report, String> {
    let mut total = Report::default();
    let mut number = 0;
    while total.cuts < cuts {
        // A group alone has its checkpoints three times as often.
        let mut life = Life::new(if number % 3 == 2 { 1 } else { 3 });
        let left = cuts - total.cuts;
        let lived = live(&mut life, left.min(CUTS_PER_LIFE), &Manner::Good, &random.part(number)).await;
        let lived = lived.map_err(|broken| format!("life {number}, after {} cuts: {broken}", life.report.cuts));
        total.add(life.end(lived)?);
        number += 1;
    }
    Ok(total)
}

/// Ends the first start of nodes at each of its steps, or at every so many of them. With and without a power cut then, a node
/// begins anew and acknowledges something; and then a cut takes all that was not synced. No start may be refused.
pub(crate) async fn run_first_starts(stride: u64, random: &Random) -> Result<Report, String> {
    let mut total = Report::default();
    let mut random = random.part(0);
    let mut step = 1 + random.below(stride);
    loop {
        let mut dies = false;
        for cut_in_between in [false, true] {
            let mut life = Life::new(3);
            let lived = end_a_first_start(&mut life, step, cut_in_between, &mut random).await;
            let place = format!("a first start that ended at step {step}, cut in between: {cut_in_between}");
            let refusals = std::mem::take(&mut life.report.refusals);
            dies = matches!(lived, Ok(true));
            let lived = match lived {
                Err(broken) => Err(format!("{place}: {broken}")),
                Ok(_) if !refusals.is_empty() => Err(format!("{place}: refused: {refusals:?}")),
                Ok(_) => Ok(()),
            };
            total.add(life.end(lived)?);
        }
        if !dies {
            return Ok(total);
        }
        step += stride;
    }
}

/// False where the start has no such step.
async fn end_a_first_start(
    life: &mut Life,
    step: u64,
    cut_in_between: bool,
    random: &mut Random,
) -> Result<bool, String> {
    if !life.die_at_start(step).await? {
        return Ok(false);
    }
    if cut_in_between {
        life.cut(Cut::Some, random);
    }
    life.kill_under_load(&Manner::Good, random).await?;
    life.cut(Cut::All, random);
    life.look().await?;
    Ok(true)
}

/// Lives of nodes on a disk that does not heed fdatasync, until something that was acknowledged is missed.
pub(crate) async fn run_deaf(lives: u64, random: &Random) -> Option<String> {
    for number in 0..lives {
        let mut life = Life::new(3);
        // The first start is a good one: a directory that was never whole is refused, and nothing is missing from it.
        assert_eq!(life.look().await, Ok(Start::Killed), "a start on a good disk");
        let deaf = Manner::Deaf("fdatasync");
        if let Err(broken) = live(&mut life, CUTS_PER_LIFE, &deaf, &random.part(number)).await {
            return Some(broken);
        }
    }
    None
}
