//! The closed loop: a worker sends its next request as soon as it has the answer to its last.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::{Clockwork, PAUSE_AFTER_FAILURE};
use crate::report::Report;
use crate::workload::{Worker, Workload};

/// Runs every worker to the end of the time.
pub(super) async fn run<W: Workload>(
    workload: &Arc<W>,
    workers: Vec<Worker<W::Connection>>,
    clockwork: &Arc<Clockwork>,
) -> Vec<Report> {
    let mut tasks = JoinSet::new();
    for mut worker in workers {
        let (workload, clockwork) = (Arc::clone(workload), Arc::clone(clockwork));
        worker.measure_from = clockwork.measure_from;
        tasks.spawn(async move {
            while !clockwork.is_over() {
                if !workload.round(&mut worker).await {
                    tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
                }
                worker.rounds += 1;
            }
            worker.report
        });
    }
    super::reports(tasks).await
}
