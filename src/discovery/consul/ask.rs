//! One blocking query over HTTP/1, on a connection that is kept from question to question.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, HOST, USER_AGENT};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout};
use zeroize::Zeroizing;

use crate::discovery::ErrorKind;
use crate::discovery::last_good::Trouble;
use crate::io::request_body::RequestBody;
use crate::metrics;
use crate::net::{Http1, RequestHead, ResponseBody, SendFailure, UpstreamResponse};
use crate::tls::Alpn;

use super::index::Index;
use super::{Query, Settings};

/// Until an answer is whole, without the time that it may wait for a change.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Until a connection stands.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Bytes of an answer: some 16 000 instances with their checks. What is larger is an error, and changes nothing.
const MAX_ANSWER: usize = 32 * 1024 * 1024;

/// Bytes of an error's text that are shown.
const MAX_SHOWN: usize = 120;

/// Bytes of a token's file; Consul's tokens have 36.
const MAX_TOKEN: u32 = 4 * 1024;

const CONSUL_TOKEN: HeaderName = HeaderName::from_static("x-consul-token");
const CONSUL_INDEX: HeaderName = HeaderName::from_static("x-consul-index");
const FILTERED: HeaderName = HeaderName::from_static("x-consul-results-filtered-by-acls");
const AGENT: HeaderValue = HeaderValue::from_static("outrigger-discovery");

/// An answer that is one.
#[derive(Debug)]
pub(super) struct Reply {
    /// What the next question waits to change.
    pub(super) index: u64,
    pub(super) body: Bytes,
    /// The token may not see everything: an empty answer means nothing.
    pub(super) filtered: bool,
}

/// Asks one agent, over and over.
#[derive(Debug)]
pub(super) struct Asker {
    settings: Settings,
    /// What is the same in every question, ready for another parameter.
    target: String,
    connection: Option<Http1>,
}

impl Asker {
    pub(super) fn new(settings: Settings) -> Self {
        let target = target(&settings.query);
        Self { settings, target, connection: None }
    }

    /// Asks; with an index, waits until there is something newer, `wait` (whole seconds) at most.
    ///
    /// # Errors
    /// Whatever stands in the way of an answer that can be relied on. The connection is closed then.
    pub(super) async fn ask(&mut self, index: Index, wait: Duration) -> Result<Reply, Trouble> {
        // The server waits up to a sixteenth longer, so that questions which began together do not end together.
        let waits = if index.is_some() { wait + wait / 16 } else { Duration::ZERO };
        let limit = waits + ANSWER_TIMEOUT;
        match timeout(limit, self.exchange(index, wait)).await {
            Ok(reply) => reply,
            Err(_) => {
                let text = format!(
                    "no answer from {} in {} s",
                    self.settings.agent.address,
                    limit.as_secs()
                );
                Err(Trouble::new(ErrorKind::Timeout, text))
            }
        }
    }

    async fn exchange(&mut self, index: Index, wait: Duration) -> Result<Reply, Trouble> {
        let head = self.head(index, wait)?;
        // Taken out: whatever goes wrong, or is dropped on the way, closes it.
        let mut kept = self.connection.take().filter(Http1::is_open);
        let (connection, response) = loop {
            let reused = kept.is_some();
            let mut connection = match kept.take() {
                Some(connection) => connection,
                None => self.connect().await?,
            };
            match connection.send(&RequestHead::from(&head), RequestBody::empty()).await {
                Ok(response) => break (connection, response),
                // The agent closed it while it rested.
                Err(SendFailure::NotSent | SendFailure::Closed) if reused => {}
                Err(failure) => {
                    let kind = match failure {
                        SendFailure::Protocol(_) => ErrorKind::Malformed,
                        _ => ErrorKind::Unreachable,
                    };
                    return Err(self.trouble(kind, &failure));
                }
            }
        };
        let reply = self.read(response).await?;
        if connection.is_open() {
            self.connection = Some(connection);
        }
        Ok(reply)
    }

    fn head(&self, index: Index, wait: Duration) -> Result<Parts, Trouble> {
        let target = match index {
            Some(index) => format!("{}index={index}&wait={}s", self.target, wait.as_secs()),
            None => self.target.trim_end_matches(['?', '&']).to_owned(),
        };
        let request = Request::get(target)
            .header(HOST, &self.settings.agent.address)
            .header(USER_AGENT, AGENT)
            .header(ACCEPT, "application/json")
            .body(());
        let request = request.map_err(|error| self.trouble(ErrorKind::Other, &error))?;
        let mut head = request.into_parts().0;
        if let Some(path) = &self.settings.query.token_file {
            head.headers.insert(CONSUL_TOKEN, token(path)?);
        }
        Ok(head)
    }

    async fn connect(&self) -> Result<Http1, Trouble> {
        let agent = &self.settings.agent;
        let addresses = agent.addresses().await?;
        let socket = agent.connect(addresses, CONNECT_TIMEOUT, Alpn::Http1).await?;
        Ok(Http1::new(socket, Instant::now(), metrics::unseen()))
    }

    async fn read(&self, response: UpstreamResponse) -> Result<Reply, Trouble> {
        let (head, body) = response.into_parts();
        if head.status != StatusCode::OK {
            let text = self.shown(body).await;
            let kind = match head.status {
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ErrorKind::Denied,
                _ => ErrorKind::Other,
            };
            let text = format!("status {}{text}", head.status.as_u16());
            return Err(self.trouble(kind, &text));
        }
        let Some(index) = number(&head.headers, &CONSUL_INDEX) else {
            let why = "an answer without X-Consul-Index is not Consul's";
            return Err(self.trouble(ErrorKind::Malformed, &why));
        };
        let filtered = head.headers.get(FILTERED).is_some_and(|value| value == "true");
        let body = self.whole(body).await?;
        Ok(Reply { index, body, filtered })
    }

    async fn whole(&self, mut body: ResponseBody) -> Result<Bytes, Trouble> {
        let mut whole = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| self.trouble(ErrorKind::Unreachable, &error))?;
            let Ok(data) = frame.into_data() else { continue };
            if whole.len() + data.len() > MAX_ANSWER {
                let why = format!("an answer of more than {} MiB", MAX_ANSWER / 1024 / 1024);
                return Err(self.trouble(ErrorKind::Malformed, &why));
            }
            whole.extend_from_slice(&data);
        }
        Ok(whole.freeze())
    }

    /// The first line of an error: Consul says there what is wrong, `ACL not found` for one.
    async fn shown(&self, mut body: ResponseBody) -> String {
        let Some(Ok(frame)) = body.frame().await else { return String::new() };
        let Ok(data) = frame.into_data() else { return String::new() };
        let text = String::from_utf8_lossy(&data[..data.len().min(MAX_SHOWN)]);
        let line: String = text.lines().next().unwrap_or_default().chars().collect();
        let line: String = line.chars().filter(|c| !c.is_control()).collect();
        if line.trim().is_empty() { String::new() } else { format!(": {}", line.trim()) }
    }

    fn trouble(&self, kind: ErrorKind, why: &dyn std::fmt::Display) -> Trouble {
        self.settings.agent.trouble(kind, why)
    }
}

/// `/v1/health/service/NAME?…`, up to and with the mark before another parameter.
fn target(query: &Query) -> String {
    let mut target = format!("/v1/health/service/{}?", encoded(&query.service));
    if query.passing {
        target.push_str("passing&");
    }
    for tag in &query.tags {
        target.push_str(&format!("tag={}&", encoded(tag)));
    }
    if let Some(datacenter) = &query.datacenter {
        target.push_str(&format!("dc={}&", encoded(datacenter)));
    }
    target
}

/// Percent-encodes all but unreserved characters (RFC 3986 §2.3).
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

fn number(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

/// The token as the file has it at this moment: one that is replaced is used with the next question.
fn token(path: &Path) -> Result<HeaderValue, Trouble> {
    let failed = |why: &dyn std::fmt::Display| {
        let text = format!("the token in {}: {why}", path.display());
        Trouble::new(ErrorKind::Denied, text)
    };
    // As much as may come: a text that grows leaves copies behind.
    let mut text = Zeroizing::new(String::with_capacity(MAX_TOKEN as usize + 1));
    let read =
        File::open(path).and_then(|file| file.take(MAX_TOKEN.into()).read_to_string(&mut text));
    read.map_err(|error| failed(&error))?;
    let text = text.trim();
    if text.is_empty() {
        return Err(failed(&"the file is empty"));
    }
    let mut token = HeaderValue::from_str(text).map_err(|_| failed(&"not a token"))?;
    token.set_sensitive(true);
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_encoded_so_that_it_stays_one_part() {
        assert_eq!(encoded("articles-v2.x_~"), "articles-v2.x_~");
        assert_eq!(encoded("a/b?c&d=e f%ä"), "a%2Fb%3Fc%26d%3De%20f%25%C3%A4");
    }

    #[test]
    fn the_token_is_what_the_file_has_at_the_moment() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        assert!(token(&path).unwrap_err().text.contains("token"));
        std::fs::write(&path, " \n").unwrap();
        assert!(token(&path).unwrap_err().text.contains("empty"));
        std::fs::write(&path, "first\n").unwrap();
        assert_eq!(token(&path).unwrap(), "first");
        std::fs::write(&path, "second").unwrap();
        assert_eq!(token(&path).unwrap(), "second");
        std::fs::write(&path, "a\nb").unwrap();
        assert!(token(&path).unwrap_err().text.ends_with("not a token"));
    }
}
