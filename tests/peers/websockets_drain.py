"""Many clients by Python's `websockets` that wait for their Close. Arguments: URL, count.

Prints `open` when all are open, and when all are closed the code and the time (milliseconds since 1970) of each, as JSON.
"""

import asyncio
import json
import sys
import time

from websockets.asyncio.client import connect


async def closed(connection):
    await connection.wait_closed()
    return connection.close_code, round(time.time() * 1000)


async def main(url, count):
    connections = []
    while len(connections) < count:
        wave = (connect(url, compression=None, ping_interval=None, proxy=None) for _ in range(min(100, count - len(connections))))
        connections += await asyncio.gather(*wave)
    closes = [asyncio.create_task(closed(connection)) for connection in connections]
    print("open", flush=True)
    print(json.dumps(await asyncio.gather(*closes)))


asyncio.run(main(sys.argv[1], int(sys.argv[2])))
