"""gRPC health v1 as grpcio's own package serves it.

Prints its port and serves until its standard input ends. `blog.Articles` serves; a call to `/test.Health/<Status>` sets
what is said of it from then on; nothing is said of any other service.
"""

import sys
from concurrent import futures

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

STATUS = health_pb2.HealthCheckResponse.ServingStatus
servicer = health.HealthServicer()


class Switch(grpc.GenericRpcHandler):
    def service(self, details):
        if not details.method.startswith("/test.Health/"):
            return None

        def turn(request, context):
            servicer.set("blog.Articles", STATUS.Value(details.method.rsplit("/", 1)[1]))
            return b""

        return grpc.unary_unary_rpc_method_handler(turn)


def main():
    server = grpc.server(futures.ThreadPoolExecutor(4), handlers=[Switch()])
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    servicer.set("", STATUS.SERVING)
    servicer.set("blog.Articles", STATUS.SERVING)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    sys.stdin.read()
    server.stop(0)


main()
