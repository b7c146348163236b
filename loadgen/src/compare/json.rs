//! The comparisons as one JSON array, for programs.

use serde::Serialize;

use super::figures::Comparison;

/// One object of the array.
#[derive(Serialize)]
struct Object<'a> {
    work: &'a str,
    ours: Option<f64>,
    ours_p50_ms: Option<f64>,
    ours_p99_ms: Option<f64>,
    peer: &'a str,
    peer_rate: Option<f64>,
    peer_p50_ms: Option<f64>,
    peer_p99_ms: Option<f64>,
    ratio: Option<f64>,
}

/// Digits that a run on the same machine would repeat are fewer still; these keep the text short.
fn rounded(figure: Option<f64>, unit: f64) -> Option<f64> {
    figure.map(|figure| (figure * unit).round() / unit)
}

/// The array, one object for each work and peer.
pub(super) fn json(comparisons: &[Comparison]) -> String {
    let objects: Vec<_> = comparisons
        .iter()
        .map(|comparison| Object {
            work: comparison.row.name,
            ours: rounded(comparison.ours.rate(), 10.0),
            ours_p50_ms: rounded(comparison.ours.p50_ms(), 1000.0),
            ours_p99_ms: rounded(comparison.ours.p99_ms(), 1000.0),
            peer: comparison.peer,
            peer_rate: rounded(comparison.theirs.rate(), 10.0),
            peer_p50_ms: rounded(comparison.theirs.p50_ms(), 1000.0),
            peer_p99_ms: rounded(comparison.theirs.p99_ms(), 1000.0),
            ratio: rounded(comparison.ratio(), 1000.0),
        })
        .collect();
    serde_json::to_string_pretty(&objects).expect("names and finite numbers have a JSON form")
}

#[cfg(test)]
mod tests {
    use super::super::figures::tests::{away, comparison, trials};
    use super::*;

    #[test]
    fn an_object_for_each_pair_with_null_where_there_is_nothing() {
        let ours = || trials(&[(300.04, 2.0004, 0.0)]);
        let text = json(&[
            comparison("queue-32", ours(), trials(&[(100.0, 8.0, 0.0)])),
            comparison("commit-1", ours(), away()),
        ]);
        let parsed: serde_json::Value = serde_json::from_str(&text).unwrap();
        let expected = serde_json::json!([
            {"work": "queue-32", "ours": 300.0, "ours_p50_ms": 2.0, "ours_p99_ms": 8.002, "peer": "etcd x3", "peer_rate": 100.0, "peer_p50_ms": 8.0, "peer_p99_ms": 32.0, "ratio": 3.0},
            {"work": "commit-1", "ours": 300.0, "ours_p50_ms": 2.0, "ours_p99_ms": 8.002, "peer": "etcd x3", "peer_rate": null, "peer_p50_ms": null, "peer_p99_ms": null, "ratio": null},
        ]);
        assert_eq!(parsed, expected);
    }
}
