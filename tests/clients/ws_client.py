"""Talks to ws_server.py through proxies: ws_client.py ADDRESS SCENARIO. Ends with 0 when all was as it should."""

import asyncio
import os
import sys
import time

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus


def open(path):
    uri = f"ws://{sys.argv[1]}{path}"
    return connect(uri, proxy=None, max_size=None, ping_interval=None, compression=None)


def same(found, wanted, what=""):
    assert found == wanted, f"{what}: {found!r}, not {wanted!r}"


async def echo():
    async with open("/echo") as socket:
        await socket.send("hällo")
        same(await socket.recv(), "hällo")
        await socket.send(b"\x00\xff")
        same(await socket.recv(), b"\x00\xff")
        big = os.urandom(8 * 1024 * 1024)
        await socket.send(big)
        same(await socket.recv() == big, True, "8 MiB")
        for number in range(200):
            await socket.send(str(number))
        same([await socket.recv() for _ in range(200)], [str(n) for n in range(200)])
        await asyncio.wait_for(await socket.ping(), 15)
    same(socket.close_code, 1000)


async def closes():
    async with open("/bye") as socket:
        same(await socket.recv(), "bye")
        try:
            await socket.recv()
        except ConnectionClosed as closed:
            same((closed.rcvd.code, closed.rcvd.reason), (4001, "server says bye"))
            return
    raise AssertionError("still open")


async def refused():
    try:
        async with open("/forbidden"):
            pass
    except InvalidStatus as error:
        same((error.response.status_code, error.response.body), (403, b"not you\n"))
        return
    raise AssertionError("not refused")


async def idle():
    async with open("/idle") as socket:
        # Longer in all than the idle time, but never silent for so long.
        for _ in range(4):
            await asyncio.sleep(0.2)
            await socket.send("x")
            same(await socket.recv(), "x")
        start = time.monotonic()
        try:
            await socket.recv()
        except ConnectionClosed as closed:
            same(closed.rcvd, None, "no proper close")
            assert time.monotonic() - start >= 0.5
            return
    raise AssertionError("still open")


async def many():
    sockets = [await open("/echo") for _ in range(50)]
    for number, socket in enumerate(sockets):
        await socket.send(str(number))
    same([await socket.recv() for socket in sockets], [str(n) for n in range(50)])
    for socket in sockets:
        await socket.close()


asyncio.run(globals()[sys.argv[2]]())
