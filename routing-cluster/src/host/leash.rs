//! A leash: a program that works for this process alone, and dies with it however that ends.

use std::{ffi::OsStr, process::Stdio};

use tokio::process::Command;

/// A shell that runs a program until the process that holds the other end of its standard input ends. Nothing is
/// written to that pipe. All of the process group is killed then: `pg_basebackup` has a child, which would go on alone.
const LEASH: &str = r#"exec 3<&0
"$@" </dev/null 3<&- &
program=$!
{ read -r _ <&3; kill -KILL 0; } >/dev/null 2>&1 &
watch=$!
wait "$program"
status=$?
kill "$watch" 2>/dev/null
exit "$status""#;

/// Lets a shell, prepared like any program and with a process group of its own, run `program`. Arguments follow. The
/// child's standard input is the leash: whoever drops it ends the program.
pub(super) fn leashed(mut shell: Command, program: &OsStr) -> Command {
    shell.args(["-c", LEASH, "sh"]).arg(program).stdin(Stdio::piped());
    shell
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path, time::Duration};

    use tokio::time::{Instant, sleep};

    use super::*;

    fn script(text: &str) -> Command {
        let mut shell = Command::new("/bin/sh");
        shell.process_group(0).kill_on_drop(true);
        let mut command = leashed(shell, "/bin/sh".as_ref());
        command.args(["-c", text]).stdout(Stdio::piped());
        command
    }

    fn runs(pid: &str) -> bool {
        let stat = fs::read_to_string(Path::new("/proc").join(pid).join("stat")).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z ")
    }

    #[tokio::test]
    async fn the_program_answers_as_without_a_leash() {
        let mut child = script("echo out; exit 3").spawn().unwrap();
        let _held = child.stdin.take();
        let output = child.wait_with_output().await.unwrap();
        assert_eq!((output.stdout.as_slice(), output.status.code()), (&b"out\n"[..], Some(3)));
    }

    #[tokio::test]
    async fn the_program_and_its_children_die_with_whoever_holds_the_leash() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pids");
        let text = format!("sleep 60 & echo $$ $! >'{0}.new'; mv '{0}.new' '{0}'; wait", file.display());
        let mut child = script(&text).spawn().unwrap();
        while !file.exists() {
            sleep(Duration::from_millis(5)).await;
        }
        let pids: Vec<String> =
            fs::read_to_string(&file).unwrap().split_whitespace().map(str::to_owned).collect();
        assert!(pids.iter().all(|pid| runs(pid)));
        // The end of this process would close the pipe like this.
        drop(child.stdin.take());
        let begun = Instant::now();
        while pids.iter().any(|pid| runs(pid)) {
            assert!(begun.elapsed() < Duration::from_secs(30), "{pids:?} still run");
            sleep(Duration::from_millis(5)).await;
        }
        child.wait().await.unwrap();
    }
}
