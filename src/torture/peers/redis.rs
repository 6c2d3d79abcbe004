//! Redis over RESP, with automatic pipelining: what many clients want at the same time goes out in one write.
//!
//! A durable write is `SET` followed by `WAIT 1`: with the append-only file synced on every write, the answer to `WAIT`
//! says that one replica has it. That replica has it in memory, so this is the best Redis offers and less than a
//! majority's fsync. `WAIT` blocks its connection and speaks for all writes before it, so that one follows a whole batch
//! of `SET`s; whatever comes meanwhile makes the next batch.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::torture::bench::Target;

/// Operations that may wait for one connection.
const QUEUE: usize = 4096;
/// Operations written at once.
const PIPELINE: usize = 512;
const READ_BYTES: usize = 64 << 10;

/// What a client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// `SET` and `WAIT 1`.
    Set,
    /// `GET`.
    Get,
}

struct Job {
    request: Vec<u8>,
    done: oneshot::Sender<Result<(), String>>,
}

/// Whoever waits for the replies to one write to the connection, in order.
struct Batch {
    waiting: Vec<oneshot::Sender<Result<(), String>>>,
    /// One reply more, for all of them.
    has_wait: bool,
}

/// A Redis primary under load.
pub struct Redis {
    connections: Vec<mpsc::Sender<Job>>,
    operation: Operation,
    value: String,
    keys: u64,
    _tasks: JoinSet<io::Result<()>>,
}

impl Redis {
    /// Opens `connections` connections to `host:port`.
    pub async fn connect(
        address: &str,
        operation: Operation,
        connections: usize,
        value_bytes: usize,
        keys: u64,
    ) -> io::Result<Self> {
        let mut tasks = JoinSet::new();
        let mut senders = Vec::new();
        for _ in 0..connections.max(1) {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let (read, write) = stream.into_split();
            let (jobs, queue) = mpsc::channel(QUEUE);
            let (sent, waiting) = mpsc::channel(QUEUE);
            let has_wait = operation == Operation::Set;
            tasks.spawn(write_requests(write, queue, sent, has_wait));
            tasks.spawn(read_replies(read, waiting));
            senders.push(jobs);
        }
        let value = "v".repeat(value_bytes);
        Ok(Self {
            connections: senders,
            operation,
            value,
            keys,
            _tasks: tasks,
        })
    }
}

impl Target for Redis {
    async fn operate(&self, worker: usize, step: u64) -> Result<(), String> {
        let key = super::key(worker, step, self.keys);
        let request = match self.operation {
            Operation::Set => command(&["SET", &key, &self.value]),
            Operation::Get => command(&["GET", &key]),
        };
        let (done, answer) = oneshot::channel();
        let connection = &self.connections[worker % self.connections.len()];
        let closed = || "the connection is closed".to_owned();
        connection
            .send(Job { request, done })
            .await
            .map_err(|_| closed())?;
        let answer = tokio::time::timeout(Duration::from_secs(10), answer).await;
        answer
            .map_err(|_| "no answer in 10 s".to_owned())?
            .map_err(|_| closed())?
    }
}

/// A command as RESP's array of bulk strings.
fn command(words: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend(format!("${}\r\n{word}\r\n", word.len()).into_bytes());
    }
    bytes
}

async fn write_requests(
    mut stream: OwnedWriteHalf,
    mut queue: mpsc::Receiver<Job>,
    sent: mpsc::Sender<Batch>,
    has_wait: bool,
) -> io::Result<()> {
    let mut jobs = Vec::with_capacity(PIPELINE);
    let mut bytes = Vec::new();
    while queue.recv_many(&mut jobs, PIPELINE).await > 0 {
        bytes.clear();
        let mut waiting = Vec::with_capacity(jobs.len());
        for job in jobs.drain(..) {
            bytes.extend(job.request);
            waiting.push(job.done);
        }
        if has_wait {
            bytes.extend(command(&["WAIT", "1", "5000"]));
        }
        stream.write_all(&bytes).await?;
        if sent.send(Batch { waiting, has_wait }).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// Incoming bytes, of which some were read already.
struct Replies {
    stream: OwnedReadHalf,
    buffer: Vec<u8>,
    consumed: usize,
}

impl Replies {
    async fn next(&mut self) -> io::Result<Result<(), String>> {
        loop {
            if let Some((reply, length)) = parse(&self.buffer[self.consumed..]) {
                self.consumed += length;
                return Ok(reply);
            }
            self.buffer.drain(..self.consumed);
            self.consumed = 0;
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

async fn read_replies(stream: OwnedReadHalf, mut sent: mpsc::Receiver<Batch>) -> io::Result<()> {
    let mut replies = Replies {
        stream,
        buffer: Vec::with_capacity(READ_BYTES),
        consumed: 0,
    };
    while let Some(batch) = sent.recv().await {
        let mut outcomes = Vec::with_capacity(batch.waiting.len());
        for _ in &batch.waiting {
            outcomes.push(replies.next().await?);
        }
        let waited = if batch.has_wait {
            replies.next().await?
        } else {
            Ok(())
        };
        for (done, outcome) in batch.waiting.into_iter().zip(outcomes) {
            // A caller that gave up is no concern of the connection's.
            done.send(outcome.and(waited.clone())).ok();
        }
    }
    Ok(())
}

/// One complete reply and its length; `WAIT`'s zero counts as a failure.
fn parse(bytes: &[u8]) -> Option<(Result<(), String>, usize)> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    let line = String::from_utf8_lossy(bytes.get(1..end)?).into_owned();
    let after = end + 2;
    match bytes.first()? {
        b':' if line == "0" => Some((Err("no replica has the write".to_owned()), after)),
        b'+' | b':' => Some((Ok(()), after)),
        b'$' => match line.parse::<usize>() {
            Ok(length) if bytes.len() >= after + length + 2 => Some((Ok(()), after + length + 2)),
            Ok(_) => None,
            Err(_) => Some((Ok(()), after)),
        },
        _ => Some((Err(line), after)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_cut_where_they_end() {
        assert_eq!(parse(b"+OK\r\n:1\r\n"), Some((Ok(()), 5)));
        assert_eq!(
            parse(b":0\r\n"),
            Some((Err("no replica has the write".to_owned()), 4))
        );
        assert_eq!(parse(b"$3\r\nabc\r\n+"), Some((Ok(()), 9)));
        assert_eq!(parse(b"$-1\r\n"), Some((Ok(()), 5)));
        assert_eq!(parse(b"$3\r\nab"), None);
        assert_eq!(parse(b"-ERR no\r\n"), Some((Err("ERR no".to_owned()), 9)));
    }
}
