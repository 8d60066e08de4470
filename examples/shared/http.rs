//! A small HTTP/1.1 client: it sends `GET`, keeps connections alive, and reads each body to its
//! end: by length, by chunks, or to the end of the connection.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// For a whole request: connecting, sending, and the answer to its last byte.
const TIMEOUT: Duration = Duration::from_secs(5);
const LONGEST_LINE: u64 = 16 * 1024;
const MOST_HEADERS: usize = 100;

/// Where to send requests: `http://host:port/path`.
#[derive(Clone, Debug)]
pub(crate) struct Url {
    authority: String,
    path: String,
}

impl Url {
    pub(crate) fn of(address: SocketAddr) -> Self {
        Self { authority: address.to_string(), path: "/".into() }
    }
}

impl FromStr for Url {
    type Err = String;

    fn from_str(url: &str) -> Result<Self, String> {
        let wrong = |why| format!("needs http://host:port/path, not {url:?}: {why}");
        let rest = url.strip_prefix("http://").ok_or_else(|| wrong("it is not http://"))?;
        if !rest.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
            return Err(wrong("escape what is not plain ASCII, and leave out the #fragment"));
        }
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (host, port) = authority.rsplit_once(':').ok_or_else(|| wrong("it has no port"))?;
        if host.is_empty() || host.contains(['@', '?']) {
            return Err(wrong("the host is not a name or an address"));
        }
        if !port.parse::<u16>().is_ok_and(|port| port > 0) {
            return Err(wrong("the port is not a number from 1 to 65535"));
        }
        let path = if path.is_empty() { "/" } else { path };
        Ok(Self { authority: authority.into(), path: path.into() })
    }
}

impl std::fmt::Display for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "http://{}{}", self.authority, self.path)
    }
}

/// A server's answer. The body was read and dropped.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// `Retry-After`, if it is a number of seconds.
    pub(crate) retry_after: Option<Duration>,
}

type Connection = BufReader<TcpStream>;

/// Sends requests one after another, over one connection where possible.
#[derive(Debug)]
pub(crate) struct Client {
    authority: String,
    request: String,
    connection: Option<Connection>,
}

impl Client {
    pub(crate) fn new(Url { authority, path }: Url) -> Self {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\nAccept: */*\r\n\r\n");
        Self { authority, request, connection: None }
    }

    /// After an error the next request opens a new connection.
    pub(crate) async fn get(&mut self) -> io::Result<Answer> {
        let kept = self.connection.take().filter(is_idle);
        let exchange = async {
            let mut connection = match kept {
                Some(connection) => connection,
                None => BufReader::new(TcpStream::connect(&self.authority).await?),
            };
            connection.write_all(self.request.as_bytes()).await?;
            let (answer, keep) = read_answer(&mut connection).await?;
            Ok::<_, io::Error>((answer, keep.then_some(connection)))
        };
        let (answer, connection) = timeout(TIMEOUT, exchange).await??;
        self.connection = connection;
        Ok(answer)
    }
}

/// Open and without unread data. A server may close an idle connection: this is no error.
fn is_idle(connection: &Connection) -> bool {
    let byte = connection.get_ref().try_read(&mut [0]);
    connection.buffer().is_empty() && byte.is_err_and(|e| e.kind() == ErrorKind::WouldBlock)
}

/// Reads the answer to its last byte. Returns whether the connection may be reused.
async fn read_answer(connection: &mut Connection) -> io::Result<(Answer, bool)> {
    let mut head = Head::read(connection).await?;
    while head.answer.status < 200 {
        head = Head::read(connection).await?; // 1xx, such as "100 Continue", precedes the answer
    }
    match head {
        _ if matches!(head.answer.status, 204 | 304) => {}
        Head { chunked: true, .. } => skip_chunks(connection).await?,
        Head { length: Some(length), .. } => skip(connection, length).await?,
        _ => {
            head.keep = false;
            skip_to_end(connection).await?;
        }
    }
    Ok((head.answer, head.keep))
}

/// The relevant parts of an answer's head.
struct Head {
    answer: Answer,
    length: Option<u64>,
    chunked: bool,
    keep: bool,
}

impl Head {
    async fn read(connection: &mut Connection) -> io::Result<Self> {
        let line = read_line(connection).await?;
        let mut words = line.split_ascii_whitespace();
        let version = words.next().filter(|word| word.starts_with("HTTP/1."));
        let status = words.next().and_then(|word| word.parse().ok());
        let (Some(version), Some(status @ 100..=999)) = (version, status) else {
            return Err(malformed("this is not HTTP/1"));
        };
        let mut head = Self {
            answer: Answer { status, retry_after: None },
            length: None,
            chunked: false,
            keep: version != "HTTP/1.0",
        };
        for _ in 0..MOST_HEADERS {
            let line = read_line(connection).await?;
            if line.is_empty() {
                return Ok(head);
            }
            let (name, value) = line.split_once(':').ok_or_else(|| malformed("a bad header"))?;
            head.note(name, value.trim())?;
        }
        Err(malformed("too many headers"))
    }

    fn note(&mut self, name: &str, value: &str) -> io::Result<()> {
        let value = value.to_ascii_lowercase();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => {
                let length = value.parse().map_err(|_| malformed("a bad Content-Length"))?;
                if self.length.is_some_and(|other| other != length) {
                    return Err(malformed("two Content-Lengths"));
                }
                self.length = Some(length);
            }
            "transfer-encoding" => self.chunked = value.ends_with("chunked"),
            "connection" => {
                for option in value.split(',').map(str::trim) {
                    match option {
                        "close" => self.keep = false,
                        "keep-alive" => self.keep = true,
                        _ => {}
                    }
                }
            }
            "retry-after" => {
                self.answer.retry_after = value.parse().ok().map(Duration::from_secs);
            }
            _ => {}
        }
        Ok(())
    }
}

async fn skip_chunks(connection: &mut Connection) -> io::Result<()> {
    loop {
        let line = read_line(connection).await?;
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = u64::from_str_radix(size, 16).map_err(|_| malformed("a bad chunk size"))?;
        if size == 0 {
            break;
        }
        skip(connection, size).await?;
        if !read_line(connection).await?.is_empty() {
            return Err(malformed("a chunk of another size than it says"));
        }
    }
    for _ in 0..MOST_HEADERS {
        if read_line(connection).await?.is_empty() {
            return Ok(());
        }
    }
    Err(malformed("too many trailers"))
}

async fn skip(connection: &mut Connection, length: u64) -> io::Result<()> {
    match skip_to_end(&mut connection.take(length)).await? {
        skipped if skipped < length => Err(ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

async fn skip_to_end(reader: &mut (impl AsyncBufReadExt + Unpin)) -> io::Result<u64> {
    tokio::io::copy_buf(reader, &mut tokio::io::sink()).await
}

/// A line without its line end.
async fn read_line(connection: &mut Connection) -> io::Result<String> {
    let mut line = Vec::new();
    connection.take(LONGEST_LINE).read_until(b'\n', &mut line).await?;
    if line.pop_if(|last| *last == b'\n').is_none() {
        return Err(match line.len() as u64 {
            LONGEST_LINE => malformed("too long a line"),
            _ => ErrorKind::UnexpectedEof.into(),
        });
    }
    line.pop_if(|last| *last == b'\r');
    Ok(String::from_utf8_lossy(&line).into_owned())
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("the server's answer is malformed: {what}"))
}
