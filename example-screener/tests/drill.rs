//! The operators' drill, on real servers, and its agreement with the runbook.

use std::path::Path;
use std::process::Command;

/// A file of the folder `ops`.
fn ops(file: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../ops").join(file).display().to_string()
}

#[test]
fn the_drill_brings_everything_back_but_the_mistake() {
    let screener = Path::new(env!("CARGO_BIN_EXE_example-screener"));
    let programs = screener.parent().expect("a program lies in a directory");
    let tool = programs.join("routing-cluster");
    assert!(tool.exists(), "routing-cluster is missing: cargo build -p routing-cluster");
    let mut path = programs.display().to_string();
    if let Some(servers) = std::env::var_os("PG_BIN_DIR") {
        path += &format!(":{}", Path::new(&servers).display());
    }
    path += &format!(":{}", std::env::var("PATH").unwrap_or_default());
    let output = Command::new(ops("drill")).env("PATH", path).output().expect("the drill runs");
    let (said, complained) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}\n{complained}");
    assert!(said.contains("everything came back but the mistake"), "{said}");
}

#[test]
fn every_command_of_the_drill_is_one_of_the_runbooks() {
    let read = |file: &str| std::fs::read_to_string(ops(file)).expect("a file of the folder ops");
    let (drill, runbook) = (read("drill"), read("RUNBOOK.md"));
    let commands = drill.lines().filter_map(|line| line.trim().strip_prefix("routing-cluster "));
    let mut count = 0;
    for command in commands {
        let action = command.split_whitespace().next().expect("a command has a first word");
        let named = format!("routing-cluster {action}");
        assert!(runbook.contains(&named), "the runbook does not name `{named}`");
        count += 1;
    }
    assert!(count > 8, "{count} commands");
}
