//! Asking a server to cancel a statement, and waiting until it has.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsStream};

use crate::tls::Stream;

/// A stream that is not shut down before the other side has closed it.
///
/// A server that gets a cancel request answers nothing: it closes the connection once the request is dealt with (manual,
/// "Canceling Requests in Progress"). The driver shuts its side down as soon as the request is written. A pooler that still
/// has to hand the request on takes that for a client that has gone, and drops it.
pub(crate) struct UntilClosed(Box<dyn Stream>);

impl UntilClosed {
    pub(crate) fn new(stream: Box<dyn Stream>) -> Self {
        Self(stream)
    }
}

impl TlsStream for UntilClosed {
    fn channel_binding(&self) -> ChannelBinding {
        self.0.channel_binding()
    }
}

impl AsyncRead for UntilClosed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for UntilClosed {
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
        loop {
            let mut byte = [0];
            let mut buffer = ReadBuf::new(&mut byte);
            let read = ready!(Pin::new(&mut self.0).poll_read(context, &mut buffer));
            // An error is an end too: a server that closes with something unread resets the connection.
            if read.is_err() || buffer.filled().is_empty() {
                break;
            }
        }
        // The other side is gone already; what is left is to let go of this one.
        let _ = ready!(Pin::new(&mut self.0).poll_shutdown(context));
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::tls::Plain;

    #[tokio::test]
    async fn a_request_is_not_hung_up_on_before_it_is_dealt_with() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let mut stream = UntilClosed::new(Box::new(Plain(ours)));
        stream.write_all(b"cancel").await.unwrap();
        let asking = tokio::spawn(async move { stream.shutdown().await });
        let mut request = [0; 6];
        theirs.read_exact(&mut request).await.unwrap();
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert!(!asking.is_finished(), "nobody has closed it");
        theirs.write_all(b"ignored").await.unwrap();
        drop(theirs);
        asking.await.unwrap().unwrap();
    }
}
