//! The command line: what every workload takes, and what some of them take beside.

use std::time::Duration;

use clap::Args;

use crate::live::Look;
use crate::popularity::Popularity;
use crate::schedule::{Arrivals, Pace, Plan};
use crate::workload::Failure;

/// Where the nodes of a cluster on this machine listen.
const ENDPOINTS_DEFAULT: &str = "127.0.0.1:4101,127.0.0.1:4102,127.0.0.1:4103";
/// No run is longer: a day.
const DURATION_MAX: Duration = Duration::from_secs(86_400);
/// Workers of one run, all connections together. Each has histograms of its own, some 100 KiB.
const WORKERS_MAX: usize = 65_536;

/// How much load, for how long, and what is shown of it.
#[derive(Clone, Debug, Args)]
pub(crate) struct Load {
    /// For how long: `60s`, `500ms`, `5m`, or a number of seconds.
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub(crate) duration: Duration,
    /// For how long before that, without being recorded.
    #[arg(long, default_value = "0s", value_parser = duration)]
    pub(crate) warm_up: Duration,
    /// Rounds per second over all workers, in an open loop: latencies count from when a round was due. Without it, a closed
    /// loop: each worker begins a round when its last one has ended.
    #[arg(long, value_parser = rate)]
    pub(crate) rate: Option<f64>,
    /// How the rounds of the open loop are spread.
    #[arg(long, value_enum, default_value_t = Arrivals::Constant, requires = "rate")]
    pub(crate) arrivals: Arrivals,
    /// Where the choices begin: the same number gives the same requests.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Look for what must never happen, such as a lost message or a stale read; exit code 1 where it did.
    #[arg(long)]
    pub(crate) verify: bool,
    /// Print one JSON object in place of a table.
    #[arg(long)]
    pub(crate) json: bool,
    /// Show nothing while the run goes on.
    #[arg(long)]
    pub(crate) quiet: bool,
}

impl Load {
    /// The plan with so many connections and workers on each.
    ///
    /// # Errors
    /// Where the numbers are beyond what one generator does.
    pub(crate) fn plan(&self, clients: usize, in_flight: usize) -> Result<Plan, Failure> {
        let (clients, in_flight) = (clients.max(1), in_flight.max(1));
        if clients.saturating_mul(in_flight) > WORKERS_MAX {
            let text = format!("{clients} connections with {in_flight} each are more than {WORKERS_MAX} workers");
            return Err(Failure { name: "arguments", unknown: false, text });
        }
        Ok(Plan {
            clients,
            in_flight,
            pace: self.rate.map_or(Pace::Closed, |rate| Pace::Open { rate, arrivals: self.arrivals }),
            warm_up: self.warm_up.min(DURATION_MAX),
            duration: self.duration.clamp(Duration::from_millis(1), DURATION_MAX),
            seed: self.seed,
            verify: self.verify,
            look: if self.quiet { Look::Quiet } else { Look::Live },
        })
    }
}

/// What the workloads over the native protocol share.
#[derive(Clone, Debug, Args)]
pub(crate) struct Native {
    /// Client addresses of the nodes, separated by commas.
    #[arg(long, env = "TRINE_ENDPOINTS", value_delimiter = ',', default_value = ENDPOINTS_DEFAULT)]
    pub(crate) endpoints: Vec<String>,
    /// Connections, spread over the endpoints.
    #[arg(long, default_value_t = 16)]
    pub(crate) clients: usize,
    /// Requests in flight on each connection. With --clients it bounds what is in flight in the open loop too.
    #[arg(long, visible_alias = "pipeline", default_value_t = 1)]
    pub(crate) in_flight: usize,
    /// Queues, locks or keys.
    #[arg(long, visible_alias = "keys", default_value_t = 64)]
    pub(crate) names: usize,
    /// Exponent of Zipf's law for which of them is used how often. Without it, all alike.
    #[arg(long)]
    pub(crate) zipf: Option<f64>,
}

impl Native {
    /// Which name is used how often.
    ///
    /// # Errors
    /// Where there is no such law.
    pub(crate) fn popularity(&self) -> Result<Popularity, Failure> {
        Popularity::new(self.names, self.zipf)
    }
}

/// Reads `60s`, `500ms`, `1m 30s`, or a bare number of seconds.
///
/// # Errors
/// Where it is none of them.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string()),
        Err(_) => humantime::parse_duration(text).map_err(|error| error.to_string()),
    }
}

/// Reads a number of rounds per second.
fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "no number".to_owned())?;
    let most = crate::schedule::RATE_MAX;
    if rate > 0.0 && rate <= most { Ok(rate) } else { Err(format!("above 0, and at most {most}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, millis) in [("60s", 60_000), ("500ms", 500), ("5m", 300_000), ("10", 10_000), ("0.5", 500)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "-1", "5 parsecs", "1e99", "NaN"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_rate_is_above_nothing() {
        assert_eq!(rate("0.5"), Ok(0.5));
        for text in ["0", "-3", "inf", "NaN", "fast", "1000001"] {
            assert!(rate(text).is_err(), "{text}");
        }
    }
}
