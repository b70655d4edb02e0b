//! Requests whose token is missing or wrong; and the headers that claims become.

use std::rc::Rc;
use std::time::SystemTime;

use http::header::WWW_AUTHENTICATE;
use http::{HeaderValue, Response};

use crate::base::error::{ProxyError, Reason};
use crate::policy::jwt::{Refusal, bearer, verify};
use crate::snapshot::{Jwt, JwtMode};

use super::exchange::Exchange;
use super::reply;
use super::response::ResponseBody;

/// Looks at the request's token as its route asks for it. Why it is to be refused, where it is.
///
/// A request that no route takes needs a token: who has none learns nothing of which routes there are.
pub(super) fn check(exchange: &mut Exchange) -> Option<Refusal> {
    exchange.active.listener.jwt.as_ref()?;
    let active = Rc::clone(&exchange.active);
    let jwt = active.listener.jwt.as_ref()?;
    exchange.fields.hop.keep(&mut exchange.head.headers, &jwt.ours);
    for name in &jwt.ours {
        exchange.head.headers.remove(name);
    }
    let mode = exchange.route().map_or(JwtMode::Required, |route| route.jwt);
    let refusal = admit(exchange, jwt, mode).err()?;
    jwt.metrics.refuse(refusal.index());
    exchange.token_refused = Some(refusal.word());
    Some(refusal)
}

fn admit(exchange: &mut Exchange, jwt: &Jwt, mode: JwtMode) -> Result<(), Refusal> {
    if mode == JwtMode::Never {
        return Ok(());
    }
    let Some(token) = bearer(&exchange.head.headers)? else {
        return if mode == JwtMode::Optional { Ok(()) } else { Err(Refusal::Missing) };
    };
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let (issuer, claims) = verify(&jwt.issuers, token, now.map_or(0, |now| now.as_secs()))?;
    jwt.metrics.verified.inc();
    for (name, value) in issuer.headers(&claims) {
        exchange.head.headers.insert(name, value);
    }
    Ok(())
}

/// Answers 401; 503 where it is us who cannot tell yet.
pub(super) fn refuse(exchange: Box<Exchange>, refusal: Refusal) -> Response<ResponseBody> {
    let (detail, challenge) = match refusal {
        Refusal::NoKeys => {
            let error = ProxyError::new(Reason::Unauthenticated, "tokens cannot be verified yet");
            return reply::failure_as(exchange, &error, 503, 14);
        }
        // RFC 6750 §3.1: who brings no token is not told of an error.
        Refusal::Missing => ("a bearer token is needed", "Bearer"),
        Refusal::Expired => (
            "the token has expired",
            "Bearer error=\"invalid_token\", error_description=\"the token has expired\"",
        ),
        _ => ("the token is not valid here", "Bearer error=\"invalid_token\""),
    };
    let error = ProxyError::new(Reason::Unauthenticated, detail);
    let mut response = reply::failure(exchange, &error);
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    response
}
