//! A real name server, and services at addresses that it can name.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "test code; every test file uses its own part of it"
)]

use std::io::{BufReader, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::support::read_request;
use crate::traffic::{free_port, ok, program};

/// dnsmasq with one file of names, which it reads again when told to.
pub struct NameServer {
    program: PathBuf,
    pub dir: tempfile::TempDir,
    pub port: u16,
    /// More arguments.
    pub arguments: Vec<String>,
    running: Option<Child>,
}

impl NameServer {
    /// `None` where it is not installed. It does not run yet.
    pub fn new() -> Option<Self> {
        let program = program("OUTRIGGER_TEST_DNSMASQ", "dnsmasq", "dnsmasq-base")?;
        let dir = tempfile::tempdir().unwrap();
        Some(Self { program, dir, port: free_port(), arguments: Vec::new(), running: None })
    }

    /// Writes the names, lines of `address name`, and has them read.
    pub fn names(&self, lines: &str) {
        std::fs::write(self.dir.path().join("hosts"), lines).unwrap();
        if let Some(child) = &self.running {
            let pid = child.id().to_string();
            assert!(Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
        }
    }

    pub fn start(&mut self) {
        let mut command = Command::new(&self.program);
        command
            .args(["-k", "--listen-address=127.0.0.1", "--bind-interfaces", "--no-resolv"])
            .args(["--no-hosts", "--conf-file=/dev/null", "--local-ttl=1", "--local=/test/"])
            .args(["--user=root", "--pid-file="])
            .arg(format!("--port={}", self.port))
            .arg(format!("--addn-hosts={}", self.dir.path().join("hosts").display()))
            .args(&self.arguments)
            .stderr(Stdio::null());
        self.running = Some(command.spawn().unwrap());
    }

    pub fn stop(&mut self) {
        if let Some(mut child) = self.running.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Two services on one port: `one` on 127.0.0.1 and `two` on 127.0.0.2. Returns the port.
pub fn one_and_two() -> u16 {
    let (first, second) = loop {
        let first = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = first.local_addr().unwrap().port();
        if let Ok(second) = TcpListener::bind(("127.0.0.2", port)) {
            break (first, second);
        }
    };
    let port = first.local_addr().unwrap().port();
    for (listener, body) in [(first, "one"), (second, "two")] {
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                std::thread::spawn(move || {
                    let mut stream = BufReader::new(stream);
                    while read_request(&mut stream).is_some() {
                        if stream.get_mut().write_all(&ok(body)).is_err() {
                            return;
                        }
                    }
                });
            }
        });
    }
    port
}
