//! Taking connections, up to a moment.

use std::collections::VecDeque;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// The pause after a failure that is not one connection's own, such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);

/// Takes connections until it is told to stop. Those that the system has accepted by then are taken too: their clients may
/// have sent a request already.
pub(crate) struct Stoppable {
    listener: Option<TcpListener>,
    address: SocketAddr,
    /// Taken when it stopped, and not handed over yet.
    last: VecDeque<(TcpStream, SocketAddr)>,
    stop: watch::Receiver<bool>,
    open: watch::Sender<()>,
    /// Counts as one more open connection until all were handed over.
    taking: Option<watch::Receiver<()>>,
}

impl Stoppable {
    /// `open` is [closed](watch::Sender::closed) once this and all its connections are.
    pub(crate) fn new(
        listener: TcpListener,
        stop: watch::Receiver<bool>,
        open: watch::Sender<()>,
    ) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let taking = Some(open.subscribe());
        Ok(Self { listener: Some(listener), address, last: VecDeque::new(), stop, open, taking })
    }

    fn hand_over(&self, (stream, address): (TcpStream, SocketAddr)) -> (Connection, SocketAddr) {
        (Connection { stream, _open: self.open.subscribe() }, address)
    }

    /// No connection is taken from now on but those that wait to be.
    fn end(&mut self) {
        let Some(Ok(listener)) = self.listener.take().map(TcpListener::into_std) else { return };
        while let Ok((stream, address)) = listener.accept() {
            let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
            self.last.extend(stream.ok().map(|stream| (stream, address)));
        }
    }
}

impl Listener for Stoppable {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            if let Some(waiting) = self.last.pop_front() {
                return self.hand_over(waiting);
            }
            let Some(listener) = &self.listener else {
                self.taking = None;
                pending().await
            };
            let taken = tokio::select! {
                biased;
                // First, or clients that keep coming would keep it from stopping. An error means that the sender is gone: it is time
                // to stop as well.
                _ = self.stop.wait_for(|stop| *stop) => None,
                taken = listener.accept() => Some(taken),
            };
            match taken {
                Some(Ok(taken)) => return self.hand_over(taken),
                Some(Err(error)) => {
                    tracing::warn!(%error, "a connection could not be taken");
                    tokio::time::sleep(PAUSE).await;
                }
                None => self.end(),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

/// One connection, which counts as open for as long as it lives.
pub(crate) struct Connection {
    stream: TcpStream,
    _open: watch::Receiver<()>,
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
