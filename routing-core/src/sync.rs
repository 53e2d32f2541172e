//! What threads share, named in one place: `routing-core/loom` puts the model checker's types here.

pub(crate) use std::sync::{Mutex, MutexGuard, PoisonError, atomic};
