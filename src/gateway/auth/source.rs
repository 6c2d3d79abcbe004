//! Reads keys from where they are, in bounded time and space.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::io::AsyncReadExt as _;

use super::keys::{BadKeys, KeySet, Origin};
use crate::config::{JwtAlgorithm, KeyPlace};
use crate::limits;

const DEADLINE: Duration = Duration::from_millis(limits::JWT_KEYS_DEADLINE_MS);

/// Why keys could not be read. The text is for the log.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file.
    #[error("cannot read {file}: {source}")]
    File {
        /// Its path.
        file: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The URL.
    #[error("cannot fetch {url}: {problem}")]
    Url {
        /// The URL.
        url: String,
        /// What went wrong.
        problem: String,
    },
    /// What was read.
    #[error("{place} has no keys to check tokens with: {problem}")]
    Keys {
        /// The file or URL.
        place: String,
        /// What is wrong with it.
        problem: BadKeys,
    },
    /// This machine trusts nobody, so that no https URL can be fetched.
    #[error("no certificate authorities are installed here: {0}")]
    Authorities(std::io::Error),
}

impl ReadError {
    /// Whoever runs the gateway must change something: waiting does not help.
    pub fn is_permanent(&self) -> bool {
        !matches!(self, Self::Url { .. })
    }
}

type Fetcher = Client<HttpsConnector<HttpConnector>, Empty<Bytes>>;

/// Where keys are, how to get them, and which are wanted.
pub struct Source {
    place: Place,
    allowed: Vec<JwtAlgorithm>,
}

enum Place {
    /// A file's path.
    File(PathBuf),
    /// A URL, and who fetches it.
    Url(Uri, Box<Fetcher>),
}

impl Source {
    /// Keys for these algorithms.
    pub fn new(place: KeyPlace, allowed: &[JwtAlgorithm]) -> Result<Self, ReadError> {
        let place = match place {
            KeyPlace::File(path) => Place::File(path),
            KeyPlace::Url(url) => Place::Url(url, Box::new(fetcher()?)),
        };
        let allowed = allowed.to_vec();
        Ok(Self { place, allowed })
    }

    pub async fn read(&self) -> Result<KeySet, ReadError> {
        match &self.place {
            Place::File(path) => {
                let place = path.display().to_string();
                let bytes = match read_file(path).await {
                    Ok(bytes) => bytes,
                    Err(source) => {
                        return Err(ReadError::File {
                            file: place,
                            source,
                        });
                    }
                };
                let keys = KeySet::parse(&bytes, Origin::File, &self.allowed);
                keys.map_err(|problem| ReadError::Keys { place, problem })
            }
            Place::Url(url, fetcher) => {
                let read = async {
                    let bytes = fetch(fetcher, url).await?;
                    // What stands there may be right the next time.
                    let keys = KeySet::parse(&bytes, Origin::Url, &self.allowed);
                    keys.map_err(|problem| problem.to_string())
                };
                let read = tokio::time::timeout(DEADLINE, read).await;
                let read = read.unwrap_or_else(|_| Err(format!("no answer in {DEADLINE:?}")));
                read.map_err(|problem| ReadError::Url {
                    url: url.to_string(),
                    problem,
                })
            }
        }
    }
}

fn fetcher() -> Result<Fetcher, ReadError> {
    let connector = HttpsConnectorBuilder::new()
        .with_native_roots()
        .map_err(ReadError::Authorities)?
        .https_or_http()
        .enable_http1()
        .build();
    // A connection is used once in minutes: none is kept.
    let client = Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(0)
        .build(connector);
    Ok(client)
}

/// Redirections are not followed: the key set is where it was said to be.
async fn fetch(fetcher: &Fetcher, url: &Uri) -> Result<Bytes, String> {
    let answer = fetcher
        .get(url.clone())
        .await
        .map_err(|error| reasons(&error))?;
    if answer.status() != http::StatusCode::OK {
        return Err(format!("it answered {}", answer.status()));
    }
    let body = Limited::new(answer.into_body(), limits::JWT_KEY_SET_BYTES);
    let body = body.collect().await.map_err(|error| reasons(&*error))?;
    Ok(body.to_bytes())
}

/// An error and what caused it: the outermost says only that something failed.
fn reasons(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

async fn read_file(path: &Path) -> Result<Bytes, std::io::Error> {
    let file = tokio::fs::File::open(path).await?;
    let mut bytes = Vec::new();
    // One more than is allowed shows that it is too large.
    let most = limits::JWT_KEY_SET_BYTES as u64 + 1;
    file.take(most).read_to_end(&mut bytes).await?;
    Ok(bytes.into())
}
