"""Calls the service of grpc_server.py through a proxy: grpc_client.py ADDRESS SCENARIO. Ends with 0 when all was as it should.

Under TLS where GRPC_CA names a file of authorities; GRPC_CERT and GRPC_KEY are the client's own."""

import os
import sys
import time

import grpc
from grpc.experimental import session_cache

UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
NO_RETRIES = [("grpc.enable_retries", 0)]


def file(name):
    path = os.environ.get(name)
    return open(path, "rb").read() if path else None


def connect(*options):
    options = UNLIMITED + NO_RETRIES + list(options)
    if "GRPC_CA" not in os.environ:
        return grpc.insecure_channel(sys.argv[1], options=options)
    credentials = grpc.ssl_channel_credentials(file("GRPC_CA"), file("GRPC_KEY"), file("GRPC_CERT"))
    return grpc.secure_channel(sys.argv[1], credentials, options=options)


channel = connect()


def unary(method, service="test.Echo"):
    return channel.unary_unary(f"/{service}/{method}")


def same(found, wanted, what=""):
    assert found == wanted, f"{what}: {found!r}, not {wanted!r}"


def failure(call, *arguments, **keywords):
    try:
        call(*arguments, **keywords)
    except grpc.RpcError as error:
        return error
    raise AssertionError("the call did not fail")


def kinds():
    same(unary("Unary")(b"hello"), b"hello")
    same(unary("Unary")(b""), b"", "an empty message")
    numbers = list(channel.unary_stream("/test.Echo/Down")(b"500"))
    same(numbers, [f"{n}".encode() for n in range(500)])
    same(channel.stream_unary("/test.Echo/Up")(iter([b"x" * 1000] * 300)), b"300000")
    big = bytes(range(256)) * 32768
    same(unary("Unary")(big), big, "8 MiB")
    # In lockstep: each answer is there before the next question goes out.
    answered = []

    def questions():
        for number in range(50):
            while len(answered) < number:
                time.sleep(0.001)
            yield f"{number}".encode()

    for answer in channel.stream_stream("/test.Echo/Both")(questions()):
        answered.append(answer)
    same(answered, [f"re: {n}".encode() for n in range(50)])
    # Many at once on one connection.
    calls = [unary("Unary").future(str(n).encode()) for n in range(200)]
    same([call.result() for call in calls], [str(n).encode() for n in range(200)])


def metadata():
    blob = bytes(range(256))
    reply, call = unary("Unary").with_call(b"x", metadata=(("blob-bin", blob), ("x-plain", "a")))
    same(reply, b"x")
    initial, trailing = dict(call.initial_metadata()), dict(call.trailing_metadata())
    same(initial["blob-bin"], blob)
    same(initial["x-initial"], "i")
    same((trailing["x-trailer"], trailing["tail-bin"]), ("t", b"\x00\x01\xfe"))


def statuses():
    for number in range(1, 17):
        error = failure(unary("Unary"), b"", metadata=(("fail-with", str(number)),))
        same(error.code().value[0], number)
        same(error.details(), "no: 100% schön\n")
        trailing = dict(error.trailing_metadata())
        same(trailing["grpc-status-details-bin"], b"\x00\xffdetails")
        same(trailing["x-trailer"], "t")
    error = failure(lambda: list(channel.unary_stream("/test.Echo/Down")(b"3", metadata=(("fail-with", "9"),))))
    same(error.code(), grpc.StatusCode.FAILED_PRECONDITION)
    same(failure(unary("Nothing"), b"").code(), grpc.StatusCode.UNIMPLEMENTED)


def deadlines():
    left = int(unary("Remaining")(b"", timeout=5))
    assert 0 < left <= 5000, left
    same(unary("Remaining")(b""), b"none", "no deadline is made up")
    error = failure(unary("Hang"), b"", timeout=0.4)
    same(error.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
    error = failure(unary("Mute"), b"", timeout=0.4)
    same(error.code(), grpc.StatusCode.DEADLINE_EXCEEDED)


def ours(code, reason):
    """An answer that the proxy made itself."""
    error = failure(unary("Mute"), b"")
    same(error.code(), code)
    assert error.details().startswith(f"{reason}: "), error.details()
    same(dict(error.trailing_metadata())["x-outrigger-reason"], reason)


def unavailable():
    ours(grpc.StatusCode.UNAVAILABLE, "connect_failed")


def unimplemented():
    ours(grpc.StatusCode.UNIMPLEMENTED, "no_route")


def timeout():
    ours(grpc.StatusCode.DEADLINE_EXCEEDED, "timeout")


def limit():
    held = channel.unary_stream("/test.Echo/Endless")(b"")
    same(next(held), b"more")
    ours(grpc.StatusCode.RESOURCE_EXHAUSTED, "limit_reached")
    held.cancel()


def cut():
    """Of a stream whose head was there already."""
    stream = channel.unary_stream("/test.Echo/Still")(b"", timeout=20)
    same(next(stream), b"once")
    error = failure(next, stream)
    same(error.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
    same(dict(error.trailing_metadata())["x-outrigger-reason"], "stream_idle")


def cancel():
    stream = channel.unary_stream("/test.Echo/Endless")(b"")
    same([next(stream) for _ in range(3)], [b"more"] * 3)
    stream.cancel()
    end = time.monotonic() + 15
    while unary("Count")(b"cancelled") != b"1":
        assert time.monotonic() < end, "the server never heard of it"
        time.sleep(0.01)


def retried():
    same(unary("Unary")(b"again", metadata=(("fail-first", "2"),)), b"again")
    same(unary("Count")(b"attempts"), b"3")


def not_retried():
    error = failure(unary("Unary"), b"", metadata=(("fail-first", "2"),))
    same((error.code(), error.details()), (grpc.StatusCode.UNAVAILABLE, "not this time"))
    same(unary("Count")(b"attempts"), b"1")


def resumed():
    """The second connection goes on with the session of the first."""
    cache = session_cache.ssl_session_cache_lru(1)
    for _ in range(2):
        # A pool of its own: else the channels share a connection.
        own = connect(("grpc.ssl_session_cache", cache), ("grpc.use_local_subchannel_pool", 1))
        same(own.unary_unary("/test.Echo/Unary")(b"hello"), b"hello")
        own.close()


globals()[sys.argv[2]]()
