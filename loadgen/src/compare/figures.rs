//! From samples to what is shown: medians, ratios, marks, the exit code.

use super::rows::Row;

/// Share of failed operations above which a figure is marked and not compared.
pub(super) const FAILED_SHARE_MAX: f64 = 0.01;

/// One run of one row on one system.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sample {
    /// Units per second.
    pub(super) rate: f64,
    /// Median latency in milliseconds; None where nothing succeeded.
    pub(super) p50_ms: Option<f64>,
    /// The latency that 1 % of the operations exceed.
    pub(super) p99_ms: Option<f64>,
    /// Operations that failed, of all.
    pub(super) failed_share: f64,
    /// What failed operations said, one text of each kind.
    pub(super) errors: Vec<String>,
}

/// All runs of one row on one system.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Trials {
    samples: Vec<Sample>,
    absent: Option<String>,
}

impl Trials {
    /// Adds a run, or why there was none. A system that was away once has no figures: two runs are no three.
    pub(super) fn add(&mut self, run: Result<Sample, String>) {
        match run {
            Ok(sample) => self.samples.push(sample),
            Err(why) => self.absent = Some(why),
        }
    }

    /// Why the system has no figures.
    pub(super) fn absent(&self) -> Option<&str> {
        self.absent.as_deref()
    }

    /// The median over the runs of the rate.
    pub(super) fn rate(&self) -> Option<f64> {
        self.figure(|sample| Some(sample.rate))
    }

    /// The median over the runs of the median latency.
    pub(super) fn p50_ms(&self) -> Option<f64> {
        self.figure(|sample| sample.p50_ms)
    }

    /// The median over the runs of the 99th percentile.
    pub(super) fn p99_ms(&self) -> Option<f64> {
        self.figure(|sample| sample.p99_ms)
    }

    /// None where the system was away, or where a run has no such figure.
    fn figure(&self, of: impl Fn(&Sample) -> Option<f64>) -> Option<f64> {
        if self.absent.is_some() {
            return None;
        }
        median(self.samples.iter().map(of).collect::<Option<Vec<f64>>>()?)
    }

    /// The highest share of failed operations of a run.
    pub(super) fn failed_share(&self) -> f64 {
        self.samples.iter().map(|sample| sample.failed_share).fold(0.0, f64::max)
    }

    /// Whether too much failed for its figures to be compared.
    pub(super) fn is_marked(&self) -> bool {
        self.failed_share() > FAILED_SHARE_MAX
    }

    /// Each text of a failure once.
    pub(super) fn errors(&self) -> Vec<&str> {
        let mut errors: Vec<_> =
            self.samples.iter().flat_map(|sample| sample.errors.iter().map(String::as_str)).collect();
        errors.sort_unstable();
        errors.dedup();
        errors
    }
}

/// The middle one, or the mean of the two in the middle.
fn median(mut figures: Vec<f64>) -> Option<f64> {
    figures.sort_unstable_by(f64::total_cmp);
    let middle = figures.len() / 2;
    match figures.len() {
        0 => None,
        length if length % 2 == 1 => Some(figures[middle]),
        _ => Some(f64::midpoint(figures[middle - 1], figures[middle])),
    }
}

/// What is shown of one row and one peer.
#[derive(Clone, Debug)]
pub(super) struct Comparison {
    /// Which work.
    pub(super) row: &'static Row,
    /// Our runs, the same for all peers of the row.
    pub(super) ours: Trials,
    /// The peer's name.
    pub(super) peer: &'static str,
    /// What an answer of the peer means.
    pub(super) keeps: &'static str,
    /// The peer's runs.
    pub(super) theirs: Trials,
}

impl Comparison {
    /// How many times better ours is, by the rate or, in a row about a latency, by the latency. None where either has no
    /// figure or is marked.
    pub(super) fn ratio(&self) -> Option<f64> {
        if self.ours.is_marked() || self.theirs.is_marked() {
            return None;
        }
        let (better, worse) = if self.row.is_latency {
            (self.theirs.p50_ms()?, self.ours.p50_ms()?)
        } else {
            (self.ours.rate()?, self.theirs.rate()?)
        };
        (better > 0.0 && worse > 0.0).then(|| better / worse)
    }
}

/// 2 where a peer was not there; else 1 where there is a pair without a ratio; else 0.
pub(super) fn exit_code(comparisons: &[Comparison]) -> u8 {
    if comparisons.iter().any(|comparison| comparison.theirs.absent().is_some()) {
        2
    } else {
        u8::from(comparisons.iter().any(|comparison| comparison.ratio().is_none()))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::rows;
    use super::*;

    pub(in super::super) fn trials(samples: &[(f64, f64, f64)]) -> Trials {
        let mut trials = Trials::default();
        for (rate, p50_ms, failed_share) in samples {
            let errors = if *failed_share > 0.0 { vec!["NoLeader: none".into()] } else { Vec::new() };
            trials.add(Ok(Sample {
                rate: *rate,
                p50_ms: Some(*p50_ms),
                p99_ms: Some(4.0 * *p50_ms),
                failed_share: *failed_share,
                errors,
            }));
        }
        trials
    }

    pub(in super::super) fn away() -> Trials {
        let mut trials = trials(&[(50.0, 1.0, 0.0)]);
        trials.add(Err("connection refused".into()));
        trials
    }

    pub(in super::super) fn comparison(row: &str, ours: Trials, theirs: Trials) -> Comparison {
        Comparison { row: rows::find(row).unwrap(), ours, peer: "etcd x3", keeps: "majority, flushed", theirs }
    }

    #[test]
    fn a_median_is_the_middle_one_whatever_the_order() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![7.0]), Some(7.0));
        assert_eq!(median(vec![100.0, 1.0, 3.0]), Some(3.0));
        assert_eq!(median(vec![4.0, 100.0, 1.0, 2.0]), Some(3.0));
    }

    #[test]
    fn rate_and_latency_have_medians_of_their_own() {
        let trials = trials(&[(300.0, 1.0, 0.0), (100.0, 9.0, 0.0), (200.0, 2.0, 0.0)]);
        assert_eq!((trials.rate(), trials.p50_ms()), (Some(200.0), Some(2.0)));
    }

    #[test]
    fn a_ratio_above_1_means_that_ours_is_better_in_both_kinds_of_rows() {
        let (fast, slow) = (trials(&[(300.0, 2.0, 0.0)]), trials(&[(100.0, 8.0, 0.0)]));
        assert_eq!(comparison("lock-own-1", fast.clone(), slow.clone()).ratio(), Some(3.0));
        assert_eq!(comparison("lock-own-1", slow.clone(), fast.clone()).ratio(), Some(1.0 / 3.0));
        assert_eq!(comparison("commit-1", fast.clone(), slow.clone()).ratio(), Some(4.0));
        assert_eq!(comparison("commit-1", slow, fast).ratio(), Some(0.25));
    }

    #[test]
    fn more_than_one_percent_of_failures_in_any_run_takes_the_ratio_away() {
        let good = trials(&[(300.0, 2.0, 0.0)]);
        let (just, over) =
            (trials(&[(100.0, 8.0, 0.01)]), trials(&[(100.0, 8.0, 0.0), (100.0, 8.0, 0.011), (100.0, 8.0, 0.0)]));
        assert_eq!(comparison("hit-1x50", good.clone(), just.clone()).ratio(), Some(3.0));
        assert_eq!(comparison("hit-1x50", good.clone(), over.clone()).ratio(), None);
        assert_eq!(comparison("hit-1x50", over.clone(), good.clone()).ratio(), None);
        assert_eq!(over.rate(), Some(100.0), "the figure itself stays");
        assert_eq!(over.errors(), ["NoLeader: none"]);
        assert_eq!(exit_code(&[comparison("hit-1x50", good.clone(), just)]), 0);
        assert_eq!(exit_code(&[comparison("hit-1x50", good, over)]), 1);
    }

    #[test]
    fn who_was_away_once_has_no_figures_and_the_end_is_2() {
        let good = trials(&[(300.0, 2.0, 0.0)]);
        let row = comparison("queue-32", good.clone(), away());
        assert_eq!((row.theirs.rate(), row.theirs.p50_ms(), row.ratio()), (None, None, None));
        let marked = comparison("queue-32", good.clone(), trials(&[(100.0, 8.0, 0.5)]));
        let fine = comparison("queue-32", good.clone(), good);
        assert_eq!(exit_code(&[fine.clone(), row, marked]), 2);
        assert_eq!(exit_code(&[fine]), 0);
    }

    #[test]
    fn nothing_done_is_no_ratio_of_infinity() {
        let mut nothing = Trials::default();
        nothing.add(Ok(Sample { rate: 0.0, p50_ms: None, p99_ms: None, failed_share: 0.0, errors: Vec::new() }));
        let good = trials(&[(300.0, 2.0, 0.0)]);
        assert_eq!(comparison("queue-32", good.clone(), nothing.clone()).ratio(), None);
        assert_eq!(comparison("commit-1", good.clone(), nothing.clone()).ratio(), None);
        assert_eq!(comparison("commit-1", nothing, good).ratio(), None);
    }
}
