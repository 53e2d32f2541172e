//! The database handles of a handler.

use std::fmt;

use axum::extract::{FromRef, FromRequestParts, OptionalFromRequestParts};
use http::request::Parts;
use routing_core::{AutomaticBackend, Backend, Consistency, Priority, Routed, Router, Session};

use crate::rejection::MissingLayer;
use crate::setting::RouteSetting;

/// A handle for reading. It takes no connection until a statement runs, so none is held while a body uploads.
///
/// The application's state must hold a [`Router<B>`](Router): be it, or implement `FromRef` for it. An application
/// that may run without a database takes `Option<ReadDb<B>>`, which is `None` when its state's `Option<Router<B>>` is.
///
/// A state without a router does not compile:
///
/// ```compile_fail
/// use routing_axum::ReadDb;
/// use routing_core::Backend;
///
/// fn routes<B: Backend>() -> axum::Router {
///     async fn list<B: Backend>(_: ReadDb<B>) {}
///     axum::Router::new().route("/", axum::routing::get(list::<B>)).with_state(())
/// }
/// ```
///
/// # Errors
/// [`MissingLayer`] as the rejection.
pub struct ReadDb<B: Backend>(pub B::Read);

/// A handle for writing, to the proven primary. As lazy as [`ReadDb`], with the same demands on the state.
///
/// # Errors
/// [`MissingLayer`] as the rejection.
pub struct WriteDb<B: Backend>(pub B::Write);

/// A handle for both, which tells reads from writes by their text; for backends that can. As lazy as [`ReadDb`], with the
/// same demands on the state.
///
/// # Errors
/// [`MissingLayer`] as the rejection.
pub struct Db<B: AutomaticBackend>(pub B::Automatic);

/// A state that holds the router of `B`. Implemented for every state that `Router<B>: FromRef<State>` holds for; it
/// exists for the compiler's message.
#[diagnostic::on_unimplemented(
    message = "the application's state `{Self}` holds no `Router<{B}>`",
    note = "call `.with_state(router)`, or implement `FromRef<{Self}>` for `Router<{B}>`"
)]
pub trait HoldsRouter<B: Backend> {
    /// The router.
    fn router(&self) -> Router<B>;
}

// === impl HoldsRouter ===

#[diagnostic::do_not_recommend]
impl<S, B> HoldsRouter<B> for S
where
    B: Backend,
    Router<B>: FromRef<S>,
{
    fn router(&self) -> Router<B> {
        Router::from_ref(self)
    }
}

// === impl ReadDb ===

impl<S, B> FromRequestParts<S> for ReadDb<B>
where
    B: Backend,
    S: HoldsRouter<B> + Send + Sync,
{
    type Rejection = MissingLayer;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, MissingLayer> {
        Ok(Self(B::read(routed(parts, &state.router())?)))
    }
}

impl<S, B> OptionalFromRequestParts<S> for ReadDb<B>
where
    B: Backend,
    S: Send + Sync,
    Option<Router<B>>: FromRef<S>,
{
    type Rejection = MissingLayer;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Option<Self>, MissingLayer> {
        Option::from_ref(state)
            .map(|router: Router<B>| Ok(Self(B::read(routed(parts, &router)?))))
            .transpose()
    }
}

// The derived impls would ask for `B: Clone` and `B: Debug`.
impl<B: Backend<Read: Clone>> Clone for ReadDb<B> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<B: Backend> fmt::Debug for ReadDb<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadDb").finish_non_exhaustive()
    }
}

// === impl WriteDb ===

impl<S, B> FromRequestParts<S> for WriteDb<B>
where
    B: Backend,
    S: HoldsRouter<B> + Send + Sync,
{
    type Rejection = MissingLayer;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, MissingLayer> {
        Ok(Self(B::write(routed(parts, &state.router())?)))
    }
}

impl<S, B> OptionalFromRequestParts<S> for WriteDb<B>
where
    B: Backend,
    S: Send + Sync,
    Option<Router<B>>: FromRef<S>,
{
    type Rejection = MissingLayer;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Option<Self>, MissingLayer> {
        Option::from_ref(state)
            .map(|router: Router<B>| Ok(Self(B::write(routed(parts, &router)?))))
            .transpose()
    }
}

impl<B: Backend<Write: Clone>> Clone for WriteDb<B> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<B: Backend> fmt::Debug for WriteDb<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteDb").finish_non_exhaustive()
    }
}

// === impl Db ===

impl<S, B> FromRequestParts<S> for Db<B>
where
    B: AutomaticBackend,
    S: HoldsRouter<B> + Send + Sync,
{
    type Rejection = MissingLayer;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, MissingLayer> {
        Ok(Self(B::automatic(routed(parts, &state.router())?)))
    }
}

impl<S, B> OptionalFromRequestParts<S> for Db<B>
where
    B: AutomaticBackend,
    S: Send + Sync,
    Option<Router<B>>: FromRef<S>,
{
    type Rejection = MissingLayer;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Option<Self>, MissingLayer> {
        Option::from_ref(state)
            .map(|router: Router<B>| Ok(Self(B::automatic(routed(parts, &router)?))))
            .transpose()
    }
}

impl<B: AutomaticBackend<Automatic: Clone>> Clone for Db<B> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<B: AutomaticBackend> fmt::Debug for Db<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Db").finish_non_exhaustive()
    }
}

/// All handles of one request share its session; each has the consistency and the priority that its route asks for, else the
/// router's.
fn routed<B: Backend>(parts: &Parts, router: &Router<B>) -> Result<Routed<B>, MissingLayer> {
    let session = parts.extensions.get::<Session>().cloned().ok_or(MissingLayer)?;
    let route = parts.extensions.get::<RouteSetting<Consistency>>();
    let consistency = route.map_or(router.cluster().config().consistency, |route| route.0);
    let routed = router.routed(session, consistency);
    Ok(match parts.extensions.get::<RouteSetting<Priority>>() {
        Some(RouteSetting(priority)) => routed.prioritized(*priority),
        None => routed,
    })
}
