//! Just enough HTTP to ask a node's admin port.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpAnswer {
    /// Status code.
    pub status: u16,
    /// Body, with invalid UTF-8 replaced.
    pub body: String,
}

/// Asks `address` (`host:port`) for `path`.
///
/// # Errors
/// If the port does not answer within five seconds, or not in HTTP.
pub async fn get(address: &str, path: &str) -> std::io::Result<HttpAnswer> {
    let call = async {
        let mut stream = TcpStream::connect(address).await?;
        // HTTP/1.0: the answer comes whole and ends with the connection.
        let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        parse(&String::from_utf8_lossy(&answer))
    };
    tokio::time::timeout(Duration::from_secs(5), call).await?
}

fn parse(answer: &str) -> std::io::Result<HttpAnswer> {
    let bad = || std::io::Error::new(std::io::ErrorKind::InvalidData, format!("not an HTTP answer: {answer:.80?}"));
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(bad)?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(bad)?;
    Ok(HttpAnswer { status, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_and_body_are_found_and_nonsense_is_refused() {
        let answer = parse("HTTP/1.0 503 Service Unavailable\r\na: b\r\n\r\nno leader").unwrap();
        assert_eq!(answer, HttpAnswer { status: 503, body: "no leader".to_owned() });
        for bad in ["", "HTTP/1.0 200 OK", "HTTP/1.0\r\n\r\n", "HTTP/1.0 x y\r\n\r\n"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
