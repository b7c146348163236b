//! The order of things: row by row, run by run, Trine and then its peers, and what the program ends with.

use std::process::ExitCode;
use std::time::Duration;

use crate::clock;
use crate::workload::Failure;

use super::Arguments;
use super::contenders::{self, Contender};
use super::figures::{Comparison, Sample, Trials, exit_code};
use super::meter::Meter;
use super::rows::{ROWS, Row};
use super::{json, table};

/// How often and how long.
#[derive(Clone, Copy, Debug)]
struct Effort {
    runs: u32,
    seconds: Duration,
}

/// Runs the rows that were asked for, prints the table or the array, and says how it ended.
pub(super) async fn main(arguments: &Arguments) -> ExitCode {
    let rows = if arguments.rows.is_empty() { ROWS.iter().collect() } else { arguments.rows.clone() };
    let effort = Effort { runs: arguments.runs, seconds: Duration::from_secs(arguments.seconds.into()) };
    let mut comparisons = Vec::new();
    for row in rows {
        let (ours, peers) = contenders::of(row, arguments);
        match compare(row, &ours, &peers, effort).await {
            Ok(compared) => comparisons.extend(compared),
            Err(failure) => {
                eprintln!("trine-loadgen: {}: Trine did not run it: {failure}", row.name);
                return ExitCode::FAILURE;
            }
        }
    }
    if arguments.json {
        println!("{}", json::json(&comparisons));
        eprint!("{}", table::troubles(&comparisons));
    } else {
        print!("{}", table::table(&comparisons));
    }
    ExitCode::from(exit_code(&comparisons))
}

/// All runs of one row.
///
/// # Errors
/// Where Trine is not there: nothing can be compared then.
async fn compare(
    row: &'static Row,
    ours: &Contender,
    peers: &[Contender],
    effort: Effort,
) -> Result<Vec<Comparison>, Failure> {
    let mut our_trials = Trials::default();
    let mut their_trials = vec![Trials::default(); peers.len()];
    for run in 1..=effort.runs {
        let sample = trial(ours, effort.seconds).await;
        say(row, run, effort, ours, &sample);
        our_trials.add(Ok(sample?));
        for (peer, trials) in peers.iter().zip(&mut their_trials) {
            // Who was not there is not asked again: it would have no figures all the same.
            if trials.absent().is_none() {
                let sample = trial(peer, effort.seconds).await;
                say(row, run, effort, peer, &sample);
                trials.add(sample.map_err(|failure| failure.to_string()));
            }
        }
    }
    let compared = peers.iter().zip(their_trials).map(|(peer, theirs)| {
        let (peer, keeps) = (peer.name, peer.keeps);
        Comparison { row, ours: our_trials.clone(), peer, keeps, theirs }
    });
    Ok(compared.collect())
}

async fn trial(contender: &Contender, seconds: Duration) -> Result<Sample, Failure> {
    (contender.trial)(Meter::new(seconds), clock::run_number()).await
}

/// Shows how far it is: all rows take a quarter of an hour.
fn say(row: &Row, run: u32, effort: Effort, contender: &Contender, sample: &Result<Sample, Failure>) {
    let Effort { runs, .. } = effort;
    let (work, name) = (row.name, contender.name);
    match sample {
        Ok(sample) => {
            let shown = |ms: Option<f64>| ms.map_or_else(|| "-".into(), |ms| format!("{ms:.3}"));
            let (p50, p99) = (shown(sample.p50_ms), shown(sample.p99_ms));
            let failed = sample.failed_share * 100.0;
            eprintln!(
                "{work} {run}/{runs} {name}: {:.0}/s, p50 {p50} ms, p99 {p99} ms, {failed:.2} % failed",
                sample.rate
            );
            for error in &sample.errors {
                eprintln!("{work} {run}/{runs} {name}: {error}");
            }
        }
        Err(failure) => eprintln!("{work} {run}/{runs} {name}: not there: {failure}"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex};

    use bytes::Bytes;

    use super::super::peers::redis::{Persistence, Redis};
    use super::super::rows;
    use super::super::systems::{Store, System};
    use super::*;

    const EFFORT: Effort = Effort { runs: 3, seconds: Duration::from_millis(100) };

    /// A store in this process, which refuses every `refused_every`th write.
    #[derive(Clone, Default)]
    struct Memory {
        values: Arc<Mutex<BTreeMap<String, Bytes>>>,
        refused_every: Option<u64>,
        is_far: bool,
        writes: Arc<std::sync::atomic::AtomicU64>,
        trials: Arc<std::sync::atomic::AtomicU64>,
    }

    impl System for Memory {
        type Connection = ();

        async fn connect(&self, number: usize) -> Result<(), Failure> {
            self.trials.fetch_add(u64::from(number == 0), std::sync::atomic::Ordering::Relaxed);
            Ok(())
        }
    }

    impl Store for Memory {
        async fn write(&self, (): &(), key: &str, value: Bytes) -> Result<(), Failure> {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let write = 1 + self.writes.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            if self.refused_every.is_some_and(|every| write % every == 0) {
                return Err(Failure { name: "Full", unknown: false, text: "no room left".into() });
            }
            self.values.lock().unwrap().insert(key.into(), value);
            Ok(())
        }

        async fn read(&self, (): &(), key: &str) -> Result<bool, Failure> {
            Ok(self.values.lock().unwrap().contains_key(key) && !self.is_far)
        }

        async fn warm(&self, (): &(), _key: &str) -> Result<(), Failure> {
            Ok(())
        }

        async fn remove(&self, (): &(), key: &str) -> Result<(), Failure> {
            self.values.lock().unwrap().remove(key);
            Ok(())
        }
    }

    fn contender(name: &'static str, system: impl Store + Clone, row: &'static Row) -> Contender {
        Contender::store((name, "this process"), system, row)
    }

    /// A port that nobody listens on: one that was just given back.
    fn nobody() -> String {
        std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
    }

    fn parsed(compared: &[Comparison]) -> serde_json::Value {
        serde_json::from_str(&json::json(compared)).unwrap()
    }

    #[tokio::test]
    async fn a_peer_that_is_not_there_is_null_and_the_end_is_2() {
        let row = rows::find("write-owned-128").unwrap();
        let address = nobody();
        let (ours, twin) = (Memory::default(), Memory::default());
        let peers =
            [contender("away", Redis::new(&address, Persistence::None), row), contender("twin", twin.clone(), row)];
        let compared = compare(row, &contender("ours", ours.clone(), row), &peers, EFFORT).await.unwrap();
        assert_eq!(exit_code(&compared), 2);
        let json = parsed(&compared);
        for figure in ["peer_rate", "peer_p50_ms", "ratio"] {
            assert!(json[0][figure].is_null(), "{json}");
            assert!(json[1][figure].as_f64().is_some_and(|figure| figure > 0.0), "{json}");
        }
        assert!(json[0]["ours"].as_f64().is_some_and(|rate| rate > 0.0), "{json}");
        assert!(table::table(&compared).contains(&address), "it says where it looked");
        // Each connects once for the preparation and once as the first of its clients, in each of the runs.
        let trials = |memory: &Memory| memory.trials.load(std::sync::atomic::Ordering::Relaxed);
        assert_eq!((trials(&ours), trials(&twin)), (2 * 3, 2 * 3));
        assert!(ours.values.lock().unwrap().is_empty(), "what a run made is removed");
    }

    #[tokio::test]
    async fn without_ours_there_is_nothing_to_compare() {
        let row = rows::find("write-owned-128").unwrap();
        let ours = contender("ours", Redis::new(&nobody(), Persistence::None), row);
        let failure = compare(row, &ours, &[contender("twin", Memory::default(), row)], EFFORT).await.unwrap_err();
        assert_eq!(failure.name, "Connect");
    }

    #[tokio::test]
    async fn failures_are_shown_with_their_text_and_take_the_ratio_away() {
        let row = rows::find("write-owned-128").unwrap();
        let failing = Memory { refused_every: Some(10), ..Memory::default() };
        let peers = [contender("failing", failing, row)];
        let compared = compare(row, &contender("ours", Memory::default(), row), &peers, EFFORT).await.unwrap();
        let json = parsed(&compared);
        assert!(json[0]["ratio"].is_null() && json[0]["peer_rate"].is_f64(), "{json}");
        assert!(table::table(&compared).contains("Full: no room left"));
        assert_eq!(exit_code(&compared), 1);
    }

    #[tokio::test]
    async fn a_rate_is_of_the_measured_seconds_alone() {
        let row = rows::find("write-two-sharers").unwrap();
        let compared =
            compare(row, &contender("ours", Memory::default(), row), &[], Effort { runs: 1, ..EFFORT }).await.unwrap();
        assert!(compared.is_empty());
        let sample = trial(&contender("ours", Memory::default(), row), Duration::from_millis(200)).await.unwrap();
        // One write after the other, each a millisecond or a little more: not those of the warm-up, which are twice as many.
        assert!(sample.rate > 100.0 && sample.rate <= 1000.0, "{sample:?}");
        assert!(sample.p50_ms.is_some_and(|p50_ms| (1.0..10.0).contains(&p50_ms)), "{sample:?}");
    }

    #[tokio::test]
    async fn a_miss_is_no_hit() {
        let row = rows::find("hit-1x50").unwrap();
        let far = Memory { is_far: true, ..Memory::default() };
        let sample = trial(&contender("far", far, row), Duration::from_millis(200)).await.unwrap();
        assert_eq!((sample.rate, sample.failed_share), (0.0, 1.0), "{sample:?}");
        assert!(sample.errors[0].starts_with("Miss: "), "{sample:?}");
        let near = trial(&contender("near", Memory::default(), row), Duration::from_millis(200)).await.unwrap();
        assert!(near.rate > 0.0 && near.errors.is_empty(), "{near:?}");
    }
}
