//! Round trips and bytes, counted on the wire.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Lets everything pass to one port of this machine, and counts how often the client speaks after the server has: each is a
/// round trip that somebody waits for, however many messages it carries. Counts bytes too, of both directions.
#[derive(Debug)]
pub struct Turns {
    port: u16,
    counted: Arc<Counted>,
    accepting: JoinHandle<()>,
}

/// Over all connections.
#[derive(Debug, Default)]
struct Counted {
    turns: AtomicU64,
    to_server: AtomicU64,
    to_client: AtomicU64,
}

const NOBODY: u8 = 0;
const CLIENT: u8 = 1;
const SERVER: u8 = 2;

impl Turns {
    /// Listens on a free port.
    ///
    /// # Errors
    /// When there is none.
    pub async fn start(server: u16) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let counted = Arc::<Counted>::default();
        let counting = counted.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, server, counting.clone()));
            }
        });
        Ok(Self { port, counted, accepting })
    }

    /// Where it listens.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Round trips so far, over all connections.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counted.turns.load(Relaxed)
    }

    /// Bytes so far to the server and to clients, over all connections; of what TCP carries, without its headers.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        (self.counted.to_server.load(Relaxed), self.counted.to_client.load(Relaxed))
    }
}

impl Drop for Turns {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn carry(client: TcpStream, server: u16, counted: Arc<Counted>) {
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let last = AtomicU8::new(NOBODY);
    let up = async {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(length @ 1..) = from_client.read(&mut buffer).await {
            if last.swap(CLIENT, Relaxed) != CLIENT {
                counted.turns.fetch_add(1, Relaxed);
            }
            counted.to_server.fetch_add(length as u64, Relaxed);
            if to_server.write_all(&buffer[..length]).await.is_err() {
                return;
            }
        }
    };
    let down = async {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(length @ 1..) = from_server.read(&mut buffer).await {
            last.store(SERVER, Relaxed);
            counted.to_client.fetch_add(length as u64, Relaxed);
            if to_client.write_all(&buffer[..length]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        biased;
        () = up => {}
        () = down => {}
    }
}
