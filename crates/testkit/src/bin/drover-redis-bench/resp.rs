//! As much of Redis' protocol as the measurement needs: commands are arrays of strings, answers are read as [`Answer`].

use anyhow::{Context, Result, bail};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What a server answers to one command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// `+OK`, or a number.
    Simple(String),
    /// `-CODE what went wrong`.
    Error(String),
    /// A string of bytes; none if there is no such key.
    Bulk(Option<Bytes>),
    /// Several of them.
    Array(Vec<Answer>),
}

/// A connection to one server, with one command under way.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    read: BytesMut,
}

impl Connection {
    /// Connects.
    pub async fn open(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, read: BytesMut::with_capacity(64 << 10) })
    }

    /// Sends commands in one go and returns the answer to the last one.
    pub async fn call(&mut self, commands: &[&[&[u8]]]) -> Result<Answer> {
        let mut request = BytesMut::new();
        commands.iter().for_each(|command| encode(command, &mut request));
        self.stream.write_all(&request).await?;
        for _ in 1..commands.len() {
            self.answer().await?;
        }
        self.answer().await
    }

    async fn answer(&mut self) -> Result<Answer> {
        loop {
            if let Some(answer) = decode(&mut self.read)? {
                return Ok(answer);
            }
            if self.stream.read_buf(&mut self.read).await? == 0 {
                bail!("the server has closed the connection");
            }
        }
    }
}

fn encode(command: &[&[u8]], into: &mut BytesMut) {
    into.put_slice(format!("*{}\r\n", command.len()).as_bytes());
    for part in command {
        into.put_slice(format!("${}\r\n", part.len()).as_bytes());
        into.put_slice(part);
        into.put_slice(b"\r\n");
    }
}

/// Takes one answer off the front, if it is there whole.
fn decode(from: &mut BytesMut) -> Result<Option<Answer>> {
    let mut rest = &from[..];
    let Some(answer) = take(&mut rest)? else { return Ok(None) };
    let taken = from.len() - rest.len();
    from.advance(taken);
    Ok(Some(answer))
}

/// As [`decode`]; takes an array part by part, so that `from` is of use only if there is an answer.
fn take(from: &mut &[u8]) -> Result<Option<Answer>> {
    let Some(end) = from.windows(2).position(|pair| pair == b"\r\n") else { return Ok(None) };
    let line = String::from_utf8_lossy(&from[..end]).into_owned();
    let Some((kind, rest)) = line.split_at_checked(1) else { bail!("an empty answer") };
    *from = &from[end + 2..];
    Ok(Some(match kind {
        "+" | ":" => Answer::Simple(rest.to_owned()),
        "-" => Answer::Error(rest.to_owned()),
        "$" if rest == "-1" => Answer::Bulk(None),
        "$" => {
            let length: usize = rest.parse().with_context(|| format!("no length: {line}"))?;
            let Some((value, behind)) = from.split_at_checked(length).filter(|(_, behind)| behind.len() >= 2) else {
                return Ok(None);
            };
            *from = &behind[2..];
            Answer::Bulk(Some(Bytes::copy_from_slice(value)))
        }
        "*" => {
            let length: usize = rest.parse().with_context(|| format!("no length: {line}"))?;
            let mut parts = Vec::new();
            for _ in 0..length {
                let Some(part) = take(from)? else { return Ok(None) };
                parts.push(part);
            }
            Answer::Array(parts)
        }
        _ => bail!("an answer that is not understood: {line}"),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_an_array_of_strings() {
        let mut bytes = BytesMut::new();
        encode(&[b"SET", b"k", b"v\r\n"], &mut bytes);
        assert_eq!(&bytes[..], b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$3\r\nv\r\n\r\n");
    }

    #[test]
    fn answers_are_taken_one_by_one_and_only_when_they_are_whole() {
        let whole = b"+OK\r\n$4\r\na\r\nb\r\n-MOVED 5 127.0.0.1:7001\r\n$-1\r\n*2\r\n$1\r\nx\r\n$-1\r\n:7\r\n";
        let expect = [
            Answer::Simple("OK".to_owned()),
            Answer::Bulk(Some(Bytes::from_static(b"a\r\nb"))),
            Answer::Error("MOVED 5 127.0.0.1:7001".to_owned()),
            Answer::Bulk(None),
            Answer::Array(vec![Answer::Bulk(Some(Bytes::from_static(b"x"))), Answer::Bulk(None)]),
            Answer::Simple("7".to_owned()),
        ];
        // However the bytes arrive.
        for piece in 1..whole.len() {
            let (mut buffer, mut got) = (BytesMut::new(), Vec::new());
            for part in whole.chunks(piece) {
                buffer.extend_from_slice(part);
                while let Some(answer) = decode(&mut buffer).unwrap() {
                    got.push(answer);
                }
            }
            assert_eq!(got, expect, "in pieces of {piece}");
            assert!(buffer.is_empty());
        }
        assert!(decode(&mut BytesMut::from(&b"!1\r\n"[..])).is_err());
    }
}
