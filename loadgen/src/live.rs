//! What is shown while a run goes on: a progress bar with the rates of the last moment on a terminal, a plain line every few
//! seconds anywhere else, nothing where nothing is wanted. All of it on stderr: stdout is the result's alone.
//!
//! Each worker has a gauge of its own, so that counting costs no cache line that two cores fight for; the display adds
//! them up four times a second.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::JoinHandle;

use crate::clock;
use crate::schedule::Plan;
use crate::workload::Failure;

/// How often the bar is drawn.
const BAR_EVERY: Duration = Duration::from_millis(250);
/// How often a line is printed where stderr is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Whether anything is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// What suits stderr.
    Live,
    /// Nothing.
    Quiet,
}

/// What one worker has done so far. Aligned so that two workers' gauges never share a cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Gauge {
    done: AtomicU64,
    failed: AtomicU64,
    unknown: AtomicU64,
    slowest_us: AtomicU64,
}

impl Gauge {
    /// Counts one operation.
    pub(crate) fn add(&self, took: Duration, result: Result<(), &Failure>) {
        match result {
            Ok(()) => {
                self.done.fetch_add(1, Ordering::Relaxed);
                self.slowest_us.fetch_max(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
            }
            Err(failure) if failure.unknown => drop(self.unknown.fetch_add(1, Ordering::Relaxed)),
            Err(_) => drop(self.failed.fetch_add(1, Ordering::Relaxed)),
        }
    }
}

/// The gauges of all workers, read at one moment.
#[derive(Clone, Copy, Debug, Default)]
struct Reading {
    done: u64,
    failed: u64,
    unknown: u64,
    /// Of the time since the last reading.
    slowest_us: u64,
}

fn read(gauges: &[Arc<Gauge>]) -> Reading {
    gauges.iter().fold(Reading::default(), |sum, gauge| Reading {
        done: sum.done + gauge.done.load(Ordering::Relaxed),
        failed: sum.failed + gauge.failed.load(Ordering::Relaxed),
        unknown: sum.unknown + gauge.unknown.load(Ordering::Relaxed),
        slowest_us: sum.slowest_us.max(gauge.slowest_us.swap(0, Ordering::Relaxed)),
    })
}

/// The line for a person.
#[expect(clippy::cast_precision_loss, reason = "shown to a few digits")]
fn line(before: Reading, now: Reading, passed: Duration) -> String {
    let rate = (now.done - before.done) as f64 / passed.as_secs_f64().max(1e-3);
    let slowest = now.slowest_us as f64 / 1_000.0;
    format!("{rate:.0}/s, slowest {slowest:.1} ms, {} done, {} failed, {} unknown", now.done, now.failed, now.unknown)
}

/// The display, until it is finished or dropped.
#[derive(Debug)]
pub(crate) struct Live {
    drawing: Option<JoinHandle<()>>,
    bar: Option<ProgressBar>,
}

impl Live {
    /// Begins to show what these gauges say.
    pub(crate) fn start(plan: &Plan, gauges: Vec<Arc<Gauge>>) -> Self {
        if plan.look == Look::Quiet {
            return Self { drawing: None, bar: None };
        }
        let whole = plan.warm_up + plan.duration;
        let bar = std::io::stderr().is_terminal().then(|| new_bar(whole));
        let drawing = tokio::spawn(draw(gauges, plan.warm_up, whole, bar.clone()));
        Self { drawing: Some(drawing), bar }
    }

    /// Ends the display and leaves the terminal as it was.
    pub(crate) fn finish(self) {
        if let Some(drawing) = self.drawing {
            drawing.abort();
        }
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

fn new_bar(whole: Duration) -> ProgressBar {
    // The wide message is cut to the terminal: a line that wraps cannot be drawn over.
    let style = ProgressStyle::with_template("{bar:20} {wide_msg}").expect("a constant template");
    ProgressBar::new(u64::try_from(whole.as_millis()).unwrap_or(u64::MAX)).with_style(style)
}

async fn draw(gauges: Vec<Arc<Gauge>>, warm_up: Duration, whole: Duration, bar: Option<ProgressBar>) {
    let started = clock::now();
    let mut ticks = tokio::time::interval(if bar.is_some() { BAR_EVERY } else { LINE_EVERY });
    ticks.tick().await;
    let (mut before, mut last): (Reading, Instant) = (Reading::default(), started);
    loop {
        ticks.tick().await;
        let (now, moment) = (read(&gauges), clock::now());
        let passed = started.elapsed();
        let seconds = format!("{:.0} of {:.0} s", passed.as_secs_f64(), whole.as_secs_f64());
        let mut text = format!("{seconds}: {}", line(before, now, moment - last));
        if passed < warm_up {
            text += ", warming up";
        }
        match &bar {
            Some(bar) => {
                bar.set_position(u64::try_from(passed.min(whole).as_millis()).unwrap_or(u64::MAX));
                bar.set_message(text);
            }
            None => eprintln!("{text}"),
        }
        (before, last) = (now, moment);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_tells_of_the_time_since_the_last_one() {
        let gauges = [Arc::new(Gauge::default()), Arc::new(Gauge::default())];
        let unknown = Failure { name: "OutcomeUnknown", unknown: true, text: String::new() };
        gauges[0].add(Duration::from_millis(90), Ok(()));
        let before = read(&gauges);
        for gauge in &gauges {
            gauge.add(Duration::from_millis(2), Ok(()));
            gauge.add(Duration::from_millis(7), Ok(()));
        }
        gauges[1].add(Duration::from_millis(99), Err(&unknown));
        let text = line(before, read(&gauges), Duration::from_secs(2));
        assert_eq!(text, "2/s, slowest 7.0 ms, 5 done, 0 failed, 1 unknown");
    }
}
