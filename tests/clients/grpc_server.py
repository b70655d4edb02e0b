"""A gRPC service on the real grpcio, without protobuf: messages are plain bytes.

Prints its port and serves until its standard input ends.
"""

import sys
import threading
import time
from concurrent import futures

import grpc

lock = threading.Lock()
counts = {"attempts": 0, "cancelled": 0}


def failing(context):
    """What the metadata asks for, before anything is answered."""
    wanted = dict(context.invocation_metadata())
    if "fail-first" in wanted:
        with lock:
            counts["attempts"] += 1
            first = counts["attempts"] <= int(wanted["fail-first"])
        if first:
            context.abort(grpc.StatusCode.UNAVAILABLE, "not this time")
    if "fail-with" in wanted:
        context.set_trailing_metadata((("grpc-status-details-bin", b"\x00\xffdetails"), ("x-trailer", "t")))
        code = next(code for code in grpc.StatusCode if code.value[0] == int(wanted["fail-with"]))
        context.abort(code, "no: 100% schön\n")


def unary(request, context):
    failing(context)
    sent = dict(context.invocation_metadata())
    context.send_initial_metadata((("x-initial", "i"), ("blob-bin", sent.get("blob-bin", b""))))
    context.set_trailing_metadata((("x-trailer", "t"), ("tail-bin", b"\x00\x01\xfe")))
    return request


def hang(request, context):
    remaining = context.time_remaining()
    context.send_initial_metadata((("x-remaining-ms", str(int((remaining or 0) * 1000))),))
    ended = threading.Event()
    context.add_callback(ended.set)
    ended.wait(30)
    return b""


def mute(request, context):
    """Not even a head."""
    ended = threading.Event()
    context.add_callback(ended.set)
    ended.wait(30)
    return b""


def remaining(request, context):
    left = context.time_remaining()
    return b"none" if left is None or left > 1e6 else str(int(left * 1000)).encode()


def down(request, context):
    failing(context)
    for number in range(int(request)):
        yield f"{number}".encode()


def endless(request, context):
    def gone():
        with lock:
            counts["cancelled"] += 1

    context.add_callback(gone)
    while context.is_active():
        yield b"more"
        time.sleep(0.02)


def still(request, context):
    yield b"once"
    ended = threading.Event()
    context.add_callback(ended.set)
    ended.wait(30)


def up(requests, context):
    return str(sum(len(request) for request in requests)).encode()


def both(requests, context):
    for request in requests:
        yield b"re: " + request


def count(request, context):
    with lock:
        return str(counts[request.decode()]).encode()


class Handlers(grpc.GenericRpcHandler):
    unary = {"Unary": unary, "Hang": hang, "Mute": mute, "Remaining": remaining, "Count": count}
    streaming = {"Down": down, "Endless": endless, "Still": still}

    def service(self, details):
        name = details.method.removeprefix("/test.Echo/")
        if name in self.unary:
            return grpc.unary_unary_rpc_method_handler(self.unary[name])
        if name in self.streaming:
            return grpc.unary_stream_rpc_method_handler(self.streaming[name])
        if name == "Up":
            return grpc.stream_unary_rpc_method_handler(up)
        if name == "Both":
            return grpc.stream_stream_rpc_method_handler(both)
        return None


def main():
    unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    server = grpc.server(futures.ThreadPoolExecutor(32), handlers=[Handlers()], options=unlimited)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    sys.stdin.read()
    server.stop(0)


main()
