"""Many listeners to one event stream, in a process of their own: `listeners.py URL TOKEN THREAD LISTENERS EVENTS`.

Prints `ready` when all are connected, then one JSON line: seconds from writing to hearing for every event and
listener, sorted, and how many were lost or out of order.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from urllib.parse import urlsplit


async def listen(
    url: str, token: str, thread: str, events: int, ready: asyncio.Event
) -> tuple[list[float], int]:
    """Seconds of delay of each event, and how many came out of order."""
    where = urlsplit(url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    query = f"?thread={thread}" if thread else ""
    head = f"GET /api/stream{query} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n\r\n"
    writer.write(head.encode())
    await reader.readuntil(b"listening")
    ready.set()
    delays: list[float] = []
    wrong, expected = 0, 0
    while expected < events:
        line = await reader.readline()
        if not line:
            break
        if line.startswith(b"data: "):
            payload = json.loads(line[6:])["payload"]
            delays.append(time.time() - payload["sent"])
            wrong += payload["n"] != expected
            expected = payload["n"] + 1
    writer.close()
    return delays, wrong


async def main(url: str, token: str, thread: str, listeners: int, events: int) -> None:
    """All listeners together."""
    flags = [asyncio.Event() for _ in range(listeners)]
    tasks = [asyncio.create_task(listen(url, token, thread, events, flag)) for flag in flags]
    for flag in flags:
        await flag.wait()
    print("ready", flush=True)
    found = await asyncio.gather(*tasks)
    delays = sorted(delay for each, _ in found for delay in each)
    lost = listeners * events - len(delays)
    print(json.dumps({"delays": delays, "lost": lost, "out_of_order": sum(wrong for _, wrong in found)}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])))
