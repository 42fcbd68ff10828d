//! The same numbers as Vault's clients know them: the JSON of `sys/metrics` without a format.

use keyward_model::Timestamp;
use serde_json::{Map, Value, json};

/// Turns the text for Prometheus, as this server writes it, into JSON. What only grows is a counter, all else a gauge.
pub(super) fn of_text(text: &str, now: Timestamp) -> Value {
    let (mut gauges, mut counters) = (Vec::new(), Vec::new());
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((name, value)) = line.rsplit_once(' ') else { continue };
        let Ok(value) = value.parse::<f64>() else { continue };
        let (name, labels) = name.split_once('{').map_or((name, ""), |(name, rest)| (name, rest.trim_end_matches('}')));
        let labels = labels_of(labels);
        match name.strip_suffix("_total") {
            Some(name) => counters.push(json!({
                "Name": name, "Count": value, "Rate": 0, "Sum": value, "Min": value, "Max": value, "Mean": value,
                "Stddev": 0, "Labels": labels,
            })),
            None => gauges.push(json!({ "Name": name, "Value": value, "Labels": labels })),
        }
    }
    let moment = now.rfc3339();
    let moment = moment.split_once('.').map_or(moment.as_str(), |(seconds, _)| seconds);
    let moment = format!("{} +0000 UTC", moment.trim_end_matches('Z').replace('T', " "));
    json!({ "Timestamp": moment, "Gauges": gauges, "Points": [], "Counters": counters, "Samples": [] })
}

/// Labels are words of ours and names of nodes: no quote and no comma is in them.
fn labels_of(text: &str) -> Map<String, Value> {
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.trim_matches('"').into())).collect()
}
