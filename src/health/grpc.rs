//! gRPC health v1: one call, `grpc.health.v1.Health/Check`, whose messages have one field each.
//!
//! Written by hand: a protobuf library, with its code generator, for one string and one enum would be more to audit than
//! these lines, which a seeded fuzz test holds against arbitrary bytes. Source: grpc/health/v1/health.proto.

use bytes::{BufMut, Bytes, BytesMut};
use http::StatusCode;
use http::header::CONTENT_TYPE;

use crate::metrics::HealthOutcome;

use super::http2::Answer;
use super::probe::Finding;

/// The call.
pub(super) const METHOD: &str = "/grpc.health.v1.Health/Check";

/// Bytes of an answer's body that are read. Ours has seven; fields that later versions add have room.
pub(super) const MAX_ANSWER: usize = 4096;

/// The answer's field `status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    /// `SERVING`, the only one that passes.
    Up,
    /// `NOT_SERVING`.
    Down,
    /// `SERVICE_UNKNOWN`, or a number of a later version.
    Unknown,
}

/// The answer is no message of gRPC, or not one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// What a whole answer says: `SERVING` in a call that ended well passes, nothing else does.
pub(super) fn judge(answer: &Answer) -> Finding {
    if answer.head.status != StatusCode::OK {
        let text = format!("status {}", answer.head.status.as_u16());
        return Finding::new(HealthOutcome::Status, text);
    }
    let kind = answer.head.headers.get(CONTENT_TYPE).map(http::HeaderValue::as_bytes);
    if !kind.is_some_and(|kind| kind.starts_with(b"application/grpc")) {
        return Finding::broken("the answer is not gRPC");
    }
    // In the trailers, or, of an answer without message, in the head.
    let status =
        answer.trailers.get("grpc-status").or_else(|| answer.head.headers.get("grpc-status"));
    let status = status.and_then(|status| status.to_str().ok()?.parse::<u16>().ok());
    match status {
        None => Finding::broken("the answer has no grpc-status"),
        Some(0) => match response(&answer.body) {
            Ok(Status::Up) => Finding::new(HealthOutcome::Success, "serving"),
            Ok(Status::Down) => Finding::new(HealthOutcome::NotServing, "not serving"),
            Ok(Status::Unknown) => Finding::new(HealthOutcome::NotServing, "status unknown"),
            Err(Malformed) => Finding::broken("the answer is no health message"),
        },
        Some(5) => Finding::new(HealthOutcome::NotServing, "the service is not known there"),
        Some(12) => Finding::new(HealthOutcome::Status, "gRPC health v1 is not served there"),
        Some(code) => Finding::new(HealthOutcome::Status, format!("grpc-status {code}")),
    }
}

/// `HealthCheckRequest { service }` behind its five bytes of length.
pub(super) fn request(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(1 << 3 | 2);
        put_varint(&mut message, service.len());
        message.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::with_capacity(5 + message.len());
    framed.put_u8(0);
    // The configuration takes names of up to 1 024 bytes.
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.unsplit(message);
    framed.freeze()
}

fn put_varint(into: &mut BytesMut, mut value: usize) {
    while value >= 0x80 {
        into.put_u8(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    into.put_u8(value.to_le_bytes()[0]);
}

/// Reads a whole body: exactly one `HealthCheckResponse`, not compressed. Fields that we do not know are skipped, of
/// several `status` the last one counts, as protobuf says.
pub(super) fn response(body: &[u8]) -> Result<Status, Malformed> {
    let (prefix, message) = body.split_first_chunk::<5>().ok_or(Malformed)?;
    let [compressed, length @ ..] = *prefix;
    if compressed != 0 || u32::from_be_bytes(length) as usize != message.len() {
        return Err(Malformed);
    }
    let (mut rest, mut status) = (message, 0);
    while !rest.is_empty() {
        let key = varint(&mut rest)?;
        match (key >> 3, key & 7) {
            (0, _) => return Err(Malformed),
            (1, 0) => status = varint(&mut rest)?,
            (1, _) => return Err(Malformed),
            (_, 0) => drop(varint(&mut rest)?),
            (_, 1) => skip(&mut rest, 8)?,
            (_, 2) => {
                let length = varint(&mut rest)?;
                skip(&mut rest, length)?;
            }
            (_, 5) => skip(&mut rest, 4)?,
            _ => return Err(Malformed),
        }
    }
    Ok(match status {
        1 => Status::Up,
        2 => Status::Down,
        _ => Status::Unknown,
    })
}

fn varint(from: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = from.split_first().ok_or(Malformed)?;
        *from = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Malformed)
}

fn skip(from: &mut &[u8], length: u64) -> Result<(), Malformed> {
    let length = usize::try_from(length).map_err(|_| Malformed)?;
    *from = from.get(length..).ok_or(Malformed)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    fn framed(message: &[u8]) -> Vec<u8> {
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        [&[0][..], &length, message].concat()
    }

    #[test]
    fn the_request_is_what_protobuf_makes_of_it() {
        assert_eq!(&request("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&request("a.B")[..], [0, 0, 0, 0, 5, 0x0a, 3, b'a', b'.', b'B']);
        let long = request(&"x".repeat(300));
        assert_eq!(&long[..8], [0, 0, 0, 1, 47, 0x0a, 0xac, 2]);
    }

    #[test]
    fn each_status_is_read() {
        assert_eq!(response(&framed(&[0x08, 1])), Ok(Status::Up));
        assert_eq!(response(&framed(&[0x08, 2])), Ok(Status::Down));
        assert_eq!(response(&framed(&[0x08, 3])), Ok(Status::Unknown));
        // UNKNOWN is 0, which protobuf leaves out.
        assert_eq!(response(&framed(&[])), Ok(Status::Unknown));
    }

    #[test]
    fn fields_of_later_versions_are_skipped_and_the_last_status_counts() {
        let message = [
            &[0x10, 0x96, 0x01][..],         // 2: varint
            &[0x19, 1, 2, 3, 4, 5, 6, 7, 8], // 3: 64 bits
            &[0x22, 3, b'a', b'b', b'c'],    // 4: bytes
            &[0x2d, 1, 2, 3, 4],             // 5: 32 bits
            &[0x08, 2, 0x08, 1],             // 1: twice
        ];
        assert_eq!(response(&framed(&message.concat())), Ok(Status::Up));
    }

    #[test]
    fn what_is_no_message_is_malformed() {
        let too_long = [0xff; 11];
        for message in [
            &[0x08][..],
            &[0x0a, 1, b'x'],
            &[0x00, 1],
            &[0x13],
            &[0x12, 5, b'x'],
            &[0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
            &too_long,
        ] {
            assert_eq!(response(&framed(message)), Err(Malformed), "{message:?}");
        }
        for body in
            [&[][..], &[0, 0, 0, 0], &[1, 0, 0, 0, 0], &[0, 0, 0, 0, 1], &[0, 0, 0, 0, 0, 9]]
        {
            assert_eq!(response(body), Err(Malformed), "{body:?}");
        }
    }

    fn answer(status: u16, head: &[(&'static str, &str)], body: &[u8], trailer: &str) -> Answer {
        let mut response = http::Response::builder().status(status);
        for (name, value) in head {
            response = response.header(*name, *value);
        }
        let mut trailers = http::HeaderMap::new();
        if !trailer.is_empty() {
            trailers.insert("grpc-status", trailer.parse().unwrap());
        }
        let head = response.body(()).unwrap().into_parts().0;
        Answer { head, body: Bytes::copy_from_slice(body), trailers }
    }

    #[test]
    fn only_serving_in_a_call_that_ended_well_passes() {
        const GRPC: (&str, &str) = ("content-type", "application/grpc+proto");
        let (up, down) = (framed(&[0x08, 1]), framed(&[0x08, 2]));
        let alone = |status| answer(200, &[GRPC, ("grpc-status", status)], b"", "");
        let told = [
            (answer(200, &[GRPC], &up, "0"), HealthOutcome::Success, "serving"),
            (answer(200, &[GRPC], &down, "0"), HealthOutcome::NotServing, "not serving"),
            (answer(200, &[GRPC], &framed(&[]), "0"), HealthOutcome::NotServing, "status unknown"),
            (answer(200, &[GRPC], &up, "14"), HealthOutcome::Status, "grpc-status 14"),
            (
                answer(200, &[GRPC], &up, ""),
                HealthOutcome::Protocol,
                "the answer has no grpc-status",
            ),
            (
                answer(200, &[GRPC], b"", "0"),
                HealthOutcome::Protocol,
                "the answer is no health message",
            ),
            (answer(200, &[], &up, "0"), HealthOutcome::Protocol, "the answer is not gRPC"),
            (answer(503, &[GRPC], &up, "0"), HealthOutcome::Status, "status 503"),
            (alone("5"), HealthOutcome::NotServing, "the service is not known there"),
            (alone("12"), HealthOutcome::Status, "gRPC health v1 is not served there"),
            (alone("x"), HealthOutcome::Protocol, "the answer has no grpc-status"),
        ];
        for (answer, outcome, text) in told {
            assert_eq!(judge(&answer), Finding::new(outcome, text));
        }
    }

    /// Bytes that look almost right: no panic, and nothing passes but what ends in `status: SERVING`.
    #[test]
    fn arbitrary_bytes_never_panic() {
        let mut rng = Rng::from_seed(7);
        let mut read = 0;
        for _ in 0..200_000 {
            let interesting = [0x08, 0x0a, 0x12, 0x1d, 0x80, 0xff, 0, 1, 2, 3];
            let message: Vec<u8> = (0..rng.below(12))
                .map(|_| match rng.below(4) {
                    0 => rng.bits().to_le_bytes()[0],
                    _ => interesting[rng.below(interesting.len())],
                })
                .collect();
            let mut body = framed(&message);
            if rng.below(4) == 0 {
                let at = rng.below(body.len());
                body[at] = rng.bits().to_le_bytes()[0];
            }
            if let Ok(found) = response(&body) {
                read += 1;
                let says_so = message.iter().any(|byte| byte & 0x7f == 1);
                assert!(found != Status::Up || says_so || body[5..] != message[..], "{body:?}");
            }
        }
        assert!(read > 1_000, "{read} were read");
    }
}
