//! A network that can be broken at will.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// What a proxy does with connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Bytes pass.
    #[default]
    Pass,
    /// New connections are reset at once; those that exist go on.
    Refuse,
    /// New connections are accepted, nothing passes in either direction, and no one is told. What was on its way
    /// arrives when the mode ends, as after a partition.
    Blackhole,
    /// As [`Blackhole`](Self::Blackhole), towards the server alone: what the server says arrives.
    SwallowToServer,
    /// As [`Blackhole`](Self::Blackhole), towards the client alone: the server hears, and its answers do not arrive.
    SwallowToClient,
    /// Bytes pass late.
    Delay {
        /// Towards the server.
        to_server: Duration,
        /// Towards the client.
        to_client: Duration,
    },
    /// Bytes pass late by any time up to these, drawn anew for each piece.
    Jitter {
        /// Towards the server.
        to_server: Duration,
        /// Towards the client.
        to_client: Duration,
    },
}

/// A TCP proxy on this machine in front of one port. Dropping it closes everything.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    mode: watch::Sender<Mode>,
    cuts: watch::Sender<u64>,
    taken: Arc<AtomicU64>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// A proxy that lets everything pass.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn start(server: u16) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let (mode, cuts) = (watch::Sender::new(Mode::Pass), watch::Sender::new(0));
        let taken = Arc::<AtomicU64>::default();
        let accepting =
            tokio::spawn(accept(listener, server, mode.subscribe(), cuts.subscribe(), taken.clone()));
        Ok(Self { port, mode, cuts, taken, accepting })
    }

    /// Where it listens.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How many connections it has taken in, ever.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.taken.load(Relaxed)
    }

    /// Changes what happens to connections from now on.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Resets every connection that exists, on both sides.
    pub fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

/// A proxy before each node of a cluster.
#[derive(Debug)]
pub struct Proxies(Vec<(&'static str, Proxy)>);

impl Proxies {
    pub(crate) fn new(proxies: Vec<(&'static str, Proxy)>) -> Self {
        Self(proxies)
    }

    /// The proxy before a node.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn get(&self, node: &str) -> &Proxy {
        let found = self.0.iter().find(|(name, _)| *name == node);
        &found.expect("there is a proxy before every node").1
    }
}

async fn accept(
    listener: TcpListener,
    server: u16,
    mode: watch::Receiver<Mode>,
    mut cuts: watch::Receiver<u64>,
    taken: Arc<AtomicU64>,
) {
    loop {
        let Ok((client, _)) = listener.accept().await else { return };
        taken.fetch_add(1, Relaxed);
        if *mode.borrow() == Mode::Refuse {
            reset(&client);
            continue;
        }
        // Cuts so far are not this connection's; those from now on are, also before the server is reached.
        cuts.borrow_and_update();
        tokio::spawn(carry(client, server, mode.clone(), cuts.clone()));
    }
}

async fn carry(
    mut client: TcpStream,
    server: u16,
    mut mode: watch::Receiver<Mode>,
    cuts: watch::Receiver<u64>,
) {
    let _ = client.set_nodelay(true);
    // One that swallows one way takes connections.
    if open(&mut mode, Mode::Blackhole).await.is_err() {
        return;
    }
    let Ok(mut server) = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).await else {
        reset(&client);
        return;
    };
    let _ = server.set_nodelay(true);
    let was_cut = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        tokio::select! {
            biased;
            () = cut(cuts) => true,
            ended = async {
                tokio::try_join!(
                    pump(from_client, to_server, mode.clone(), Mode::SwallowToServer, |delays| delays.0),
                    pump(from_server, to_client, mode.clone(), Mode::SwallowToClient, |delays| delays.1),
                )
            } => ended.is_err(),
        }
    };
    if was_cut {
        reset(&client);
        reset(&server);
    }
}

/// Carries bytes one way until the sender ends.
async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut mode: watch::Receiver<Mode>,
    swallows: Mode,
    delay: impl Fn((Duration, Duration)) -> Duration,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let length = from.read(&mut buffer).await?;
        match open(&mut mode, swallows).await? {
            Mode::Delay { to_server, to_client } => sleep(delay((to_server, to_client))).await,
            Mode::Jitter { to_server, to_client } => {
                sleep(delay((to_server, to_client)).mul_f64(fastrand::f64())).await;
            }
            _ => {}
        }
        if length == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..length]).await?;
    }
}

/// Waits until bytes may pass, in the direction that `swallows` stops.
async fn open(mode: &mut watch::Receiver<Mode>, swallows: Mode) -> io::Result<Mode> {
    let open = mode.wait_for(|mode| *mode != Mode::Blackhole && *mode != swallows).await;
    open.map(|mode| *mode).map_err(|_| io::ErrorKind::ConnectionAborted.into())
}

/// Ends at the next cut, or with the proxy.
async fn cut(mut cuts: watch::Receiver<u64>) {
    let _ = cuts.changed().await;
}

/// Closing it now sends RST instead of FIN.
fn reset(stream: &TcpStream) {
    let _ = stream.set_zero_linger();
}
