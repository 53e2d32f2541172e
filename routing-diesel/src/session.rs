//! The socket of a connection, watched.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use routing_core::tls::Tls;
use routing_core::wire::{FromClient, FromServer, Wire};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_postgres::config::Host;
use tokio_postgres::tls::{ChannelBinding, TlsStream};

use crate::error::ConnectError;
use crate::tls::{self, Plain, Stream};

/// How long sent bytes may stay unacknowledged before the kernel gives the connection up (`TCP_USER_TIMEOUT`). It ends
/// a connection through a cut network, where no error would ever come. Below, a slow network would lose healthy
/// connections.
const USER_TIMEOUT: Duration = Duration::from_secs(15);

/// The pause before the kernel asks a silent peer whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Opens a stream to the first of the configured hosts that answers, encrypted as `tls` says.
pub(crate) async fn open(
    config: &tokio_postgres::Config,
    tls: &Tls,
) -> Result<Box<dyn Stream>, ConnectError> {
    let mut failure = ConnectError::Io(io::Error::new(io::ErrorKind::InvalidInput, "the URL names no host"));
    for (index, host) in config.get_hosts().iter().enumerate() {
        let ports = config.get_ports();
        let port = ports.get(index).or(ports.first()).copied().unwrap_or(5432);
        match open_one(host, port, tls).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

async fn open_one(host: &Host, port: u16, tls: &Tls) -> Result<Box<dyn Stream>, ConnectError> {
    match host {
        Host::Tcp(host) => {
            let stream = TcpStream::connect((host.as_str(), port)).await?;
            stream.set_nodelay(true)?;
            let socket = SockRef::from(&stream);
            socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
            #[cfg(target_os = "linux")]
            socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
            tls::encrypt(stream, host, port, tls).await
        }
        #[cfg(unix)]
        Host::Unix(directory) => {
            // It does not leave the machine: as in libpq, nothing of `tls` counts.
            let path = directory.join(format!(".s.PGSQL.{port}"));
            Ok(Box::new(Plain(tokio::net::UnixStream::connect(path).await?)))
        }
    }
}

/// A stream whose bytes, before encryption, tell a [`Wire`] what they say.
pub(crate) struct Watched {
    stream: Box<dyn Stream>,
    wire: Arc<Wire>,
    from_server: FromServer,
    from_client: FromClient,
}

impl Watched {
    pub(crate) fn new(stream: Box<dyn Stream>, wire: Arc<Wire>) -> Self {
        Self { stream, wire, from_server: FromServer::default(), from_client: FromClient::default() }
    }
}

impl TlsStream for Watched {
    fn channel_binding(&self) -> ChannelBinding {
        self.stream.channel_binding()
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
        this.from_server.feed(&buffer.filled()[before..], &this.wire);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.stream).poll_write(context, bytes))?;
        this.from_client.feed(&bytes[..written], &this.wire);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
