//! The measured figures: how they are computed, and how they are printed.

use super::latencies::Latencies;
use serde_json::Value;
use std::time::Duration;

/// The measured figures, in the order in which they are printed.
pub(super) type Figures = Vec<(&'static str, Value)>;

/// The figures that every measurement has.
pub(super) fn rates(rate: f64, floor: f64, latencies: &Latencies) -> Figures {
    Vec::from([
        ("rate", rate.into()),
        ("floor", floor.into()),
        ("ratio", ratio(rate, floor).into()),
        ("p50_us", latencies.micros(0.5).into()),
        ("p99_us", latencies.micros(0.99).into()),
        ("p999_us", latencies.micros(0.999).into()),
    ])
}

pub(super) fn ratio(of: f64, to: f64) -> f64 {
    if to > 0.0 { of / to } else { 0.0 }
}

pub(super) fn per_second(count: u64, time: Duration) -> f64 {
    ratio(count as f64, time.as_secs_f64())
}

/// The median of some durations.
pub(super) fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// A figure as a line of text.
pub(super) fn line(name: &str, value: &Value) -> String {
    let text = match value {
        Value::Number(number) if number.is_f64() => number.as_f64().map_or_else(String::new, |number| match number {
            large if large.abs() >= 1000.0 => format!("{large:.0}"),
            small => format!("{small:.3}"),
        }),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "none".into(),
        other => other.to_string(),
    };
    format!("{name:>16}  {text}")
}
