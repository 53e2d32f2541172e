//! Someone on the way between the router and a server.

use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// How much of what a client says is kept: the request for encryption, and the head of the first record of TLS.
const KEPT: usize = 11;

/// Lets everything pass to one port of this machine, and keeps how each client begins. Dropping it ends new connections.
#[derive(Debug)]
pub struct Eavesdropper {
    port: u16,
    heard: Arc<Mutex<Vec<Vec<u8>>>>,
    accepting: JoinHandle<()>,
}

impl Eavesdropper {
    /// Listens on a free port.
    ///
    /// # Errors
    /// When there is none.
    pub async fn start(server: u16) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let heard = Arc::<Mutex<Vec<Vec<u8>>>>::default();
        let kept = heard.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, server, kept.clone()));
            }
        });
        Ok(Self { port, heard, accepting })
    }

    /// Where it listens.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The first bytes of each connection that has said anything.
    #[must_use]
    pub fn heard(&self) -> Vec<Vec<u8>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Eavesdropper {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn carry(mut client: TcpStream, server: u16, heard: Arc<Mutex<Vec<Vec<u8>>>>) -> io::Result<()> {
    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).await?;
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let listening = async {
        let (mut begun, mut buffer) = (Vec::new(), vec![0; 4_096]);
        while begun.len() < KEPT {
            let length = from_client.read(&mut buffer).await?;
            if length == 0 {
                break;
            }
            begun.extend_from_slice(&buffer[..length]);
            to_server.write_all(&buffer[..length]).await?;
        }
        begun.truncate(KEPT);
        heard.lock().unwrap_or_else(PoisonError::into_inner).push(begun);
        tokio::io::copy(&mut from_client, &mut to_server).await?;
        to_server.shutdown().await
    };
    let answering = async {
        tokio::io::copy(&mut from_server, &mut to_client).await?;
        to_client.shutdown().await
    };
    tokio::try_join!(listening, answering).map(drop)
}
