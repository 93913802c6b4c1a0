//! One keep-alive connection of HTTP/1.1, as small as it can be, so that what asks costs next to nothing beside what
//! answers. It speaks only to servers that a benchmark has started itself.

use std::error::Error;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long an answer may take to come.
const PATIENCE: Duration = Duration::from_secs(300);

/// Longest line of an answer's head, in bytes.
const LINE_BYTES_MAX: u64 = 16 * 1024;

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

/// A connection that stays open.
pub struct Connection {
    stream: BufReader<TcpStream>,
    address: SocketAddr,
    head: Vec<u8>,
}

impl Connection {
    pub fn open(address: SocketAddr) -> Result<Self, Box<dyn Error>> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream: BufReader::with_capacity(64 * 1024, stream), address, head: Vec::new() })
    }

    pub fn get(&mut self, path: &str) -> Result<Answer, Box<dyn Error>> {
        self.ask("GET", path, "", &[])
    }

    /// `headers` are whole lines.
    pub fn post(&mut self, path: &str, headers: &str, body: &[u8]) -> Result<Answer, Box<dyn Error>> {
        self.ask("POST", path, headers, body)
    }

    fn ask(
        &mut self,
        method: &str,
        path: &str,
        headers: &str,
        body: &[u8],
    ) -> Result<Answer, Box<dyn Error>> {
        self.head.clear();
        let (address, length) = (self.address, body.len());
        write!(
            self.head,
            "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {length}\r\n{headers}\r\n"
        )?;
        let stream = self.stream.get_mut();
        stream.write_all(&self.head)?;
        stream.write_all(body)?;
        self.answer()
    }

    fn answer(&mut self) -> Result<Answer, Box<dyn Error>> {
        let status_line = self.line()?;
        let status: u16 =
            status_line.split(' ').nth(1).ok_or_else(|| format!("not HTTP: {status_line:?}"))?.parse()?;
        let (mut length, mut chunked) = (0, false);
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(':') else { break };
            let value = value.trim();
            if name.eq_ignore_ascii_case("content-length") {
                length = value.parse()?;
            }
            chunked |=
                name.eq_ignore_ascii_case("transfer-encoding") && value.eq_ignore_ascii_case("chunked");
        }
        let mut body = Vec::new();
        if chunked {
            loop {
                let size = u64::from_str_radix(self.line()?.trim(), 16)?;
                self.take(size, &mut body)?;
                self.line()?;
                if size == 0 {
                    break;
                }
            }
        } else if status != 204 {
            self.take(length, &mut body)?;
        }
        Ok(Answer { status, body })
    }

    fn take(&mut self, length: u64, into: &mut Vec<u8>) -> Result<(), Box<dyn Error>> {
        let taken = self.stream.by_ref().take(length).read_to_end(into)?;
        if taken as u64 == length { Ok(()) } else { Err("the answer was cut off".into()) }
    }

    fn line(&mut self) -> Result<String, Box<dyn Error>> {
        let mut line = String::new();
        self.stream.by_ref().take(LINE_BYTES_MAX).read_line(&mut line)?;
        if line.ends_with('\n') {
            line.truncate(line.trim_end().len());
            Ok(line)
        } else {
            Err("the connection was closed".into())
        }
    }
}

/// A text as it stands in a query.
pub fn quoted(text: &str) -> String {
    text.bytes()
        .map(|byte| {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}
