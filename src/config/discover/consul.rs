//! `discover: consul://…`.

use std::path::PathBuf;

use crate::config::UpstreamTls;

/// A service as a Consul agent knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct ConsulService {
    /// The agent: a name, lower case, or an address (IPv6 in brackets).
    pub host: String,
    /// 1..=65535.
    pub port: u16,
    /// Its name in Consul.
    pub service: String,
    /// All of these an instance must have. Default none.
    pub tags: Vec<String>,
    /// Default: the agent's own.
    pub datacenter: Option<String>,
    /// Only instances whose checks all pass; else those with a warning too, by their weight for warnings. Default false.
    pub passing: bool,
    /// Read with each question. Default: no token.
    pub token_file: Option<PathBuf>,
    /// How the agent is spoken to. Default: in clear.
    pub tls: Option<UpstreamTls>,
}

impl ConsulService {
    /// As a URL, without what a URL does not have.
    pub fn url(&self) -> String {
        let mut url = format!("consul://{}:{}/{}", self.host, self.port, self.service);
        let mut mark = '?';
        let mut add = |text: &str| {
            url.push(std::mem::replace(&mut mark, '&'));
            url.push_str(text);
        };
        if self.passing {
            add("passing");
        }
        for tag in &self.tags {
            add(&format!("tag={tag}"));
        }
        if let Some(datacenter) = &self.datacenter {
            add(&format!("dc={datacenter}"));
        }
        url
    }
}
