//! The messages in a stream of bytes (PostgreSQL manual, "Message Formats").

/// How much of a message is kept to look into. Longer statements count as keeping session state.
pub(crate) const KEPT: usize = 64 * 1_024;

/// Cuts a stream of bytes, as they come, into messages: a letter, a length of four bytes that counts itself, a body.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    header: [u8; 5],
    /// Bytes of the header that are there. The start-up message has no letter: its header starts at the second byte.
    filled: usize,
    /// Bytes of the body that are still to come.
    left: usize,
    body: Vec<u8>,
    whole: bool,
}

impl Frames {
    /// Those of a client: its first message, and only that, has no letter.
    pub(crate) fn of_a_client() -> Self {
        Self { filled: 1, ..Self::default() }
    }

    /// Takes in the next bytes. `message` is told each message of a `wanted` letter: its letter, as much of its body as is kept,
    /// and whether that is all of it.
    pub(crate) fn feed(
        &mut self,
        mut bytes: &[u8],
        wanted: impl Fn(u8) -> bool,
        mut message: impl FnMut(u8, &[u8], bool),
    ) {
        while !bytes.is_empty() {
            if self.filled < self.header.len() {
                let count = bytes.len().min(self.header.len() - self.filled);
                self.header[self.filled..self.filled + count].copy_from_slice(&bytes[..count]);
                self.filled += count;
                bytes = &bytes[count..];
                if self.filled < self.header.len() {
                    return;
                }
                let [_, length @ ..] = self.header;
                self.left = (u32::from_be_bytes(length) as usize).saturating_sub(4);
                self.body.clear();
                self.whole = true;
            }
            let count = bytes.len().min(self.left);
            if wanted(self.header[0]) {
                let room = KEPT.saturating_sub(self.body.len()).min(count);
                self.whole &= room == count;
                self.body.extend_from_slice(&bytes[..room]);
            }
            self.left -= count;
            bytes = &bytes[count..];
            if self.left == 0 {
                message(self.header[0], &self.body, self.whole);
                self.filled = 0;
            }
        }
    }
}
