//! Encrypting a stream before the driver gets it.
//!
//! The driver would do it itself, between its own bytes and the socket. Then whoever watches what the driver says to the
//! server would see only ciphertext. So the stream is made ready first, and the driver is told to trust it.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use routing_core::tls::{Tls, TlsError, TlsProblem};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::error::ConnectError;

/// SSLRequest: its own length, and a number that is no version of the protocol (manual, "Message Formats").
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// A byte stream to a server, encrypted as its URL demands.
pub(crate) trait Stream: TlsStream + Send + Unpin {}

impl<S: TlsStream + Send + Unpin> Stream for S {}

impl TlsStream for Box<dyn Stream + '_> {
    fn channel_binding(&self) -> ChannelBinding {
        (**self).channel_binding()
    }
}

/// Encrypts a new stream to `host`, if that is demanded, or wished and offered.
pub(crate) async fn encrypt(
    mut stream: TcpStream,
    host: &str,
    port: u16,
    tls: &Tls,
) -> Result<Box<dyn Stream>, ConnectError> {
    if tls.is_off() {
        return Ok(Box::new(Plain(stream)));
    }
    let failed = |problem| TlsError { server: format!("{host}:{port}"), mode: tls.mode, problem };
    stream.write_all(&SSL_REQUEST).await?;
    // One byte and no more: what comes behind it was not sent by who encrypts.
    match stream.read_u8().await? {
        b'S' => {}
        b'N' if tls.is_required() => return Err(failed(TlsProblem::NotOffered).into()),
        b'N' => return Ok(Box::new(Plain(stream))),
        _ => {
            let found = "what answers does not speak PostgreSQL's protocol".to_owned();
            return Err(failed(TlsProblem::Other(found)).into());
        }
    }
    let mut connector = connector(tls).await?;
    let Ok(connector) = MakeTlsConnect::<TcpStream>::make_tls_connect(&mut connector, host);
    let encrypted = connector.connect(stream).await.map_err(|error: io::Error| {
        failed(TlsProblem::find(&error).unwrap_or_else(|| TlsProblem::Other(error.to_string())))
    })?;
    Ok(Box::new(encrypted))
}

/// Files are read, and many certificates looked through, where nobody waits for it.
async fn connector(tls: &Tls) -> Result<MakeRustlsConnect, ConnectError> {
    let config = if tls.roots.is_none() && tls.client.is_none() {
        tls.client_config()?
    } else {
        let tls = tls.clone();
        tokio::task::spawn_blocking(move || tls.client_config()).await.map_err(io::Error::from)??
    };
    Ok(MakeRustlsConnect::new(config))
}

/// What the driver gets as its TLS: the stream is what it should be.
pub(crate) struct Encrypted;

impl<S: TlsStream + Unpin> TlsConnect<S> for Encrypted {
    type Stream = S;
    type Error = Infallible;
    type Future = Ready<Result<S, Infallible>>;

    fn connect(self, stream: S) -> Self::Future {
        ready(Ok(stream))
    }
}

/// A stream without encryption.
pub(crate) struct Plain<S>(pub(crate) S);

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for Plain<S> {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Plain<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Plain<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
