//! A real browser, by way of its driver: the few commands of `WebDriver` that tests of pages need.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{DEADLINE, eventually, process, unused_port};

/// What a reference to an element is called in messages.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
/// What pressing a key is, where text is typed.
pub const TAB: &str = "\u{e004}";
pub const ENTER: &str = "\u{e007}";

/// Whether there is a browser, and a driver for it.
pub fn is_installed() -> bool {
    process::is_installed("chromedriver", "--version")
        && process::is_installed("chromium", "--version")
}

/// The driver's process.
pub struct Driver {
    child: Child,
    address: String,
    profiles: TempDir,
    /// Of the browsers that it has opened.
    paths: Mutex<Vec<String>>,
}

impl Driver {
    /// Starts it, and waits until it listens.
    pub async fn start() -> Self {
        let port = unused_port();
        let child = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it is installed");
        let driver = Self {
            child,
            address: format!("127.0.0.1:{port}"),
            profiles: TempDir::with_prefix("trolley-browser-").expect("a temporary folder"),
            paths: Mutex::default(),
        };
        let http = Client::builder(TokioExecutor::new()).build_http();
        eventually("a driver that listens", async || {
            let status = send(&http, Method::GET, &driver.address, "/status", &json!({})).await;
            status.is_ok()
        })
        .await;
        driver
    }

    /// Opens a browser of its own, with its own cookies.
    pub async fn open(&self, name: &str) -> Window {
        let profile = self.profiles.path().join(name);
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-dev-shm-usage",
            "--disable-gpu",
            "--window-size=1200,900",
            &format!("--user-data-dir={}", profile.display()),
        ];
        let options = json!({ "args": arguments });
        let wanted =
            json!({ "capabilities": { "alwaysMatch": { "goog:chromeOptions": options } } });
        let http = Client::builder(TokioExecutor::new()).build_http();
        let opened = send(&http, Method::POST, &self.address, "/session", &wanted).await;
        let opened = opened.unwrap_or_else(|problem| panic!("no browser: {problem}"));
        let session = opened["sessionId"].as_str().expect("a session has an id");
        let path = format!("/session/{session}");
        self.lock_paths().push(path.clone());
        let mut window = Window {
            http,
            address: self.address.clone(),
            path,
            handle: None,
        };
        let path = format!("{}/window", window.path);
        window.handle = Some(window.send(Method::GET, &path, &json!({})).await);
        window
    }

    fn lock_paths(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        // A list of names is whole at any time.
        self.paths.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a browser is closed.
    fn close(&self, path: &str) -> io::Result<()> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        let host = &self.address;
        write!(stream, "DELETE {path} HTTP/1.1\r\nhost: {host}\r\n\r\n")?;
        // Its answer begins when that is done, and then it keeps the connection.
        match stream.read(&mut [0])? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

impl Drop for Driver {
    /// The browsers go first: when the driver is told to end, it does not see to that each of them does.
    fn drop(&mut self) {
        for path in self.lock_paths().iter() {
            if let Err(problem) = self.close(path) {
                println!("the browser {path} was not closed: {problem}");
            }
        }
        self.child
            .kill()
            .expect("a process of our own can be killed");
        self.child
            .wait()
            .expect("a process of our own can be waited for");
    }
}

/// A browser's window.
pub struct Window {
    http: Client<HttpConnector, Full<Bytes>>,
    address: String,
    path: String,
    /// Which of the browser's windows it is, once that is known.
    handle: Option<Value>,
}

impl Window {
    /// Another window of the same browser, with the same cookies.
    pub async fn beside(&self) -> Self {
        let opened = self.post("/window/new", json!({ "type": "window" })).await;
        Self {
            http: self.http.clone(),
            address: self.address.clone(),
            path: self.path.clone(),
            handle: Some(opened["handle"].clone()),
        }
    }

    /// Goes to a page.
    pub async fn visit(&self, url: &str) {
        self.post("/url", json!({ "url": url })).await;
    }

    /// What a function of this body returns in the page.
    pub async fn evaluate(&self, body: &str) -> Value {
        let script = json!({ "script": body, "args": [] });
        self.post("/execute/sync", script).await
    }

    /// The text of what this selects; empty if there is no such element.
    pub async fn text(&self, selector: &str) -> String {
        let quoted = json!(selector);
        let found = self
            .evaluate(&format!(
                "const it = document.querySelector({quoted}); return it && !it.hidden ? it.textContent : ''"
            ))
            .await;
        found.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until an element has this text.
    pub async fn wait_for(&self, selector: &str, text: &str) {
        let mut last = String::new();
        let what = format!("{selector} that says {text:?}");
        eventually(&what, async || {
            let now = self.text(selector).await;
            if now != last {
                last = now;
            }
            last.contains(text)
        })
        .await;
    }

    /// Clicks as a person would: it must be there, and visible.
    pub async fn click(&self, selector: &str) {
        let element = self.find(selector).await;
        self.post(&format!("/element/{element}/click"), json!({}))
            .await;
    }

    /// Types into an element.
    pub async fn type_into(&self, selector: &str, text: &str) {
        let element = self.find(selector).await;
        let typed = json!({ "text": text });
        self.post(&format!("/element/{element}/value"), typed).await;
    }

    /// Presses a key, wherever the focus is.
    pub async fn press(&self, key: &str) {
        let actions =
            json!([{ "type": "keyDown", "value": key }, { "type": "keyUp", "value": key }]);
        let keyboard = json!([{ "type": "key", "id": "keyboard", "actions": actions }]);
        self.post("/actions", json!({ "actions": keyboard })).await;
    }

    /// Has the page believe in a window of this size and a system of this scheme of colours.
    pub async fn pretend(&self, width: u32, height: u32, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.command("Emulation.setDeviceMetricsOverride", size)
            .await;
        self.command(
            "Emulation.setEmulatedMedia",
            json!({ "features": features }),
        )
        .await;
    }

    /// Keeps a picture of it.
    pub async fn photograph(&self, name: &str) {
        let path = format!("{}/screenshot", self.path);
        let picture = self.send(Method::GET, &path, &json!({})).await;
        let bytes = STANDARD.decode(picture.as_str().unwrap_or_default());
        let folder = pictures();
        fs::create_dir_all(&folder).expect("the folder can be made");
        let file = folder.join(format!("{name}.png"));
        fs::write(&file, bytes.expect("pictures are base64")).expect("it can be written");
    }

    async fn find(&self, selector: &str) -> String {
        let wanted = json!({ "using": "css selector", "value": selector });
        let found = self.post("/element", wanted).await;
        let element = found[ELEMENT].as_str();
        element
            .unwrap_or_else(|| panic!("no {selector}"))
            .to_owned()
    }

    async fn command(&self, command: &str, parameters: Value) {
        let wanted = json!({ "cmd": command, "params": parameters });
        self.post("/goog/cdp/execute", wanted).await;
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let path = format!("{}{path}", self.path);
        self.send(Method::POST, &path, &body).await
    }

    /// Commands go to the window that was named last.
    async fn send(&self, method: Method, path: &str, body: &Value) -> Value {
        if let Some(handle) = &self.handle {
            let (path, named) = (format!("{}/window", self.path), json!({ "handle": handle }));
            let named = send(&self.http, Method::POST, &self.address, &path, &named).await;
            named.unwrap_or_else(|problem| panic!("no such window: {problem}"));
        }
        let answer = send(&self.http, method, &self.address, path, body).await;
        answer.unwrap_or_else(|problem| panic!("{path} {body}: {problem}"))
    }
}

/// Where pictures are kept.
pub fn pictures() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("screenshots")
}

async fn send(
    http: &Client<HttpConnector, Full<Bytes>>,
    method: Method,
    address: &str,
    path: &str,
    body: &Value,
) -> Result<Value, String> {
    let body = if method == Method::GET {
        String::new()
    } else {
        body.to_string()
    };
    let request = Request::builder()
        .method(method)
        .uri(format!("http://{address}{path}"))
        .header("content-type", "application/json");
    let request = request.body(Full::from(body)).expect("it is well formed");
    let response = http.request(request).await;
    let (head, body) = response.map_err(|error| error.to_string())?.into_parts();
    let bytes = body
        .collect()
        .await
        .map_err(|error| error.to_string())?
        .to_bytes();
    let mut answer: Value = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    if head.status.is_success() {
        Ok(answer["value"].take())
    } else {
        Err(answer["value"]["message"].to_string())
    }
}
