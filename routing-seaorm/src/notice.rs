//! What the server says beside an answer. sqlx hands notices to `tracing` and to nobody else.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::timeout;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Dispatch, Event, Level, Metadata, Subscriber, dispatcher};

/// Where sqlx writes notices.
const TARGET: &str = "sqlx::postgres::notice";

/// What the server says, in English, of a COMMIT whose wait for a standby was ended by a cancel (`syncrep.c`). The code of
/// this warning is that of any other.
const UNREPLICATED: &str = "canceling wait for synchronous replication";

/// A step that ends sooner was not cancelled by anybody who looked first; listening costs all of the process a little.
const SOON: Duration = Duration::from_millis(50);

/// Runs a step that may commit; `true` when the server said that it ended the wait for a synchronous standby, so that what
/// it calls a success may be on this server alone. Servers that speak another language than English are not understood.
///
/// # Cancel safety
/// That of the step.
pub(crate) async fn listen<T>(step: impl Future<Output = T>) -> (T, bool) {
    let mut step = pin!(step);
    if let Ok(outcome) = timeout(SOON, step.as_mut()).await {
        return (outcome, false);
    }
    let heard = Arc::<AtomicBool>::default();
    let next = dispatcher::get_default(Clone::clone);
    let ear = Dispatch::new(Ear { heard: heard.clone(), next });
    let outcome =
        std::future::poll_fn(|context| dispatcher::with_default(&ear, || step.as_mut().poll(context)));
    (outcome.await, heard.load(Relaxed))
}

/// Hears notices, and passes everything on.
struct Ear {
    heard: Arc<AtomicBool>,
    next: Dispatch,
}

fn is_warning(metadata: &Metadata<'_>) -> bool {
    metadata.target() == TARGET && *metadata.level() == Level::WARN
}

impl Subscriber for Ear {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        // Others were asked already, and their answer stands.
        if is_warning(metadata) { Interest::sometimes() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        is_warning(metadata) || self.next.enabled(metadata)
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        self.next.new_span(span)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        self.next.record(span, values);
    }

    fn record_follows_from(&self, span: &Id, follows: &Id) {
        self.next.record_follows_from(span, follows);
    }

    fn event(&self, event: &Event<'_>) {
        if is_warning(event.metadata()) {
            event.record(&mut Words(&self.heard));
        }
        if self.next.enabled(event.metadata()) {
            self.next.event(event);
        }
    }

    fn enter(&self, span: &Id) {
        self.next.enter(span);
    }

    fn exit(&self, span: &Id) {
        self.next.exit(span);
    }

    fn clone_span(&self, id: &Id) -> Id {
        self.next.clone_span(id)
    }

    fn try_close(&self, id: Id) -> bool {
        self.next.try_close(id)
    }
}

/// Looks for the words in an event's message.
struct Words<'a>(&'a AtomicBool);

impl Visit for Words<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" && format!("{value:?}").contains(UNREPLICATED) {
            self.0.store(true, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_end_of_a_wait_that_took_long_is_heard() {
        let warn = |text: &'static str, after| async move {
            tokio::time::sleep(Duration::from_millis(after)).await;
            tracing::event!(target: "sqlx::postgres::notice", Level::WARN, message = text);
            7
        };
        let full = "canceling wait for synchronous replication due to user request";
        assert_eq!(listen(warn(full, 150)).await, (7, true));
        assert_eq!(listen(warn("there is no transaction in progress", 150)).await, (7, false));
        assert_eq!(listen(warn(full, 0)).await, (7, false));
    }
}
