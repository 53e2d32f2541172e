//! The shipped rules, configurations and cases, as Prometheus and Alertmanager read them.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use routing_core::{Fault, Reason};

use crate::screener::workspace;

fn read(path: &str) -> String {
    fs::read_to_string(workspace(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Runs a program in the folder of the rules; what it answered.
fn run(program: &str, arguments: &[&str]) -> String {
    let run = Command::new(program).args(arguments).current_dir(workspace("ops/prometheus")).output();
    let run = run.unwrap_or_else(|_| panic!("{program} is missing: ./test --observability installs it"));
    let said = String::from_utf8_lossy(&run.stdout).into_owned();
    let complained = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{program} {arguments:?}: {said}{complained}");
    said
}

/// The values of a key, one a line.
fn values(text: &str, key: &str) -> Vec<String> {
    let values = text.lines().filter_map(|line| line.trim().trim_start_matches("- ").strip_prefix(key));
    values.map(|value| value.trim().to_owned()).collect()
}

fn alerts() -> BTreeSet<String> {
    values(&read("ops/prometheus/alerts.yml"), "alert:").into_iter().collect()
}

#[test]
fn rules_and_configurations_are_valid_and_every_case_holds() {
    run("promtool", &["check", "rules", "alerts.yml"]);
    run("promtool", &["check", "config", "prometheus.yml"]);
    run("promtool", &["test", "rules", "tests.yml"]);
    run("amtool", &["check-config", "alertmanager.yml"]);
}

#[test]
fn every_alert_has_a_case_in_which_it_fires_a_severity_and_texts() {
    let (rules, cases) = (read("ops/prometheus/alerts.yml"), read("ops/prometheus/tests.yml"));
    let alerts = alerts();
    assert!(alerts.len() >= 14, "{alerts:?}");
    for alert in &alerts {
        assert!(cases.contains(&format!("alertname=\"{alert}\"")), "no case has {alert} fire");
    }
    for key in ["for:", "summary:", "description:", "runbook_url:", "labels: { severity:"] {
        assert_eq!(values(&rules, key).len(), alerts.len(), "{key}");
    }
}

#[test]
fn every_alert_leads_to_an_entry_of_the_runbook_and_the_runbook_knows_no_other() {
    let runbook = read("ops/RUNBOOK.md");
    let anchor = |title: &str| title.to_lowercase().replace(' ', "-");
    let titles = runbook.lines().filter(|line| line.starts_with('#'));
    let anchors: BTreeSet<_> = titles.map(|line| anchor(line.trim_start_matches('#').trim())).collect();
    for url in values(&read("ops/prometheus/alerts.yml"), "runbook_url:") {
        let (_, wanted) = url.split_once('#').expect("an entry");
        assert!(anchors.contains(wanted), "{url}: the runbook has {anchors:?}");
    }
    let table = runbook.lines().skip_while(|line| *line != "| alert | entry |").skip(2);
    let named: BTreeSet<String> = table
        .take_while(|line| line.starts_with('|'))
        .filter_map(|line| line.split('|').nth(1))
        .flat_map(|cell| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>())
        .collect();
    assert_eq!(named, alerts());
}

#[test]
fn every_alert_reason_and_fault_is_documented() {
    let documented = read("docs/observability.md");
    let names = Reason::ALL.iter().map(|reason| reason.as_str());
    let names = names.chain(Fault::ALL.iter().map(|fault| fault.as_str())).map(str::to_owned).chain(alerts());
    for name in names {
        assert!(documented.contains(&format!("`{name}`")), "{name} is not documented");
    }
}

#[test]
fn critical_alerts_wake_people_and_warnings_do_not() {
    let receivers = |severity: &str| {
        let label = format!("severity={severity}");
        run("amtool", &["config", "routes", "test", "--config.file=alertmanager.yml", &label])
            .trim()
            .to_owned()
    };
    assert_eq!(receivers("critical"), "on-call,second-on-call");
    assert_eq!(receivers("warning"), "team");
}
