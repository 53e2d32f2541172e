//! From nothing to a served API, and back.

use std::io::{self, Write as _};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use routing_axum::Control;
use routing_cluster::{DownError, Progress};
use routing_core::{Backend, ConfigError, Router, RouterConfig};
use routing_diesel::Diesel;
use routing_seaorm::{SeaOrm, SeaOrmOptions};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::database::{Database, DatabaseError, Source};
use crate::home::TRY;
use crate::metrics::{RecorderError, install_recorder};
use crate::orm::Orm;
use crate::prepare::{PrepareError, Prepared, prepare};
use crate::reload::Reloading;
use crate::stop::{GRACE, serve_until};

/// Where and on what to serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServeOptions {
    /// What the handlers run on.
    pub orm: Orm,
    /// The port on 127.0.0.1; 0 takes a free one.
    pub port: u16,
    /// A TOML file that names the servers; it goes before the environment. SIGHUP has it read again.
    pub config: Option<PathBuf>,
    /// How long connections are taken after a signal, while `/health/ready` says 503.
    pub drain_delay: Duration,
    /// Whether to mount the routes by which an operator intervenes. They ask nobody who they are.
    pub control: bool,
    /// The directory of the cluster, if neither names a database.
    pub dir: PathBuf,
}

/// Why the API was not served, or did not end well.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The port is taken or may not be used.
    #[error("port {port} of 127.0.0.1 cannot be used: choose another one with --port")]
    Port {
        /// The port.
        port: u16,
        /// The operating system's answer.
        source: io::Error,
    },
    /// Signals cannot be received.
    #[error("signals cannot be received")]
    Signals(#[source] io::Error),
    /// There is no metrics recorder.
    #[error(transparent)]
    Recorder(#[from] RecorderError),
    /// There is no database.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The router refused its configuration.
    #[error("the router did not start")]
    Router(#[from] ConfigError),
    /// The database could not be given its tables and data.
    #[error("the database could not be prepared")]
    Prepare(#[from] PrepareError),
    /// The server failed.
    #[error("the server failed")]
    Server(#[source] io::Error),
    /// The cluster did not stop.
    #[error("the cluster did not stop")]
    Down(#[from] DownError),
}

/// Serves the API until SIGINT or SIGTERM, on the database of the environment or on a cluster of its own, which it
/// stops at the end; its data stays.
///
/// On the way out no request that was received goes without its response: see the documentation of the screener's
/// shutdown. A second signal cuts what still runs.
///
/// # Errors
/// When a step on the way fails. A cluster that was started is stopped in that case too.
pub async fn serve(options: ServeOptions, progress: &dyn Progress) -> Result<(), ServeError> {
    let mut signals = Signals::new().map_err(ServeError::Signals)?;
    // First, so that a taken port leaves no cluster behind.
    let port = options.port;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .await
        .map_err(|source| ServeError::Port { port, source })?;
    let render = install_recorder()?;
    let database = tokio::select! {
        biased;
        () = signals.next() => return Ok(()),
        found = Database::find(options.config.as_deref(), &options.dir, progress) => found?,
    };
    let own = database.is_own();
    let (config, source) = (database.config.clone(), database.source.clone());
    let served = match options.orm {
        Orm::SeaOrm => {
            let app = |router| controlled(crate::seaorm::app, router, render, options.control);
            run::<SeaOrm>(config, source, &options, listener, app, &mut signals, progress).await
        }
        Orm::Diesel => {
            let app = |router| controlled(crate::diesel::app, router, render, options.control);
            run::<Diesel>(config, source, &options, listener, app, &mut signals, progress).await
        }
    };
    if own {
        progress.step("stopping the cluster");
    }
    let released = database.release().await;
    if own && released.is_ok() {
        progress.finish("the cluster has stopped; its data stays");
    }
    served?;
    Ok(released?)
}

/// Gives the database of the environment its tables and its data, and serves nothing.
///
/// # Errors
/// When the environment names no database, or a step fails; then nothing has changed.
///
/// # Cancel safety
/// Dropping the future rolls back.
pub async fn load(progress: &dyn Progress) -> Result<Prepared, ServeError> {
    let config = RouterConfig::from_env()?;
    let router = Router::<SeaOrm>::start(config, SeaOrmOptions::default())?;
    let prepared = prepare(&router, progress).await;
    router.shutdown(GRACE).await;
    Ok(prepared?)
}

/// The application, with the routes by which an operator intervenes if they are wanted.
fn controlled<B: Backend, R>(
    app: impl FnOnce(Router<B>, R) -> axum::Router,
    router: Router<B>,
    render: R,
    control: bool,
) -> axum::Router {
    let cluster = router.cluster().clone();
    let app = app(router, render);
    if control { app.merge(Control::new(cluster).into_routes()) } else { app }
}

/// Prepares the database and serves until a signal.
async fn run<B: Backend>(
    config: RouterConfig,
    source: Source,
    options: &ServeOptions,
    listener: TcpListener,
    app: impl FnOnce(Router<B>) -> axum::Router,
    signals: &mut Signals,
    progress: &dyn Progress,
) -> Result<(), ServeError> {
    let router = Router::<B>::start(config, B::Options::default())?;
    let served = async {
        // SeaORM brings the tables and the data, whatever the handlers run on: one cluster carries both.
        let preparing = Router::<SeaOrm>::new(router.cluster(), SeaOrmOptions::default())?;
        tokio::select! {
            biased;
            () = signals.next() => return Ok(()),
            prepared = prepare(&preparing, progress) => prepared?,
        };
        drop(preparing);
        announce(&router, &listener).map_err(ServeError::Server)?;
        let _reloading = Reloading::start(router.cluster(), source).map_err(ServeError::Signals)?;
        let app = app(router.clone());
        let served = serve_until(signals, options.drain_delay, listener, app, &router).await;
        served.map_err(ServeError::Server)
    }
    .await;
    router.shutdown(GRACE).await;
    served
}

/// Tells a person what runs and what to try.
fn announce<B: Backend>(router: &Router<B>, listener: &TcpListener) -> io::Result<()> {
    let address = listener.local_addr()?;
    let mut out = io::stdout().lock();
    writeln!(out)?;
    for node in router.status().nodes {
        let role = if node.is_primary { "primary" } else { node.role.as_str() };
        let state = node.refused.map_or_else(|| "serving".to_owned(), |why| format!("not serving: {why}"));
        writeln!(out, "  {:<6} {:<8} {:<24} {state}", node.name, role, node.address)?;
    }
    writeln!(out, "\nThe screener is at http://{address}. Try:\n")?;
    for path in TRY {
        writeln!(out, "  curl -i 'http://{address}{path}'")?;
    }
    writeln!(out, "\nCtrl-C stops it.")?;
    out.flush()
}

/// What asks the process to end.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for the next one.
    ///
    /// # Cancel safety
    /// Dropping the future loses none.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
