//! The processes of one server, found through `/proc` (or `ps` where there is none), and the signals to them.
//!
//! A process id from a file may be stale and may by now belong to anybody, so no signal is sent to a
//! process before its arguments or its working directory have shown that it serves the data directory.

use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::memory;

/// Between two looks at the process table; dying processes need a few milliseconds.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// How many looks are taken before a signal counts as without effect: 5 s.
const LOOKS: u32 = 500;
/// Programs that write into a data directory.
const PROGRAMS: [&str; 6] = ["postgres", "postmaster", "initdb", "pg_basebackup", "pg_rewind", "pg_ctl"];

/// One line of the process table; zombies are left out, they are dead already.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    parent: i32,
    name: String,
    stopped: bool,
    arguments: Vec<String>,
}

impl Process {
    /// Reads one process; `None` when it has ended or is a zombie.
    fn read(pid: i32) -> Option<Process> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name stands in parentheses and may itself hold parentheses and spaces.
        let (head, tail) = stat.rsplit_once(')')?;
        let name = head.split_once('(')?.1.to_owned();
        let mut fields = tail.split_whitespace();
        let (state, parent) = (fields.next()?, fields.next()?.parse().ok()?);
        let command_line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let word = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let arguments = command_line.split(|byte| *byte == 0).map(word).collect();
        Process { pid, parent, name, stopped: false, arguments }.in_state(state)
    }

    /// Reads one line of `ps -o pid=,ppid=,state=,command=`, which does not show where an argument ends.
    fn parse(line: &str) -> Option<Process> {
        let mut fields = line.split_whitespace();
        let (pid, parent) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        let state = fields.next()?;
        let arguments: Vec<String> = fields.map(str::to_owned).collect();
        let process = Process { pid, parent, name: String::new(), stopped: false, arguments };
        Process { name: process.program().to_owned(), ..process }.in_state(state)
    }

    fn in_state(self, state: &str) -> Option<Process> {
        match state.chars().next()? {
            'Z' | 'X' => None,
            'T' | 't' => Some(Process { stopped: true, ..self }),
            _ => Some(self),
        }
    }

    /// Whether the process is stopped by a signal.
    pub(crate) fn is_paused(&self) -> bool {
        self.stopped
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        match kill(Pid::from_raw(self.pid), signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn program(&self) -> &str {
        let first = self.arguments.first().map_or("", String::as_str);
        first.rsplit('/').next().unwrap_or(first)
    }

    fn works_in(&self, data_dir: &Path) -> bool {
        self.name == "postgres"
            && fs::read_link(format!("/proc/{}/cwd", self.pid)).is_ok_and(|dir| dir == data_dir)
    }

    fn is_postmaster_of(&self, data_dir: &Path) -> bool {
        let named = matches!(self.program(), "postgres" | "postmaster") && self.mentions(data_dir);
        // A child has the same working directory, but its title is not a program with arguments.
        named
            || (self.works_in(data_dir) && !self.arguments.first().is_some_and(|title| title.contains(": ")))
    }

    fn mentions(&self, data_dir: &Path) -> bool {
        self.arguments.iter().any(|argument| Path::new(argument) == data_dir)
    }

    fn serves(&self, data_dir: &Path) -> bool {
        (PROGRAMS.contains(&self.program()) && self.mentions(data_dir))
            || self.is_launcher_of(data_dir)
            || self.works_in(data_dir)
    }

    /// The shell between `pg_ctl start` and the server it is about to become.
    fn is_launcher_of(&self, data_dir: &Path) -> bool {
        let Some(data_dir) = data_dir.to_str() else { return false };
        matches!(self.arguments.as_slice(), [_, flag, script, ..]
            if flag == "-c" && script.starts_with("exec ") && script.contains(&format!("\"{data_dir}\"")))
    }
}

fn has_proc() -> bool {
    Path::new("/proc/self/stat").exists()
}

fn table() -> Vec<Process> {
    if !has_proc() {
        return table_of_ps();
    }
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(Process::read).collect()
}

fn table_of_ps() -> Vec<Process> {
    let output = Command::new("ps").args(["-axww", "-o", "pid=,ppid=,state=,command="]).output();
    let text = output.map_or_else(|_| String::new(), |it| String::from_utf8_lossy(&it.stdout).into_owned());
    text.lines().filter_map(Process::parse).collect()
}

/// The postmaster of `data_dir`, if `postmaster.pid` names a live process that is one.
pub(crate) fn postmaster(data_dir: &Path) -> Option<Process> {
    let text = fs::read_to_string(data_dir.join("postmaster.pid")).ok()?;
    let pid: i32 = text.lines().next()?.trim().parse().ok()?;
    let process = if has_proc() {
        Process::read(pid)
    } else {
        table_of_ps().into_iter().find(|process| process.pid == pid)
    };
    process.filter(|process| process.is_postmaster_of(data_dir))
}

/// What the processes of `data_dir` say of themselves in the process list: PostgreSQL's children tell there what they do.
pub(crate) fn titles(data_dir: &Path) -> Vec<(i32, String)> {
    let title = |process: Process| {
        // Where there is no `/proc`, the list does not show where an argument ends.
        let words =
            if has_proc() { process.arguments.into_iter().take(1).collect() } else { process.arguments };
        (process.pid, words.join(" ").trim().to_owned())
    };
    family(data_dir).into_iter().map(title).collect()
}

/// Whether any process serves or makes `data_dir`.
pub(crate) fn is_served(data_dir: &Path) -> bool {
    !family(data_dir).is_empty()
}

/// Everything that serves or makes `data_dir`, with all descendants; the postmaster comes first.
fn family(data_dir: &Path) -> Vec<Process> {
    let table = table();
    let mut members: HashSet<i32> =
        table.iter().filter(|process| process.serves(data_dir)).map(|process| process.pid).collect();
    loop {
        let before = members.len();
        members.extend(
            table
                .iter()
                .filter(|process| members.contains(&process.parent))
                .map(|p| p.pid)
                .collect::<Vec<_>>(),
        );
        if members.len() == before {
            break;
        }
    }
    let mut family: Vec<Process> =
        table.into_iter().filter(|process| members.contains(&process.pid)).collect();
    family.sort_by_key(|process| !process.is_postmaster_of(data_dir));
    family
}

/// Kills every process of `data_dir` and returns how many were found; blocks until they are gone.
pub(crate) fn kill_family(data_dir: &Path) -> io::Result<usize> {
    let mut found = 0;
    // Two empty looks, because a launcher may have become a server in the middle of one look.
    let mut empty = 0;
    for _ in 0..LOOKS {
        let family = family(data_dir);
        found = found.max(family.len());
        empty = if family.is_empty() { empty + 1 } else { 0 };
        if empty == 2 {
            return Ok(found);
        }
        // A stopped postmaster forks nothing between this look and the kill.
        if let Some(first) = family.first() {
            first.signal(Signal::SIGSTOP)?;
        }
        for process in family.iter().rev() {
            process.signal(Signal::SIGKILL)?;
        }
        thread::sleep(LOOK_AGAIN);
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "processes outlived SIGKILL for 5 s"))
}

/// Kills every process of `data_dir` for good: also gives back the memory that only a new start would.
pub(crate) fn end_family(data_dir: &Path) -> io::Result<usize> {
    let found = kill_family(data_dir)?;
    memory::release(data_dir);
    Ok(found)
}

/// Stops (`SIGSTOP`) the postmaster, then all its descendants; blocks until all stand still.
pub(crate) fn pause_family(data_dir: &Path) -> io::Result<()> {
    signal_until(data_dir, Signal::SIGSTOP, true)
}

/// Continues (`SIGCONT`) every process of `data_dir`; blocks until all run.
pub(crate) fn resume_family(data_dir: &Path) -> io::Result<()> {
    signal_until(data_dir, Signal::SIGCONT, false)
}

fn signal_until(data_dir: &Path, signal: Signal, stopped: bool) -> io::Result<()> {
    for _ in 0..LOOKS {
        let rest: Vec<Process> =
            family(data_dir).into_iter().filter(|process| process.stopped != stopped).collect();
        if rest.is_empty() {
            return Ok(());
        }
        for process in rest {
            process.signal(signal)?;
        }
        thread::sleep(LOOK_AGAIN);
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, format!("{signal} had no effect for 5 s")))
}

/// Kills the processes of all its data directories when dropped, unless disarmed.
///
/// An operation that starts servers holds one, so that neither an error nor a dropped future leaves a
/// server behind.
#[derive(Debug, Default)]
pub(crate) struct KillGuard {
    data_dirs: Vec<PathBuf>,
}

impl KillGuard {
    pub(crate) fn watch(&mut self, data_dir: PathBuf) {
        self.data_dirs.push(data_dir);
    }

    pub(crate) fn disarm(mut self) {
        self.data_dirs.clear();
    }
}

impl Drop for KillGuard {
    fn drop(&mut self) {
        for data_dir in &self.data_dirs {
            // Nothing better can be done in a drop; the error that led here is already on its way.
            let _ = end_family(data_dir);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(arguments: &[&str]) -> Process {
        let arguments = arguments.iter().map(|word| (*word).to_owned()).collect();
        Process { pid: i32::MAX, parent: 1, name: "postgres".to_owned(), stopped: false, arguments }
    }

    #[test]
    fn a_server_is_known_by_its_data_directory() {
        let data_dir = Path::new("/c/pg1/data");
        assert!(process(&["/usr/bin/postgres", "-D", "/c/pg1/data"]).is_postmaster_of(data_dir));
        assert!(!process(&["/usr/bin/postgres", "-D", "/c/pg2/data"]).is_postmaster_of(data_dir));
        assert!(!process(&["tail", "-f", "/c/pg1/data"]).serves(data_dir));
        assert!(!process(&["postgres: pg1: checkpointer "]).is_postmaster_of(data_dir));
    }

    #[test]
    fn the_launching_shell_belongs_to_the_family() {
        let script = "exec \"/usr/bin/postgres\" -D \"/c/pg1/data\" < /dev/null";
        assert!(process(&["/bin/sh", "-c", script]).serves(Path::new("/c/pg1/data")));
        assert!(!process(&["/bin/sh", "-c", script]).serves(Path::new("/c/pg1")));
    }

    #[test]
    fn a_line_of_ps_is_a_process() {
        let data_dir = Path::new("/c/pg1/data");
        let line = "  12     1 Ss   /opt/pg/bin/postgres -D /c/pg1/data";
        let process = Process::parse(line).unwrap();
        assert!(process.is_postmaster_of(data_dir) && !process.is_paused());
        assert!(Process::parse(&line.replace("Ss", "T")).unwrap().is_paused());
        assert!(Process::parse(&line.replace("Ss", "Z")).is_none());
        assert!(!Process::parse("13 12 S postgres: pg1: checkpointer").unwrap().is_postmaster_of(data_dir));
    }

    #[test]
    fn the_own_process_is_readable() {
        let own = Process::read(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(!own.is_paused());
        assert!(!own.arguments.is_empty());
    }
}
