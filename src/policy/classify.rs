//! What the end of an attempt or of a request means: for health, for metrics, and for the caller.

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::base::error::{Origin, Reason, RetrySafety};

/// The classified end of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The endpoint did its work; a refusal that is the caller's fault (4xx) is one too.
    Success,
    /// The endpoint failed, or did not answer.
    Failure,
    /// We failed or refused before an endpoint had its chance: says nothing about any endpoint.
    LocalFailure,
    /// The caller went away or sent something unusable: says nothing about the endpoint's health.
    Cancelled,
}

impl Outcome {
    /// The word in logs and metric labels.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::LocalFailure => "local_failure",
            Self::Cancelled => "cancelled",
        }
    }

    /// The outcome of a response, by its gRPC status where it has one.
    ///
    /// HTTP: 5xx is a failure. gRPC: UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS and codes
    /// that do not exist, as OpenTelemetry's conventions for gRPC servers have it.
    pub fn of_response(status: StatusCode, grpc_status: Option<u8>) -> Self {
        let failed = match grpc_status {
            Some(code) => matches!(code, 2 | 4 | 12..=15 | 17..),
            None => status.is_server_error(),
        };
        if failed { Self::Failure } else { Self::Success }
    }

    /// The outcome of an attempt that ended without a usable response.
    pub fn of_reason(reason: Reason) -> Self {
        match reason {
            // Of the upstream as a whole: no endpoint was asked.
            Reason::NoUpstream | Reason::NoHealthyEndpoint | Reason::DnsFailed => {
                Self::LocalFailure
            }
            _ => match reason.origin() {
                Origin::Upstream => Self::Failure,
                Origin::Proxy => Self::LocalFailure,
                Origin::Downstream => Self::Cancelled,
            },
        }
    }
}

/// True where a response says "too much": 429, or gRPC RESOURCE_EXHAUSTED.
///
/// It is a success by [`Outcome::of_response`], and comes fast: without a penalty a latency-aware balancer would send more.
pub fn is_overload(status: StatusCode, grpc_status: Option<u8>) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || grpc_status == Some(8)
}

/// True where a response says "too much" or "not now": as [`is_overload`], or 503, or gRPC UNAVAILABLE.
pub fn is_refusal(status: StatusCode, grpc_status: Option<u8>) -> bool {
    let not_now = status == StatusCode::SERVICE_UNAVAILABLE || grpc_status == Some(14);
    not_now || is_overload(status, grpc_status)
}

/// True where the `content-type` of `headers` is gRPC's, see [`is_grpc_type`].
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(is_grpc_type)
}

/// True for gRPC's content type: `application/grpc`, with `+proto` and parameters; not `application/grpc-web`.
pub fn is_grpc_type(content_type: &HeaderValue) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    let Some((kind, rest)) = content_type.as_bytes().split_at_checked(GRPC.len()) else {
        return false;
    };
    kind.eq_ignore_ascii_case(GRPC) && matches!(rest.first(), None | Some(b'+' | b';' | b' '))
}

/// The `grpc-status` of a response's head (trailers-only) or of its trailers; 2 (UNKNOWN) where it is no number.
pub fn grpc_status(fields: &HeaderMap) -> Option<u8> {
    let value = fields.get("grpc-status")?;
    let code = value.to_str().ok().and_then(|text| text.parse().ok());
    Some(code.unwrap_or(2))
}

/// The HTTP status of our own reply.
///
/// 503 is kept for requests that provably did not run, 502 for those that may have: callers that send again after a 503
/// without a thought (istio#13851) then repeat nothing. 499 stands in the log only, as nobody is there to read it.
/// [`Reason::DirectResponse`] and [`Reason::FaultAbort`] have the status that their route says; 200 and 503 stand in.
pub const fn http_status(reason: Reason) -> u16 {
    match reason {
        Reason::DirectResponse => 200,
        Reason::BadHeader | Reason::DownstreamProtocol => 400,
        Reason::Unauthenticated => 401,
        Reason::Denied => 403,
        Reason::NoRoute => 404,
        Reason::MethodRefused => 405,
        Reason::RequestTimeout => 408,
        Reason::TooLarge => 413,
        Reason::RateLimited => 429,
        Reason::ClientGone => 499,
        Reason::UpstreamClosed
        | Reason::UpstreamReset
        | Reason::UpstreamProtocol
        | Reason::RetriesExhausted
        | Reason::Draining => 502,
        Reason::NoUpstream
        | Reason::NoHealthyEndpoint
        | Reason::ConnectFailed
        | Reason::LimitReached
        | Reason::QueueTimeout
        | Reason::FaultAbort
        | Reason::BreakerOpen
        | Reason::Overload
        | Reason::UpstreamRefused
        | Reason::DnsFailed => 503,
        Reason::Timeout | Reason::PerTryTimeout | Reason::DeadlineExpired | Reason::StreamIdle => {
            504
        }
        Reason::Loop => 508,
    }
}

/// The gRPC status of our own reply.
///
/// Clients retry UNAVAILABLE (14), so it is kept for requests that did not run and may succeed elsewhere or later; what
/// may have run is UNKNOWN (2). A loop is INTERNAL (13) although it did not run: sending it again cannot help.
pub const fn grpc_code(reason: Reason) -> u8 {
    match reason {
        Reason::ClientGone => 1,
        Reason::Timeout
        | Reason::PerTryTimeout
        | Reason::DeadlineExpired
        | Reason::StreamIdle
        | Reason::RequestTimeout => 4,
        Reason::Denied => 7,
        Reason::Unauthenticated => 16,
        Reason::LimitReached
        | Reason::QueueTimeout
        | Reason::Overload
        | Reason::RateLimited
        | Reason::TooLarge => 8,
        Reason::NoRoute | Reason::MethodRefused => 12,
        Reason::BadHeader | Reason::DownstreamProtocol | Reason::Loop => 13,
        Reason::DirectResponse => 2,
        _ => match reason.safety() {
            RetrySafety::NotSent => 14,
            RetrySafety::MaybeSent => 2,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &'static str, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(
            http::HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )])
    }

    #[test]
    fn only_what_provably_did_not_run_is_answered_503_or_14() {
        for &reason in Reason::ALL {
            let replies = (http_status(reason), grpc_code(reason));
            match reason.safety() {
                RetrySafety::NotSent => assert!(replies.0 != 502 && replies.1 != 1, "{reason}"),
                RetrySafety::MaybeSent => assert!(replies.0 != 503 && replies.1 != 14, "{reason}"),
            }
            assert!(StatusCode::from_u16(replies.0).is_ok() && replies.1 <= 16, "{reason}");
        }
    }

    #[test]
    fn replies_follow_the_documented_table() {
        for (reason, http, grpc) in [
            (Reason::NoRoute, 404, 12),
            (Reason::Denied, 403, 7),
            (Reason::Unauthenticated, 401, 16),
            (Reason::ConnectFailed, 503, 14),
            (Reason::LimitReached, 503, 8),
            (Reason::QueueTimeout, 503, 8),
            (Reason::Overload, 503, 8),
            (Reason::BreakerOpen, 503, 14),
            (Reason::RateLimited, 429, 8),
            (Reason::UpstreamRefused, 503, 14),
            (Reason::UpstreamClosed, 502, 2),
            (Reason::UpstreamReset, 502, 2),
            (Reason::RetriesExhausted, 502, 2),
            (Reason::Timeout, 504, 4),
            (Reason::DeadlineExpired, 504, 4),
            (Reason::BadHeader, 400, 13),
            (Reason::TooLarge, 413, 8),
            (Reason::RequestTimeout, 408, 4),
            (Reason::Loop, 508, 13),
            (Reason::MethodRefused, 405, 12),
            (Reason::Draining, 502, 2),
        ] {
            assert_eq!((http_status(reason), grpc_code(reason)), (http, grpc), "{reason}");
        }
    }

    #[test]
    fn a_failing_server_is_told_from_a_refused_caller() {
        for (status, grpc, outcome) in [
            (200, None, Outcome::Success),
            (404, None, Outcome::Success),
            (429, None, Outcome::Success),
            (500, None, Outcome::Failure),
            (503, None, Outcome::Failure),
            (200, Some(0), Outcome::Success),
            (200, Some(5), Outcome::Success),
            (200, Some(8), Outcome::Success),
            (200, Some(13), Outcome::Failure),
            (200, Some(14), Outcome::Failure),
            (200, Some(16), Outcome::Success),
            (200, Some(77), Outcome::Failure),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(Outcome::of_response(status, grpc), outcome, "{status} {grpc:?}");
        }
    }

    #[test]
    fn our_own_refusals_and_callers_that_leave_say_nothing_about_endpoints() {
        for (reason, outcome) in [
            (Reason::LimitReached, Outcome::LocalFailure),
            (Reason::QueueTimeout, Outcome::LocalFailure),
            (Reason::BreakerOpen, Outcome::LocalFailure),
            (Reason::Overload, Outcome::LocalFailure),
            (Reason::NoHealthyEndpoint, Outcome::LocalFailure),
            (Reason::Draining, Outcome::LocalFailure),
            (Reason::ClientGone, Outcome::Cancelled),
            (Reason::TooLarge, Outcome::Cancelled),
            (Reason::ConnectFailed, Outcome::Failure),
            (Reason::Timeout, Outcome::Failure),
            (Reason::UpstreamReset, Outcome::Failure),
        ] {
            assert_eq!(Outcome::of_reason(reason), outcome, "{reason}");
        }
    }

    #[test]
    fn grpc_is_known_by_its_content_type() {
        for (value, expected) in [
            ("application/grpc", true),
            ("Application/GRPC+proto", true),
            ("application/grpc; charset=utf-8", true),
            ("application/grpc-web", false),
            ("application/grpc-web+proto", false),
            ("application/json", false),
            ("text", false),
        ] {
            assert_eq!(is_grpc(&with("content-type", value)), expected, "{value}");
        }
        assert!(!is_grpc(&HeaderMap::new()));
    }

    #[test]
    fn a_grpc_status_that_is_no_number_is_unknown() {
        assert_eq!(grpc_status(&HeaderMap::new()), None);
        assert_eq!(grpc_status(&with("grpc-status", "0")), Some(0));
        assert_eq!(grpc_status(&with("grpc-status", "14")), Some(14));
        assert_eq!(grpc_status(&with("grpc-status", "ok")), Some(2));
        assert_eq!(grpc_status(&with("grpc-status", "9999")), Some(2));
    }

    #[test]
    fn overload_is_recognised_in_both_protocols() {
        assert!(is_overload(StatusCode::TOO_MANY_REQUESTS, None));
        assert!(is_overload(StatusCode::OK, Some(8)));
        assert!(!is_overload(StatusCode::SERVICE_UNAVAILABLE, None));
    }
}
