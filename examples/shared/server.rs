//! An API that enforces a limit with 429 answers. It counts by itself, without tollgate.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::http::Url;

/// Serves on `address` until the program ends, from a full bucket.
pub(crate) async fn start(address: &str, rate: u32, burst: u32) -> io::Result<Url> {
    let listener = TcpListener::bind(address).await?;
    let url = Url::of(listener.local_addr()?);
    let bucket = Arc::new(Mutex::new(Bucket::new(rate.into(), burst.into())));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, Arc::clone(&bucket)));
        }
    });
    Ok(url)
}

/// Answers requests until the client closes the connection.
async fn serve(stream: TcpStream, bucket: Arc<Mutex<Bucket>>) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    while stream.read_line(&mut line).await? > 0 {
        // A request is a GET without a body: an empty line ends it.
        if line.trim_end().is_empty() {
            let admitted = bucket.lock().unwrap_or_else(PoisonError::into_inner).take();
            stream.write_all(answer(admitted).as_bytes()).await?;
        }
        line.clear();
    }
    Ok(())
}

fn answer(admitted: Result<(), f64>) -> String {
    match admitted {
        Ok(()) => "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n".into(),
        Err(seconds) => format!(
            "HTTP/1.1 429 Too Many Requests\r\nRetry-After: {:.0}\r\nContent-Length: 0\r\n\r\n",
            seconds.ceil()
        ),
    }
}

/// A plain token bucket.
struct Bucket {
    rate: f64,
    burst: f64,
    tokens: f64,
    last: Instant,
}

impl Bucket {
    fn new(rate: f64, burst: f64) -> Self {
        Self { rate, burst, tokens: burst, last: Instant::now() }
    }

    /// Takes one token, or fails with the seconds until there is one.
    fn take(&mut self) -> Result<(), f64> {
        let now = Instant::now();
        let elapsed = now.duration_since(self.last).as_secs_f64();
        self.last = now;
        self.tokens = (self.tokens + elapsed * self.rate).min(self.burst);
        if self.tokens < 1.0 {
            return Err((1.0 - self.tokens) / self.rate);
        }
        self.tokens -= 1.0;
        Ok(())
    }
}
