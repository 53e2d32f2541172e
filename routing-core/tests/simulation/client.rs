//! One client: its requests, one after the other, and the tokens that it keeps.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use routing_core::{Mark, Session, SessionToken, TokenKeys};
use tokio::time::{Instant, sleep_until, timeout};

use super::draw::{BEGINS, ms};
use super::history::Place;
use super::reads::{Covered, Reading};
use super::schedule::{Act, Request};
use super::underway::Underway;
use super::violation::Promise;
use super::world::{Sim, World};
use super::writing::Writing;

/// What all instances sign tokens with.
pub(crate) const KEYS: &str = "the-key-of-all-instances-of-this-application";

/// Tokens that a client presents: its last ones.
const PRESENTED: usize = 2;

/// A token, and what it covers.
#[derive(Clone)]
struct Kept {
    text: String,
    covers: Vec<Covered>,
}

/// Sends all requests of a client.
pub(crate) async fn run(sim: Arc<Sim>, number: usize, requests: Vec<Request>) {
    let mut kept: Vec<Kept> = Vec::new();
    let mut next = sim.world().began + BEGINS;
    for (index, request) in requests.into_iter().enumerate() {
        next = next.max(Instant::now()) + request.after;
        sleep_until(next).await;
        let presented = kept[kept.len().saturating_sub(PRESENTED)..].to_vec();
        let served = Serving { sim: sim.clone(), name: format!("client {number}.{index}"), presented };
        let dropped_at = request.dropped_at;
        let outcome = unless_dropped(served.serve(&request), dropped_at).await;
        match outcome {
            Some(token) => kept.extend(token),
            None => sim.world().note(|_| format!("client {number}.{index} is dropped")),
        }
    }
}

/// Runs a future until it has had to wait so often.
async fn unless_dropped<T>(future: impl Future<Output = T>, at: Option<u32>) -> Option<T> {
    let mut future = pin!(future);
    let mut waits = 0;
    std::future::poll_fn(|context| {
        let polled: Poll<T> = Pin::new(&mut future).poll(context);
        match polled {
            Poll::Ready(value) => Poll::Ready(Some(value)),
            Poll::Pending if at.is_some_and(|at| waits >= at) => Poll::Ready(None),
            Poll::Pending => {
                waits += 1;
                Poll::Pending
            }
        }
    })
    .await
}

/// One request under way.
struct Serving {
    sim: Arc<Sim>,
    name: String,
    presented: Vec<Kept>,
}

impl Serving {
    /// Does what is asked for, as a handler would; the token that goes back to the client.
    async fn serve(self, request: &Request) -> Option<Kept> {
        let router = self.sim.router(request.instance)?;
        let session = Session::new();
        for kept in &self.presented {
            session.present(kept.text.clone());
        }
        let routed = router.routed(session.clone(), request.consistency).prioritized(request.priority);
        let covers: Vec<Covered> = self.presented.iter().flat_map(|kept| kept.covers.clone()).collect();
        let mut reading = Reading {
            sim: self.sim.clone(),
            instance: request.instance,
            name: self.name.clone(),
            covers,
            seen: Vec::new(),
            written: Vec::new(),
        };
        let writing = Writing { sim: self.sim.clone(), instance: request.instance, name: self.name.clone() };
        for act in &request.acts {
            match act {
                Act::Read => reading.read(&routed).await,
                Act::ReadLease => reading.read_lease(&routed).await,
                Act::ReadTwice => reading.read_twice(&routed).await,
                Act::Write | Act::Transaction | Act::WriteLease => {
                    let place = writing.write(&routed, *act, &reading.covers).await;
                    reading.written.extend(place);
                }
                Act::Pause(pause) => tokio::time::sleep(*pause).await,
            }
        }
        if !session.wrote() {
            return None;
        }
        self.issue(request.instance, &session, &reading.written).await
    }

    /// The token for what the request has written.
    async fn issue(&self, instance: usize, session: &Session, written: &[Place]) -> Option<Kept> {
        let underway = Underway::begin(&self.sim, instance);
        let token = timeout(ms(10_000), session.token()).await;
        drop(underway);
        let mut world = self.sim.world();
        let Ok(token) = token else {
            world.violate(Promise::Leaks, format!("{}: its token never came", self.name));
            return None;
        };
        let Some(token) = token else {
            if !written.is_empty() {
                world.violate(Promise::Session, format!("{}: no token for what it has written", self.name));
            }
            return None;
        };
        self.check_cover(&mut world, token, written);
        let keys: TokenKeys = KEYS.parse().ok()?;
        let mut covers: Vec<Covered> = Vec::new();
        if let Mark::Position(lsn) = token.mark
            && let Some(place) = world.history.place(token.timeline.0, lsn.as_u64())
        {
            covers.push(Covered { place, timeline: token.timeline.0 });
        }
        covers.extend(written.iter().map(|place| Covered { place: *place, timeline: token.timeline.0 }));
        world.note(|_| format!("{}: token {token}, issued at {}", self.name, token.issued_at.0));
        Some(Kept { text: token.encode(&keys), covers })
    }

    /// A position covers what was written on its timeline.
    fn check_cover(&self, world: &mut World, token: SessionToken, written: &[Place]) {
        let Mark::Position(lsn) = token.mark else { return };
        let Some(place) = world.history.place(token.timeline.0, lsn.as_u64()) else {
            return world.violate(Promise::Session, format!("{}: a token of no place: {token}", self.name));
        };
        for own in written {
            let own_part = world.history.common(*own, place.branch);
            if !world.history.contains(place, own_part) {
                let (own, place) = (world.history.show(*own), world.history.show(place));
                world.violate(Promise::Session, format!("{}: token {place} for a write at {own}", self.name));
            }
        }
    }
}
