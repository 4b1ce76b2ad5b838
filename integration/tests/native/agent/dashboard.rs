//! `deploy/grafana.json` and `deploy/alerts.yaml`: Prometheus' own tool takes every expression, and the agent
//! has every metric and label in them.

use integration::{Agent, Ctl, Pod, Scrape, Scratch, Site, promtool, run};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const PREFIX: &str = "vlan_bridge_";

/// What each alert needs to fire, and what must not make it fire.
const SERIES: &str = r#"
rule_files: [RULES]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {series: 'vlan_bridge_addresses{instance="a",network="n",range="r",state="used"}', values: '14x60'}
      - {series: 'vlan_bridge_addresses{instance="a",network="n",range="r",state="free"}', values: '0x60'}
      - {series: 'vlan_bridge_addresses{instance="a",network="n",range="r",state="cooling"}', values: '0x60'}
      - {series: 'vlan_bridge_addresses{instance="a",network="n",range="s",state="used"}', values: '95x60'}
      - {series: 'vlan_bridge_addresses{instance="a",network="n",range="s",state="free"}', values: '5x60'}
      - {series: 'vlan_bridge_conflicts{instance="a"}', values: '1x60'}
      - {series: 'vlan_bridge_differences{instance="a",kind="port",state="left"}', values: '1x60'}
      - {series: 'vlan_bridge_agent_last_pass_timestamp_seconds{instance="a"}', values: '0x60'}
      - {series: 'vlan_bridge_bond_members{instance="a",bond="bond0",carrier="down"}', values: '1x60'}
      - {series: 'vlan_bridge_uplink_carrier{instance="a",bridge="b",uplink="u"}', values: '0x60'}
      - {series: 'vlan_bridge_calls_total{instance="a",verb="ADD",outcome="internal"}', values: '0+1x60'}
      - {series: 'vlan_bridge_calls_total{instance="a",verb="ADD",outcome="ok"}', values: '0+5x60'}
      - {series: 'vlan_bridge_leases_readable{instance="a",network="n"}', values: '0x60'}
      - {series: 'vlan_bridge_addresses{instance="b",network="n",range="r",state="used"}', values: '10x60'}
      - {series: 'vlan_bridge_addresses{instance="b",network="n",range="r",state="cooling"}', values: '4x60'}
      - {series: 'vlan_bridge_conflicts{instance="b"}', values: '0x60'}
      - {series: 'vlan_bridge_differences{instance="b",kind="port",state="left"}', values: '0x60'}
      - {series: 'vlan_bridge_agent_last_pass_timestamp_seconds{instance="b"}', values: '0+60x60'}
      - {series: 'vlan_bridge_bond_members{instance="b",bond="bond0",carrier="up"}', values: '2x60'}
      - {series: 'vlan_bridge_bond_members{instance="b",bond="bond0",carrier="down"}', values: '0x60'}
      - {series: 'vlan_bridge_uplink_carrier{instance="b",bridge="b",uplink="u"}', values: '1x60'}
      - {series: 'vlan_bridge_calls_total{instance="b",verb="ADD",outcome="internal"}', values: '0x60'}
      - {series: 'vlan_bridge_calls_total{instance="b",verb="ADD",outcome="ok"}', values: '0+5x60'}
      - {series: 'vlan_bridge_leases_readable{instance="b",network="n"}', values: '1x60'}
    promql_expr_test:
      - expr: count by (instance) (count by (instance, alertname) (ALERTS{alertstate="firing"}))
        eval_time: 45m
        exp_samples: [{labels: '{instance="a"}', value: ALERTS}]
"#;

fn deploy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(name)
}

fn yaml(path: &Path) -> Value {
    serde_yaml_ng::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// The values of a key, wherever it is.
fn values_of(key: &str, document: &Value, found: &mut Vec<String>) {
    match document {
        Value::Array(all) => all.iter().for_each(|each| values_of(key, each, found)),
        Value::Object(map) => map.iter().for_each(|(name, each)| match each.as_str() {
            Some(text) if name == key => found.push(text.to_owned()),
            _ => values_of(key, each, found),
        }),
        _ => {}
    }
}

fn expressions(document: &Value) -> Vec<String> {
    let mut found = Vec::new();
    values_of("expr", document, &mut found);
    found
}

/// The metrics of an expression, each with the labels that it is selected by.
fn selected(expression: &str) -> Vec<(String, BTreeSet<String>)> {
    let starts = expression.match_indices(PREFIX).map(|(at, _)| &expression[at..]);
    let selected = starts.map(|rest| {
        let end = rest.find(|c: char| !(c.is_ascii_lowercase() || c == '_')).unwrap_or(rest.len());
        let (name, rest) = rest.split_at(end);
        let inside = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
        let labels = inside.into_iter().flat_map(|(labels, _)| labels.split(", ")).filter_map(|label| {
            label.split(['=', '!', '~']).next().filter(|label| *label != "instance").map(str::to_owned)
        });
        (name.to_owned(), labels.collect())
    });
    selected.collect()
}

/// Why the agent has no such sample. A metric of what the node lacks has no sample.
fn complaint(scrape: &Scrape, name: &str, labels: &BTreeSet<String>) -> Option<String> {
    let suffixes = ["", "_total", "_info", "_bucket", "_sum", "_count"];
    let is_of = |family: &str| suffixes.iter().any(|suffix| name == format!("{family}{suffix}"));
    if !scrape.types.keys().any(|family| is_of(family)) {
        return Some(format!("there is no metric {name}"));
    }
    let of_name = || scrape.samples.keys().filter(|(of, _)| of == name);
    of_name().next()?;
    let has = |label: &String| of_name().any(|(_, labels)| labels.contains(&format!("{label}=\"")));
    let lacking = labels.iter().find(|label| !has(label))?;
    Some(format!("{name} has no label {lacking}"))
}

#[test]
fn the_agent_has_every_metric_of_the_dashboard_and_the_alerts() {
    let (site, pod) = (Site::new(), Pod::new());
    let (ctl, list) = (Ctl::new(&site.node), site.list());
    site.node.plugin(&list).add(&pod.eth0()).expect_ok();
    let path = ctl.path("metrics.sock");
    let _agent = Agent::start(&ctl, &format!("--metrics unix:{}", path.display()));
    let scrape = Scrape::over_unix(&path);
    let all = [yaml(&deploy("alerts.yaml")), yaml(&deploy("grafana.json"))];
    for document in &all {
        let expressions = expressions(document);
        assert!(expressions.len() >= 10, "{expressions:?}");
        for expression in expressions {
            let selected = selected(&expression);
            assert!(!selected.is_empty(), "{expression}");
            for (name, labels) in selected {
                assert_eq!(complaint(&scrape, &name, &labels), None, "{expression}");
            }
        }
    }
    let shown = all.iter().flat_map(expressions).collect::<String>();
    let unused = scrape.types.keys().filter(|name| !shown.contains(name.as_str()));
    // The dashboard's list of nodes and the number of looks.
    assert_eq!(unused.collect::<Vec<_>>(), ["vlan_bridge_agent_passes"]);
    for wrong in [("vlan_bridge_nothing", ""), ("vlan_bridge_addresses", "pod")] {
        assert!(complaint(&scrape, wrong.0, &[wrong.1.to_owned()].into()).is_some());
    }
}

#[test]
fn prometheus_takes_the_alerts_and_each_fires_for_its_reason() {
    let scratch = Scratch::new("alerts");
    let rules = deploy("alerts.yaml").canonicalize().unwrap();
    run(Command::new(promtool()).args(["check", "rules"]).arg(&rules)).expect_ok();
    let alerts = expressions(&yaml(&rules)).len().to_string();
    let test = scratch.path().join("test.yaml");
    let series = SERIES
        .replace("RULES", &rules.display().to_string())
        .replace("value: ALERTS", &format!("value: {alerts}"));
    fs::write(&test, series).unwrap();
    run(Command::new(promtool()).args(["test", "rules"]).arg(&test)).expect_ok();
}

#[test]
fn prometheus_takes_every_expression_of_the_dashboard() {
    let scratch = Scratch::new("dashboard");
    let dashboard: Value =
        serde_json::from_str(&fs::read_to_string(deploy("grafana.json")).unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<u64> = panels.iter().filter_map(|panel| panel["id"].as_u64()).collect();
    assert_eq!(ids.len(), panels.len());
    assert!(panels.iter().all(|panel| panel["title"].is_string() && panel["gridPos"]["w"].is_u64()));
    let rules: Vec<Value> = expressions(&dashboard)
        .iter()
        .enumerate()
        .map(|(at, expression)| {
            let expression = expression.replace("$__rate_interval", "5m").replace("$instance", ".*");
            serde_json::json!({"record": format!("panel:{at}"), "expr": expression})
        })
        .collect();
    let path = scratch.path().join("rules.yaml");
    let check = |rules: &[Value]| {
        // YAML contains JSON.
        let groups = serde_json::json!({"groups": [{"name": "dashboard", "rules": rules}]});
        fs::write(&path, groups.to_string()).unwrap();
        run(Command::new(promtool()).args(["check", "rules"]).arg(&path))
    };
    check(&rules).expect_ok();
    let wrong = serde_json::json!({"record": "panel:wrong", "expr": "sum by (("});
    assert!(!check(&[rules, vec![wrong]].concat()).ok());
}
