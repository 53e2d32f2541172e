//! A real browser without a window, driven by its DevTools protocol over pipes.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use routing_tests::{PATIENCE, eventually};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::Mutex;
use tokio::time::timeout;

/// The browser reads commands from descriptor 3 and answers on 4; here these are its standard streams.
const START: &str = r#"exec chromium --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage \
    --no-first-run --disable-background-networking --disable-component-update --disable-sync --hide-scrollbars \
    --user-data-dir="$1" --remote-debugging-pipe about:blank 3<&0 4>&1 </dev/null >/dev/null"#;

/// One page of one browser. Dropping it ends the browser.
pub(crate) struct Browser {
    pipe: Mutex<Pipe>,
    session: String,
    _process: Child,
    _profile: TempDir,
}

struct Pipe {
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    next: u64,
}

impl Pipe {
    async fn call(&mut self, session: Option<&str>, method: &str, params: Value) -> Value {
        let id = self.next;
        self.next += 1;
        let mut command = json!({ "id": id, "method": method, "params": params });
        if let Some(session) = session {
            command["sessionId"] = json!(session);
        }
        let mut bytes = command.to_string().into_bytes();
        bytes.push(0);
        self.commands.write_all(&bytes).await.expect("the browser takes commands");
        loop {
            let mut answer = Vec::new();
            self.answers.read_until(0, &mut answer).await.expect("the browser answers");
            assert!(answer.pop().is_some(), "the browser ended during {method}");
            let answer: Value = serde_json::from_slice(&answer).expect("JSON from the browser");
            if answer["id"] == json!(id) {
                assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
                return answer["result"].clone();
            }
        }
    }
}

impl Browser {
    /// A new browser with an empty page.
    pub(crate) async fn start() -> Self {
        let profile = tempfile::tempdir().expect("a directory for the browser");
        let mut process = Command::new("bash")
            .args(["-c", START, "bash", profile.path().to_str().unwrap()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("bash");
        let commands = process.stdin.take().unwrap();
        let answers = BufReader::new(process.stdout.take().unwrap());
        let mut pipe = Pipe { commands, answers, next: 1 };
        let opened = timeout(PATIENCE, async {
            let made = pipe.call(None, "Target.createTarget", json!({ "url": "about:blank" })).await;
            let target = json!({ "targetId": made["targetId"], "flatten": true });
            pipe.call(None, "Target.attachToTarget", target).await
        });
        let opened = opened.await.expect("chromium runs: ./test --observability installs it");
        let session = opened["sessionId"].as_str().unwrap().to_owned();
        Self { pipe: Mutex::new(pipe), session, _process: process, _profile: profile }
    }

    async fn call(&self, method: &str, params: Value) -> Value {
        let mut pipe = self.pipe.lock().await;
        timeout(PATIENCE, pipe.call(Some(&self.session), method, params)).await.expect("an answer in time")
    }

    pub(crate) async fn open(&self, url: &str) {
        let opened = self.call("Page.navigate", json!({ "url": url })).await;
        assert!(opened["errorText"].is_null(), "{url}: {}", opened["errorText"]);
    }

    /// The window's size in CSS pixels.
    pub(crate) async fn size(&self, width: u32, height: u32) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.call("Emulation.setDeviceMetricsOverride", size).await;
    }

    /// `light` or `dark`, as the operating system would ask for.
    pub(crate) async fn scheme(&self, scheme: &str) {
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.call("Emulation.setEmulatedMedia", features).await;
    }

    /// The value of an expression on the page; a promise is awaited.
    pub(crate) async fn value(&self, expression: &str) -> Value {
        let ask = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let answer = self.call("Runtime.evaluate", ask).await;
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {}", answer["exceptionDetails"]);
        answer["result"]["value"].clone()
    }

    /// Presses and releases a key.
    pub(crate) async fn press(&self, key: &str, code: u32) {
        for kind in ["rawKeyDown", "keyUp"] {
            let event = json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code });
            self.call("Input.dispatchKeyEvent", event).await;
        }
    }

    /// Waits until an expression is true.
    pub(crate) async fn until(&self, what: &str, expression: &str) -> Duration {
        eventually(PATIENCE, what, async || self.value(expression).await == json!(true)).await
    }

    /// A picture of the whole page.
    pub(crate) async fn picture(&self, file: &Path) {
        let ask = json!({ "format": "png", "captureBeyondViewport": true });
        let taken = self.call("Page.captureScreenshot", ask).await;
        let bytes = BASE64_STANDARD.decode(taken["data"].as_str().unwrap()).expect("base64");
        std::fs::write(file, bytes).expect("the picture is kept");
    }
}
