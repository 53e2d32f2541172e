//! What SQL text shows about a statement: whether it may run on a standby, whether it leaves something in its session,
//! and what it looks like without its values.
//!
//! All of it is told from one pass over the tokens: comments (nested), constants of every kind, dollar quotes and quoted
//! identifiers are known, so that nothing in them is taken for a keyword. It knows words and where they stand, not the
//! whole grammar, and errs on the safe side.

mod answers;
mod classification;
mod constant;
mod functions;
mod harmless;
mod keyword;
mod lexer;
#[cfg(test)]
mod linear;
mod scan;
mod session_state;
mod shape;
mod statement;

pub use answers::Answers;
pub use classification::{Classifier, StatementKind, UnknownFunctions, classify};
pub(crate) use session_state::controls_transaction;
pub use session_state::{keeps_session_state, may_begin_transaction};
pub use shape::{Shape, shape};
