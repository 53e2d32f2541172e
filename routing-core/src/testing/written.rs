//! What was written, for a test to read.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

/// Keeps what is written into it. Clones share it, so that a log's writer can be a clone:
///
/// ```
/// use std::io::Write as _;
///
/// let written = routing_core::testing::Written::default();
/// write!(written.clone(), "a line").unwrap();
/// assert_eq!(written.text(), "a line");
/// ```
#[derive(Clone, Debug, Default)]
pub struct Written(Arc<Mutex<Vec<u8>>>);

impl Written {
    /// All of it so far.
    #[must_use]
    pub fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
