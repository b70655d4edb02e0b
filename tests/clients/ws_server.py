"""A WebSocket service on the real websockets package. Prints its port and serves until its standard input ends."""

import asyncio
import http
import sys

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed


async def talk(connection):
    if connection.request.path == "/bye":
        await connection.send("bye")
        await connection.close(4001, "server says bye")
        return
    try:
        async for message in connection:
            await connection.send(message)
    except ConnectionClosed:
        pass


def refuse(connection, request):
    if request.path == "/forbidden":
        return connection.respond(http.HTTPStatus.FORBIDDEN, "not you\n")
    return None


async def main():
    # No pings of its own: what keeps a connection alive is the test's affair.
    async with serve(
        talk, "127.0.0.1", 0, process_request=refuse, max_size=None, ping_interval=None
    ) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


asyncio.run(main())
