//! Telling a person what a long operation is doing.

use std::{io::IsTerminal as _, sync::Mutex, sync::PoisonError, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::Instant;

/// How often the spinner turns; below that it looks stuck.
const TURN: Duration = Duration::from_millis(100);

/// Receives the steps of an operation. It only reports: it neither steers nor ends anything.
pub trait Progress: Send + Sync {
    /// A step has begun, and so the one before it has ended.
    fn step(&self, text: &str);
    /// The operation has succeeded; `text` sums it up.
    fn finish(&self, text: &str);
}

/// A spinner on standard error when that is a terminal, plain lines otherwise.
#[must_use]
pub fn progress_on_stderr() -> Box<dyn Progress> {
    if std::io::stderr().is_terminal() { Box::new(SpinnerProgress::new()) } else { Box::new(LineProgress) }
}

/// Reports nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct SilentProgress;

/// Writes each step as a line to standard error.
#[derive(Debug, Clone, Copy, Default)]
pub struct LineProgress;

/// A spinner on a terminal: the running step turns, ended steps stay above it with the time they took.
#[derive(Debug)]
pub struct SpinnerProgress {
    bar: ProgressBar,
    running: Mutex<Option<(String, Instant)>>,
}

// === impl SilentProgress ===

impl Progress for SilentProgress {
    fn step(&self, _text: &str) {}
    fn finish(&self, _text: &str) {}
}

// === impl LineProgress ===

impl Progress for LineProgress {
    fn step(&self, text: &str) {
        eprintln!("{text}");
    }

    fn finish(&self, text: &str) {
        eprintln!("{text}");
    }
}

// === impl SpinnerProgress ===

impl SpinnerProgress {
    /// A spinner that shows itself with the first step.
    #[must_use]
    pub fn new() -> SpinnerProgress {
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
            bar.set_style(style);
        }
        SpinnerProgress { bar, running: Mutex::new(None) }
    }

    fn next(&self, text: Option<&str>) {
        let next = text.map(|text| (text.to_owned(), Instant::now()));
        let ended =
            std::mem::replace(&mut *self.running.lock().unwrap_or_else(PoisonError::into_inner), next);
        if let Some((text, begun)) = ended {
            self.bar.println(format!("✓ {text} ({:.1} s)", begun.elapsed().as_secs_f64()));
        }
    }
}

impl Default for SpinnerProgress {
    fn default() -> SpinnerProgress {
        SpinnerProgress::new()
    }
}

impl Progress for SpinnerProgress {
    fn step(&self, text: &str) {
        self.next(Some(text));
        self.bar.enable_steady_tick(TURN);
        self.bar.set_message(text.to_owned());
    }

    fn finish(&self, text: &str) {
        self.next(None);
        self.bar.println(text);
        self.bar.finish_and_clear();
    }
}

impl Drop for SpinnerProgress {
    fn drop(&mut self) {
        // After a failure the line must not turn on below the error.
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_object_safe() {
        let all: [Box<dyn Progress>; 2] = [Box::new(SilentProgress), Box::new(SpinnerProgress::new())];
        for progress in all {
            progress.step("one");
            progress.finish("done");
        }
    }
}
