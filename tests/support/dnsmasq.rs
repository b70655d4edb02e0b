//! A real name server, and services at addresses that it can name.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "test code; every test file uses its own part of it"
)]

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::local::one_port;
use crate::traffic::{free_port, program};

/// dnsmasq with one file of names, which it reads again when told to.
pub struct NameServer {
    program: PathBuf,
    pub dir: tempfile::TempDir,
    pub port: u16,
    /// Of every answer, in seconds.
    pub ttl: u32,
    /// More arguments.
    pub arguments: Vec<String>,
    running: Option<Child>,
}

impl NameServer {
    /// `None` where it is not installed. It does not run yet.
    pub fn new() -> Option<Self> {
        let program = program("OUTRIGGER_TEST_DNSMASQ", "dnsmasq", "dnsmasq-base")?;
        let dir = tempfile::tempdir().unwrap();
        Some(Self { program, dir, port: free_port(), ttl: 1, arguments: Vec::new(), running: None })
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
            .args(["--no-hosts", "--conf-file=/dev/null", "--local=/test/"])
            .arg(format!("--local-ttl={}", self.ttl))
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
    one_port(["one", "two"])[0].port()
}
