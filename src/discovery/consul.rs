//! The instances of a service that a Consul agent calls healthy, as they change.
//!
//! A blocking query (`/v1/health/service/NAME?index=…`) is answered when something has changed, so that a change is there
//! a round trip later. `Asker` asks, `answer` reads, `ConsulState` decides what an answer changes and what to ask next.
//!
//! What is believed: an error keeps the last good set; an answer that is cut off, is none of Consul's, or that the token
//! may not see, is an error; an empty one must be given three times (`last_good`).
//!
//! Which instances: those whose worst check passes, with the service's weight for that; without `passing` also those
//! with a warning, with the weight for warnings. Critical ones and those in maintenance never: as Consul's own DNS does.

mod answer;
mod ask;
mod index;
mod state;

use std::path::PathBuf;
use std::sync::Arc;

use tokio::time::{Instant, sleep_until};

use self::ask::{Asker, Reply};
use self::state::{Answer, ConsulState};
use super::ErrorKind;
use super::dns::{Resolver, ResolverError};
use super::last_good::Trouble;
use super::publisher::Publisher;
use super::server::{Server, ServerTls};
use crate::base::rng::Rng;

/// An answer from here on is read on another thread: the control thread has health checks to keep up with.
const LARGE: usize = 256 * 1024;

/// `discover: consul://…`.
#[derive(Debug)]
pub struct Consul {
    settings: Box<Settings>,
    source: Arc<str>,
}

/// Which service of which agent.
#[derive(Debug)]
pub struct Query {
    /// The agent: a name or an address.
    pub host: String,
    /// Its port of HTTP.
    pub port: u16,
    /// Of whom instances are wanted.
    pub service: String,
    /// All of these an instance must have.
    pub tags: Vec<String>,
    /// `None`: the agent's own.
    pub datacenter: Option<String>,
    /// Without those that have a warning.
    pub passing: bool,
    /// Where the token stands; read with each question.
    pub token_file: Option<PathBuf>,
    /// `None`: in clear.
    pub tls: Option<ServerTls>,
}

#[derive(Debug)]
struct Settings {
    query: Query,
    agent: Server,
}

impl Consul {
    /// `source`: how logs call it. The agent's name is looked up with `resolver` for each connection.
    ///
    /// # Errors
    /// The agent's host is no name that DNS could have.
    pub fn new(
        query: Query,
        source: impl Into<Arc<str>>,
        resolver: Arc<Resolver>,
    ) -> Result<Self, ResolverError> {
        let agent = Server::new(&query.host, query.port, query.tls.clone(), resolver)?;
        let settings = Box::new(Settings { query, agent });
        Ok(Self { settings, source: source.into() })
    }

    pub(super) fn source(&self) -> Arc<str> {
        self.source.clone()
    }

    /// Asks, publishes, asks again; ends only by being aborted.
    pub(super) async fn run(self, publisher: Publisher, mut rng: Rng) {
        let passing = self.settings.query.passing;
        let mut asker = Asker::new(*self.settings);
        let (mut state, mut question) = ConsulState::new(Instant::now());
        loop {
            sleep_until(question.at).await;
            let answer = match asker.ask(question.index, question.wait).await {
                Ok(reply) => read(reply, passing).await,
                Err(trouble) => Err(trouble),
            };
            let now = Instant::now();
            let (verdict, next) = state.on_answer(now, answer, &mut rng);
            publisher.take(verdict, now);
            question = next;
        }
    }
}

async fn read(reply: Reply, passing: bool) -> Result<Answer, Trouble> {
    let Reply { index, body, filtered } = reply;
    let parsed = if body.len() < LARGE {
        answer::parse(&body, passing)
    } else {
        let parsing = tokio::task::spawn_blocking(move || answer::parse(&body, passing));
        parsing.await.unwrap_or_else(|error| Err(error.to_string()))
    };
    let instances = parsed.map_err(|text| Trouble::new(ErrorKind::Malformed, text))?;
    Ok(Answer { instances, index, filtered })
}

/// See `answer::hostile`: the door for fuzz targets.
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub fn hostile(bytes: &[u8]) {
    answer::hostile(bytes);
}
