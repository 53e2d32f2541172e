//! A plain connection to the primary.

use std::time::Duration;

use diesel_async::AsyncPgConnection;
use routing_core::{RouteError, Router};

use crate::backend::Diesel;
use crate::error::{ConnectError, Error};
use crate::target::Target;

/// A plain `AsyncPgConnection` to the node that is the primary *now*, for what needs one outside the pools: migrations,
/// and administration. It does not follow a failover.
///
/// It waits up to `wait` for a primary to be known.
///
/// # Errors
/// `RouteError::NoPrimary` when none becomes known; [`Error::Connect`] when the primary does not let us in.
pub async fn connect_primary(router: &Router<Diesel>, wait: Duration) -> Result<AsyncPgConnection, Error> {
    router.cluster().settled(wait).await;
    let topology = router.cluster().topology();
    let Some(primary) = topology.primary() else {
        return Err(RouteError::NoPrimary(router.cluster().write_refusals()).into());
    };
    let target = Target::new(&primary.node.config().url, router.options()).map_err(ConnectError::from)?;
    let limit = router.cluster().config().connect_timeout;
    let connecting = async {
        let (client, connection, ()) = target.connect(|stream| (stream, ())).await?;
        // It ends with the client.
        tokio::spawn(async move { drop(connection.await) });
        Ok::<_, ConnectError>(AsyncPgConnection::try_from(client).await?)
    };
    tokio::time::timeout(limit, connecting).await.map_err(|_| Error::Unresponsive)?.map_err(Error::from)
}
