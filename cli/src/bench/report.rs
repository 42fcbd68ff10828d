//! What was measured, as a table and as a document.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use super::histogram::Histogram;
use super::load::Tally;
use crate::command::Session;
use crate::error::CliError;

/// One workload on one number of connections.
pub(crate) struct Line {
    workload: &'static str,
    connections: usize,
    /// The server under test.
    pub(crate) server: Measured,
    /// The bare responder in the same rounds.
    pub(crate) bare: Option<Measured>,
}

/// The sum of all rounds against one server.
pub(crate) struct Measured {
    latencies: Histogram,
    seconds: f64,
    answers: u64,
    processor: Option<Duration>,
    errors: BTreeMap<String, u64>,
    silence: Duration,
}

impl Default for Measured {
    fn default() -> Self {
        Self {
            latencies: Histogram::new(),
            seconds: 0.0,
            answers: 0,
            processor: Some(Duration::ZERO),
            errors: BTreeMap::new(),
            silence: Duration::ZERO,
        }
    }
}

impl Line {
    /// A line without rounds.
    pub(crate) fn new(workload: &'static str, connections: usize) -> Self {
        Self { workload, connections, server: Measured::default(), bare: None }
    }

    fn ratio(&self) -> Option<f64> {
        let bare = self.bare.as_ref()?.rate();
        (bare > 0.0).then(|| self.server.rate() / bare)
    }
}

impl Measured {
    /// Adds a round, with the processor time of the server if that is known.
    pub(crate) fn add(&mut self, (tally, processor): (Tally, Option<Duration>)) {
        self.latencies.add(&tally.latencies);
        self.seconds += tally.elapsed.as_secs_f64();
        self.answers += tally.answers;
        self.silence = self.silence.max(tally.silence);
        self.processor = self.processor.zip(processor).map(|(sum, more)| sum + more);
        for (what, count) in tally.errors {
            *self.errors.entry(what).or_default() += count;
        }
    }

    /// Good answers in a second.
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
    fn rate(&self) -> f64 {
        if self.seconds > 0.0 { self.latencies.count() as f64 / self.seconds } else { 0.0 }
    }

    #[expect(clippy::cast_precision_loss, reason = "latencies stay far below 2^52 ns")]
    fn quantile_us(&self, share: f64) -> f64 {
        self.latencies.quantile(share) as f64 / 1000.0
    }

    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
    fn processor_us(&self) -> Option<f64> {
        self.processor.filter(|_| self.answers > 0).map(|time| time.as_secs_f64() * 1e6 / self.answers as f64)
    }

    fn errors(&self) -> u64 {
        self.errors.values().sum()
    }

    fn document(&self) -> Value {
        json!({
            "requests_per_s": rounded(self.rate(), 1), "requests": self.latencies.count(),
            "p50_us": rounded(self.quantile_us(0.5), 1), "p99_us": rounded(self.quantile_us(0.99), 1),
            "p999_us": rounded(self.quantile_us(0.999), 1),
            "processor_us_per_request": self.processor_us().map(|time| rounded(time, 2)),
            "longest_silence_ms": rounded(self.silence.as_secs_f64() * 1e3, 2), "errors": self.errors,
        })
    }

    fn row(&self, name: &str, line: &Line, ratio: Option<f64>) -> Vec<String> {
        let optional =
            |number: Option<f64>, digits: usize| number.map_or("-".into(), |number| format!("{number:.digits$}"));
        vec![
            line.workload.to_owned(),
            line.connections.to_string(),
            name.to_owned(),
            format!("{:.0}", self.rate()),
            format!("{:.0}", self.quantile_us(0.5)),
            format!("{:.0}", self.quantile_us(0.99)),
            format!("{:.0}", self.quantile_us(0.999)),
            optional(self.processor_us(), 2),
            format!("{:.1}", self.silence.as_secs_f64() * 1e3),
            self.errors().to_string(),
            optional(ratio, 3),
        ]
    }
}

/// Writes all lines; latencies are in microseconds.
///
/// # Errors
/// The output cannot be written.
pub(crate) fn write(session: &mut Session, settings: &Value, lines: &[Line]) -> Result<(), CliError> {
    let headers = [
        "Workload",
        "Connections",
        "Server",
        "Requests/s",
        "p50 µs",
        "p99 µs",
        "p99.9 µs",
        "CPU µs",
        "Silence ms",
        "Errors",
        "Of bare",
    ];
    let mut rows = Vec::new();
    let mut results = Vec::new();
    for line in lines {
        rows.push(line.server.row("tested", line, line.ratio()));
        rows.extend(line.bare.as_ref().map(|bare| bare.row("bare", line, None)));
        results.push(json!({
            "workload": line.workload, "connections": line.connections, "server": line.server.document(),
            "bare": line.bare.as_ref().map(Measured::document), "of_bare": line.ratio().map(|ratio| rounded(ratio, 4)),
        }));
        for (what, count) in &line.server.errors {
            session
                .output
                .hint(&format!("{} on {} connections: {count} times {what}", line.workload, line.connections));
        }
    }
    session.output.rows(&json!({"settings": settings, "results": results}), &headers, &rows)
}

/// Says how long it took to fill the store.
///
/// # Errors
/// The output cannot be written.
pub(crate) fn populated(session: &mut Session, keys: u64, seconds: f64) -> Result<(), CliError> {
    #[expect(clippy::cast_precision_loss, reason = "at most ten million")]
    let rate = keys as f64 / seconds.max(f64::MIN_POSITIVE);
    let document = json!({"secrets": keys, "seconds": rounded(seconds, 2), "secrets_per_s": rounded(rate, 1)});
    let row = vec![keys.to_string(), format!("{seconds:.1}"), format!("{rate:.0}")];
    session.output.rows(&document, &["Secrets", "Seconds", "Secrets/s"], &[row])
}

/// User and system time of a process so far, from `/proc/<pid>/stat`. `None` where there is no such file.
pub(crate) fn processor_time(pid: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; the numbers follow the last one.
    let fields: Vec<_> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    let per_second = rustix::param::clock_ticks_per_second();
    Some(Duration::from_millis(ticks * 1000 / per_second.max(1)))
}

/// Resident memory of a process in MiB, from `/proc/<pid>/status`. `None` where there is no such file.
pub(crate) fn memory_mib(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = resident.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024)
}

fn rounded(number: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (number * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_time_and_memory_are_known() {
        assert!(processor_time(std::process::id()).is_some());
        assert!(processor_time(u32::MAX).is_none());
        assert!(memory_mib(std::process::id()).is_some_and(|mib| mib > 0));
    }
}
