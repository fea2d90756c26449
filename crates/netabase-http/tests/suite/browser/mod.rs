//! A client of the W3C `WebDriver` protocol, with what the tests need.
#![allow(unreachable_pub, clippy::print_stdout, reason = "it is a part of a test program")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use netabase_client::Client;
use serde_json::{Value, json};
use tempfile::TempDir;

/// How long the page has to become what it should be.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the driver may take for one thing.
const DRIVER_TIMEOUT: Duration = Duration::from_secs(120);

pub struct Browser {
    driver: Child,
    client: Client,
    session: String,
    /// Where Chromium keeps its profile.
    _profile: TempDir,
}

impl Browser {
    /// Starts a browser with an empty profile; `None` where there is none, unless it is required.
    pub async fn start() -> Option<Self> {
        let driver =
            Command::new("chromedriver").arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let Ok(mut driver) = driver else {
            assert!(std::env::var_os("NETABASE_BROWSER").is_none(), "there is no chromedriver");
            println!("skipped: there is no chromedriver; install chromium and chromium-driver");
            return None;
        };
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = lines.find_map(|line| {
            let line = line.unwrap();
            let (_, port) = line.split_once("successfully on port ")?;
            Some(port.trim_end_matches('.').to_owned())
        });
        let client =
            Client::new(&format!("http://127.0.0.1:{}", port.unwrap())).unwrap().with_timeout(DRIVER_TIMEOUT);
        // A closed pipe would end the driver.
        std::thread::spawn(move || lines.for_each(drop));
        let profile = tempfile::tempdir().unwrap();
        let arguments = json!([
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            "--window-size=1280,900",
            format!("--user-data-dir={}", profile.path().display()),
        ]);
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "goog:chromeOptions": { "args": arguments }, "goog:loggingPrefs": { "browser": "ALL" },
        } } });
        let answer = client.post("/session", &wanted).await.unwrap().json;
        let session = answer["value"]["sessionId"].as_str().unwrap().to_owned();
        Some(Self { driver, client, session, _profile: profile })
    }

    async fn post(&self, command: &str, body: Value) -> Value {
        let answer = self.client.post(&format!("/session/{}/{command}", self.session), &body).await;
        answer.unwrap_or_else(|error| panic!("{command}: {error:?}")).json["value"].clone()
    }

    async fn get(&self, command: &str) -> Value {
        self.client.get(&format!("/session/{}/{command}", self.session)).await.unwrap().json["value"].clone()
    }

    pub async fn open(&self, url: &str) {
        self.post("url", json!({ "url": url })).await;
    }

    pub async fn script(&self, script: &str) -> Value {
        self.post("execute/sync", json!({ "script": script, "args": [] })).await
    }

    /// Waits, in the page, until an expression is true.
    pub async fn until(&self, what: &str, expression: &str) {
        let script = format!(
            "const [patience, done] = arguments; const end = Date.now() + patience;
             const look = () => {{ let is; try {{ is = Boolean({expression}); }} catch (error) {{ is = false; }}
               if (is || Date.now() > end) done(is); else setTimeout(look, 20); }}; look();"
        );
        let patience = u64::try_from(PATIENCE.as_millis()).unwrap();
        self.post("timeouts", json!({ "script": 2 * patience })).await;
        let is = self.post("execute/async", json!({ "script": script, "args": [patience] })).await;
        if is != json!(true) {
            self.picture("failed.png").await;
            let text = self.script("return document.body.innerText").await;
            panic!("waited too long: {what}\n{text}\n{:?}", self.complaints().await);
        }
    }

    /// Types on the keyboard, where the focus is.
    pub async fn keys(&self, keys: &str) {
        let pressed = keys.chars().flat_map(|key| {
            ["keyDown", "keyUp"].map(|kind| json!({ "type": kind, "value": key.to_string() }))
        });
        let actions: Vec<Value> = pressed.collect();
        self.post("actions", json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": actions }] }))
            .await;
    }

    /// Has the page think that the screen is so large.
    pub async fn size(&self, width: u32, height: u32) {
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 2, "mobile": true });
        let command = json!({ "cmd": "Emulation.setDeviceMetricsOverride", "params": metrics });
        self.post("goog/cdp/execute", command).await;
    }

    /// Keeps a picture of the page in the target directory.
    pub async fn picture(&self, name: &str) {
        let bytes = decoded(self.get("screenshot").await.as_str().unwrap());
        let directory = pictures();
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join(name), bytes).unwrap();
    }

    /// Returns what the page has complained of: errors, and what its policy forbids.
    pub async fn complaints(&self) -> Vec<String> {
        let log = self.post("se/log", json!({ "type": "browser" })).await;
        let entries = log.as_array().unwrap().iter();
        let bad = entries.filter(|entry| entry["level"] == "SEVERE");
        bad.map(|entry| entry["message"].as_str().unwrap().to_owned()).collect()
    }

    pub async fn end(self) {
        self.client.delete(&format!("/session/{}", self.session), None).await.unwrap();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver may have ended already.
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// Where the pictures go: beside the test programs.
fn pictures() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("dashboard")
}

/// Decodes base64.
fn decoded(text: &str) -> Vec<u8> {
    const LETTERS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0_u32, 0);
    for letter in text.bytes().filter(|letter| *letter != b'=') {
        let value = LETTERS.bytes().position(|known| known == letter).unwrap();
        bits = (bits << 6) | u32::try_from(value).unwrap();
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from((bits >> count) & 0xff).unwrap());
        }
    }
    bytes
}
