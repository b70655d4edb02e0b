//! Answers that the proxy makes itself: status, reason, and a text that a person understands.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, DATE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version};

use crate::base::error::{ProxyError, Reason};
use crate::policy::classify::{grpc_code, http_status};
use crate::policy::retry_depth::ATTEMPTS;

use super::exchange::Exchange;
use super::response::ResponseBody;
use super::retries;

/// Carries the reason's word on every answer of ours.
pub(super) const REASON: HeaderName = HeaderName::from_static("x-outrigger-reason");

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// The answer to a request that failed.
pub(super) fn failure(exchange: Box<Exchange>, error: &ProxyError) -> Response<ResponseBody> {
    failure_as(exchange, error, http_status(error.reason), grpc_code(error.reason))
}

/// The same with statuses of its own.
pub(super) fn failure_as(
    mut exchange: Box<Exchange>,
    error: &ProxyError,
    status: u16,
    grpc_status: u8,
) -> Response<ResponseBody> {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    let connect = exchange.head.method == Method::CONNECT;
    exchange.broke(error.reason, error.detail.clone());
    let attempts = retries::told_of_failure(&exchange);
    let mut response = if exchange.fields.grpc {
        grpc(exchange, error, grpc_status)
    } else {
        let text = format!("{}: {}\n", error.reason, error.detail);
        local(exchange, status, TEXT, Bytes::from(text))
    };
    if let Some(attempts) = attempts {
        response.headers_mut().insert(ATTEMPTS, attempts);
    }
    response.headers_mut().insert(REASON, HeaderValue::from_static(error.reason.word()));
    let unclear = matches!(
        error.reason,
        Reason::DownstreamProtocol | Reason::BadHeader | Reason::TooLarge | Reason::RequestTimeout
    );
    if (unclear || connect) && response.version() != Version::HTTP_2 {
        // Where a message was unclear or unfinished, nothing that follows on the connection can be trusted. Behind a
        // CONNECT may come bytes of the tunnel that was hoped for: they are no request.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// The answer of a route's own `respond` or `redirect`.
pub(super) fn direct(
    mut exchange: Box<Exchange>,
    status: StatusCode,
    content_type: HeaderValue,
    body: Bytes,
) -> Response<ResponseBody> {
    exchange.reason = Some(Reason::DirectResponse);
    let mut response = local(exchange, status, content_type, body);
    let word = HeaderValue::from_static(Reason::DirectResponse.word());
    response.headers_mut().insert(REASON, word);
    response
}

fn local(
    mut exchange: Box<Exchange>,
    status: StatusCode,
    content_type: HeaderValue,
    body: Bytes,
) -> Response<ResponseBody> {
    exchange.status = status.as_u16();
    let version = exchange.head.version;
    let length = body.len();
    let bodiless = status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED;
    let mut response = Response::new(ResponseBody::local(exchange, body));
    *response.status_mut() = status;
    *response.version_mut() = version;
    let headers = response.headers_mut();
    if length > 0 {
        headers.insert(CONTENT_TYPE, content_type);
    }
    if !bodiless {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    let date = httpdate::fmt_http_date(std::time::SystemTime::now());
    if let Ok(date) = HeaderValue::from_str(&date) {
        headers.insert(DATE, date);
    }
    response
}

/// A "trailers-only" answer: 200 with the status in its head (gRPC over HTTP/2, "Responses").
fn grpc(mut exchange: Box<Exchange>, error: &ProxyError, code: u8) -> Response<ResponseBody> {
    exchange.grpc_status = Some(code);
    let mut response = local(exchange, StatusCode::OK, TEXT, Bytes::new());
    let headers = response.headers_mut();
    headers.remove(CONTENT_LENGTH);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    write_grpc_status(headers, code, error.reason, &error.detail);
    response
}

/// The end of a gRPC call: in the head of an answer, or in its trailers.
pub(super) fn write_grpc_status(fields: &mut HeaderMap, code: u8, reason: Reason, detail: &str) {
    fields.insert("grpc-status", HeaderValue::from(u16::from(code)));
    let message = format!("{reason}: {detail}");
    if let Ok(message) = HeaderValue::from_str(&percent_encoded(&message)) {
        fields.insert("grpc-message", message);
    }
}

/// `grpc-message` is percent-encoded (gRPC over HTTP/2, "Percent-Encoded").
fn percent_encoded(text: &str) -> Cow<'_, str> {
    let plain = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b'%';
    if text.bytes().all(plain) {
        return Cow::Borrowed(text);
    }
    let mut encoded = String::with_capacity(text.len() + 16);
    for byte in text.bytes() {
        if plain(byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    Cow::Owned(encoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_messages_are_percent_encoded() {
        assert_eq!(percent_encoded("plain text"), "plain text");
        assert_eq!(percent_encoded("100% ä\n"), "100%25 %C3%A4%0A");
    }
}
