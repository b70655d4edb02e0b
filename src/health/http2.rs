//! One request on an HTTP/2 connection of its own, with prior knowledge.
//!
//! On the h2 crate itself: hyper would put the connection's work into tasks that outlive a check which is dropped.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request};

use crate::io::socket::Socket;

use super::grpc::MAX_ANSWER;
use super::probe::{Finding, Limit, MAX_HEAD, driven};

/// An answer: whole where a message was sent, else its head.
pub(super) struct Answer {
    pub(super) head: http::response::Parts,
    pub(super) body: Bytes,
    pub(super) trailers: HeaderMap,
}

/// Sends `request`, with `message` as its body, and waits for the answer.
pub(super) async fn ask(
    socket: Socket,
    request: Request<()>,
    message: Option<Bytes>,
    limit: Limit,
) -> Result<Answer, Finding> {
    let mut builder = h2::client::Builder::new();
    builder.enable_push(false).max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX));
    let handshake = limit.within(builder.handshake::<_, Bytes>(socket)).await?;
    let (send, connection) = handshake.map_err(|error| broken(&error))?;
    let exchange = exchange(send, request, message, limit);
    driven(Box::pin(exchange), Box::pin(connection), limit).await
}

async fn exchange(
    send: h2::client::SendRequest<Bytes>,
    request: Request<()>,
    message: Option<Bytes>,
    limit: Limit,
) -> Result<Answer, Finding> {
    let exchange = async {
        let mut send = send.ready().await?;
        let (answer, mut stream) = send.send_request(request, message.is_none())?;
        let whole = message.is_some();
        if let Some(message) = message {
            stream.send_data(message, true)?;
        }
        let (head, mut stream) = answer.await?.into_parts();
        let mut answer = Answer { head, body: Bytes::new(), trailers: HeaderMap::new() };
        if !whole {
            return Ok(answer);
        }
        let mut body = BytesMut::new();
        while let Some(data) = stream.data().await {
            // Not released: the peer's window ends soon after what is read.
            body.extend_from_slice(&data?);
            if body.len() > MAX_ANSWER {
                return Ok(answer);
            }
        }
        answer.body = body.freeze();
        answer.trailers = stream.trailers().await?.unwrap_or_default();
        Ok(answer)
    };
    limit.within(exchange).await?.map_err(|error: h2::Error| broken(&error))
}

fn broken(error: &h2::Error) -> Finding {
    match () {
        () if error.is_reset() && error.is_remote() => Finding::broken("reset by the endpoint"),
        () if error.is_io() => Finding::broken("closed without an answer"),
        () if error.is_go_away() && error.is_remote() => Finding::broken("refused with GOAWAY"),
        () => Finding::broken("the answer is not valid HTTP/2"),
    }
}
