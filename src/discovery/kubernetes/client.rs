//! A client of the API server, and what its errors mean.

use std::time::Duration;

use http::header::USER_AGENT;
use http::{HeaderValue, StatusCode};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::watcher;
use kube::{Client, Config};

use super::Query;
use crate::discovery::ErrorKind;
use crate::discovery::last_good::Trouble;

/// Until a connection stands, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Until something comes on a connection that is asked something. Longer than a watch in which nothing happens.
const READ_TIMEOUT: Duration = Duration::from_secs(130);

/// Characters of an error that are shown.
const MAX_SHOWN: usize = 240;

/// A client with the credentials as they are at this moment: the files of a pod, or a kubeconfig.
///
/// Tokens in files are read again by kube, each minute at least.
pub(super) async fn make(query: &Query) -> Result<Client, Trouble> {
    let mut config = match &query.kubeconfig {
        None => Config::incluster().map_err(|error| unusable(&error))?,
        Some(path) => {
            let file = Kubeconfig::read_from(path).map_err(|error| unusable(&error))?;
            let options =
                KubeConfigOptions { context: query.context.clone(), ..Default::default() };
            let config = Config::from_custom_kubeconfig(file, &options).await;
            config.map_err(|error| unusable(&error))?
        }
    };
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(READ_TIMEOUT);
    // What follows an error is decided by us.
    config.default_retry = false;
    config.headers.push((USER_AGENT, HeaderValue::from_static("outrigger-discovery")));
    Client::try_from(config).map_err(|error| unusable(&error))
}

fn unusable(error: &dyn std::error::Error) -> Trouble {
    Trouble::new(ErrorKind::Other, format!("the API server's credentials: {}", chain(error)))
}

/// What an error of the watcher means; `None`: only that it has to begin anew.
pub(super) fn trouble(error: &watcher::Error) -> Option<Trouble> {
    let client = match error {
        watcher::Error::WatchError(status) => return answered(status),
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => error,
        watcher::Error::NoResourceVersion => {
            return Some(Trouble::new(ErrorKind::Malformed, "an answer without resourceVersion"));
        }
    };
    let kind = match client {
        kube::Error::Api(status) => return answered(status),
        kube::Error::Auth(_) => ErrorKind::Denied,
        kube::Error::SerdeError(_) | kube::Error::FromUtf8(_) => ErrorKind::Malformed,
        kube::Error::Service(_) | kube::Error::HyperError(_) | kube::Error::ReadEvents(_) => {
            let timed_out = chain(client).contains("deadline has elapsed");
            if timed_out { ErrorKind::Timeout } else { ErrorKind::Unreachable }
        }
        _ => ErrorKind::Other,
    };
    Some(Trouble::new(kind, format!("the API server: {}", chain(client))))
}

fn answered(status: &kube::core::Status) -> Option<Trouble> {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let kind = match code {
        StatusCode::GONE => return None,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ErrorKind::Denied,
        _ => ErrorKind::Other,
    };
    let text = format!("the API server: status {}: {}", status.code, status.message);
    Some(Trouble::new(kind, shown(&text)))
}

/// An error with its causes, each once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    shown(&text)
}

fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_SHOWN).collect()
}
