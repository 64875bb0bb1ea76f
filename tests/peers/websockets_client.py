"""Python's `websockets` as a client. Arguments: URL, CA file, allowed origin, forbidden origin. Prints `ok`."""

import asyncio
import os
import ssl
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus


async def main(url, ca, allowed, forbidden):
    context = ssl.create_default_context(cafile=ca)
    for compression in (None, "deflate"):
        async with connect(
            url, ssl=context, origin=allowed, subprotocols=["chat"], compression=compression, max_size=64 << 20, proxy=None
        ) as connection:
            assert connection.subprotocol == "chat"
            for size in (0, 1, 125, 126, 65535, 65536, 3 << 20):
                message = os.urandom(size)
                await connection.send(message)
                assert await connection.recv() == message, size
            await connection.send(["frag", "mented"])
            assert await connection.recv() == "fragmented"
            await (await connection.ping())
            await connection.close(4002, "done")
            try:
                await connection.recv()
            except ConnectionClosed as closed:
                assert closed.rcvd.code == 4002, closed
    try:
        async with connect(url, ssl=context, origin=forbidden, proxy=None):
            raise AssertionError("a forbidden origin was let in")
    except InvalidStatus as refused:
        assert refused.response.status_code == 403, refused
    print("ok")


asyncio.run(main(*sys.argv[1:]))
