//! An HTTP client that knows which of its requests were sent.
//!
//! A client library repeats what a closed connection swallowed, or says no more than that something failed. What a shutdown
//! owes its clients depends on the difference.

use std::collections::VecDeque;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// No request takes as long as this, whatever the fault: the router's own deadlines are some seconds.
const NO_ANSWER: Duration = Duration::from_secs(30);

/// One server, with connections that are kept: each request takes the one that has been idle for longest.
#[derive(Debug)]
pub struct Http {
    address: String,
    idle: Mutex<VecDeque<TcpStream>>,
}

/// A whole response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Its status.
    pub status: u16,
    /// Its headers, their names in lower case.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: String,
}

/// Why there is no response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lost {
    /// No connection: nothing was sent.
    NotConnected(String),
    /// The request was sent, and no whole response came.
    Unanswered(String),
}

impl Reply {
    /// The first header of this name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON; null when it is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    /// The `code` of an error's body.
    #[must_use]
    pub fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }

    /// Whether it is a 2xx.
    #[must_use]
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

impl Http {
    /// A client of the server at this address, `host:port`.
    #[must_use]
    pub fn new(address: &str) -> Self {
        Self { address: address.to_owned(), idle: Mutex::default() }
    }

    /// Sends a request with these headers, and a body of JSON if there is one.
    ///
    /// # Errors
    /// When there is no whole response.
    pub async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&str>,
    ) -> Result<Reply, Lost> {
        let mut stream = match self.kept() {
            Some(kept) => kept,
            None => {
                TcpStream::connect(&self.address).await.map_err(|why| Lost::NotConnected(why.to_string()))?
            }
        };
        let mut text = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\n", self.address);
        for (name, value) in headers {
            text += &format!("{name}: {value}\r\n");
        }
        if let Some(body) = body {
            text += &format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
        }
        text = text + "\r\n" + body.unwrap_or_default();
        let answered = timeout(NO_ANSWER, exchange(&mut stream, &text)).await;
        let answered = answered.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let reply = answered.map_err(|why| Lost::Unanswered(why.to_string()))?;
        if reply.header("connection") != Some("close") {
            self.locked().push_back(stream);
        }
        Ok(reply)
    }

    /// `GET`, without headers.
    ///
    /// # Errors
    /// When there is no whole response.
    pub async fn get(&self, path: &str) -> Result<Reply, Lost> {
        self.ask("GET", path, &[], None).await
    }

    /// Connections that are kept.
    #[must_use]
    pub fn idle(&self) -> usize {
        self.locked().len()
    }

    /// A kept connection that the server has not closed.
    fn kept(&self) -> Option<TcpStream> {
        loop {
            let stream = self.locked().pop_front()?;
            let said = stream.try_read(&mut [0; 1]);
            if said.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
                return Some(stream);
            }
        }
    }

    fn locked(&self) -> MutexGuard<'_, VecDeque<TcpStream>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn exchange(stream: &mut TcpStream, request: &str) -> io::Result<Reply> {
    stream.write_all(request.as_bytes()).await?;
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
        more(stream, &mut bytes).await?;
    };
    let text = String::from_utf8_lossy(&bytes[..head]).into_owned();
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let status = status.ok_or_else(|| io::Error::other(format!("not a response: {text}")))?;
    let headers = lines.filter_map(|line| line.split_once(':'));
    let headers: Vec<_> =
        headers.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length: usize = length.and_then(|(_, value)| value.parse().ok()).unwrap_or(0);
    let body = head + 4;
    while bytes.len() < body + length {
        more(stream, &mut bytes).await?;
    }
    let body = String::from_utf8_lossy(&bytes[body..body + length]).into_owned();
    Ok(Reply { status, headers, body })
}

async fn more(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> io::Result<()> {
    match stream.read_buf(bytes).await? {
        0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection was closed")),
        _ => Ok(()),
    }
}
