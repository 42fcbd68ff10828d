//! The numbers of the nodes, as a real Prometheus has them: with the configuration, the rules and the table that
//! `docs/operate/monitor.md` shows.

#![expect(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use keyward_tests::client::Client;
use keyward_tests::cluster::Cluster;
use keyward_tests::suite;
use serde_json::{Value, json};

/// How long it may take until Prometheus has what it is to have. It scrapes every second.
const SCRAPED_MAX: Duration = Duration::from_secs(60);

#[test]
fn prometheus_scrapes_a_cluster() {
    let cluster = Cluster::start(2);
    let leader = cluster.await_leader(&cluster.awake()).0;
    let follower = cluster.others(&[leader])[0];
    let token = token(&cluster);
    cluster.client(follower).put("secret/data/a", &json!({"data": {"x": 1}})).expect(200);
    cluster.client(follower).get("secret/data/a").expect(200);

    let texts = [leader, follower].map(|node| scrape(&mut cluster.client(node).with_token(&token)));
    assert_eq!(names(&texts[0]), documented(), "the table of docs/operate/monitor.md and what the leader tells");
    assert!(sample(&texts[1], "keyward_requests_passed_on_total") >= 1.0, "{}", texts[1]);
    assert!(sample(&texts[0], "keyward_requests_taken_total") >= 1.0, "{}", texts[0]);
    assert!(sample(&texts[1], "keyward_read_points_total") >= 1.0, "{}", texts[1]);
    assert!(texts[0].contains(&format!("name=\"node{follower}\"")) && !texts[1].contains("name=\""), "{}", texts[0]);
    assert!(texts[1].contains("keyward_certificate_end_seconds{of=\"node\"}"), "{}", texts[1]);
    for text in &texts {
        assert!(!text.contains(&token) && !text.contains(&cluster.root), "a token is in the numbers");
    }
    let stranger = cluster.client(leader).without_token().send("GET", "/metrics", &[], None).unwrap();
    assert_eq!(stranger.status, 403);

    let Some(prometheus) = Prometheus::start(&cluster, &token) else { return };
    prometheus.wait("sum(up)", 2.0);
    prometheus.wait("sum(keyward_leads)", 1.0);
    prometheus.wait("count(keyward_committed_index > 0)", 2.0);
    prometheus.wait("count(keyward_member_silence_seconds < 5)", 1.0);
    prometheus.wait("min(keyward_build_info)", 1.0);
    let taken = "sum(keyward_requests_taken_total)";
    let before = prometheus.value(taken).unwrap();
    cluster.client(follower).put("secret/data/a", &json!({"data": {"x": 2}})).expect(200);
    prometheus.wait(&format!("{taken} > bool {before}"), 1.0);
}

/// A token that may read the numbers and nothing else.
fn token(cluster: &Cluster) -> String {
    let mut client = cluster.client(0);
    let policy = "path \"sys/metrics\" { capabilities = [\"read\"] }";
    client.put("sys/policies/acl/metrics", &json!({"policy": policy})).expect(204);
    let wish = json!({"policies": ["metrics"], "no_default_policy": true});
    let answer = client.post("auth/token/create", &wish).expect(200).json();
    answer["auth"]["client_token"].as_str().unwrap().to_owned()
}

/// The same text under both names.
fn scrape(client: &mut Client) -> String {
    let bearer = format!("Bearer {}", client.token());
    let mut get = |target| {
        let answer = client.send("GET", target, &[("Authorization", &bearer)], None).unwrap().expect(200);
        assert!(answer.header("content-type").unwrap().starts_with("application/openmetrics-text"));
        answer.text()
    };
    let (short, long) = (get("/metrics"), get("/v1/sys/metrics?format=prometheus"));
    assert_eq!(names(&short), names(&long));
    short
}

/// The metrics in a text, each with the ending that its samples have.
fn names(text: &str) -> BTreeSet<String> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let ending = |kind| match kind {
        "counter" => "_total",
        "info" => "_info",
        _ => "",
    };
    types.map(|(name, kind)| format!("{name}{}", ending(kind))).collect()
}

fn sample(text: &str, name: &str) -> f64 {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

fn page() -> String {
    suite::read(suite::root().join("docs/operate/monitor.md"))
}

/// The metrics of the table.
fn documented() -> BTreeSet<String> {
    let page = page();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `keyward_")?.split_once('`'));
    rows.map(|(name, _)| format!("keyward_{name}")).collect()
}

/// The YAML on the page that begins so.
fn yaml(start: &str) -> String {
    let page = page();
    let (_, rest) = page.split_once(&format!("```yaml\n{start}")).unwrap();
    format!("{start}{}", rest.split_once("```").unwrap().0)
}

/// A Prometheus with the configuration of the page, but for addresses and files. It is killed when this goes out of scope.
struct Prometheus {
    process: Child,
    address: String,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    /// `None`, and a line that says so, where there is none.
    fn start(cluster: &Cluster, token: &str) -> Option<Self> {
        let there = |program| Command::new(program).arg("--version").output().is_ok();
        if !there("prometheus") || !there("promtool") {
            eprintln!("NOT TESTED: a scrape by Prometheus, because there is none (Debian: prometheus)");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        std::fs::write(file("token"), token).unwrap();
        std::fs::write(file("rules.yml"), yaml("groups:")).unwrap();
        check("rules", &file("rules.yml"));
        std::fs::write(file("prometheus.yml"), Self::configuration(cluster, &file("token"), &file("rules.yml")))
            .unwrap();
        check("config", &file("prometheus.yml"));
        let host = Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 64, 0, 1)) + std::process::id() % (1 << 20));
        let address = format!("{host}:9090");
        let log = std::fs::File::create(file("log")).unwrap();
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", file("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", file("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Some(Self { process, address: format!("http://{address}"), _folder: folder })
    }

    fn configuration(cluster: &Cluster, token: &Path, rules: &Path) -> String {
        let targets = cluster.nodes.iter().map(|node| format!("{:?}", node.address.trim_start_matches("http://")));
        let mut config = format!("global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{rules:?}]\n");
        for line in yaml("scrape_configs:").lines() {
            let (indented, key) = line.split_at(line.len() - line.trim_start().len());
            let line = match key.trim_start_matches("- ").split_once(':').unwrap().0 {
                "scheme" => "scheme: http".to_owned(),
                // Plain HTTP in here.
                "tls_config" | "ca_file" => continue,
                "credentials_file" => format!("credentials_file: {token:?}"),
                "targets" => format!("- targets: [{}]", targets.clone().collect::<Vec<_>>().join(", ")),
                _ => key.to_owned(),
            };
            config += &format!("{indented}{line}\n");
        }
        config
    }

    /// The value of a query that has one.
    fn value(&self, query: &str) -> Option<f64> {
        let query = percent_encoding::utf8_percent_encode(query, percent_encoding::NON_ALPHANUMERIC);
        let target = format!("/api/v1/query?query={query}");
        let answer = Client::new(&self.address, "").send("GET", &target, &[], None).ok()?;
        let result: Value = (answer.status == 200).then(|| answer.json())?;
        result["data"]["result"][0]["value"][1].as_str()?.parse().ok()
    }

    fn wait(&self, query: &str, expected: f64) {
        let what = format!("Prometheus has {query} = {expected}");
        let ((), took) = suite::wait_for(&what, SCRAPED_MAX, || (self.value(query)? == expected).then_some(()));
        eprintln!("metrics: {what} after {took:?}");
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// Whether Prometheus takes a file.
#[track_caller]
fn check(what: &str, file: &Path) {
    let output = Command::new("promtool").args(["check", what]).arg(file).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "promtool check {what}: {said}\n{}", suite::read(file));
}
