"""Bodies of gigabytes both ways, over HTTP/1.1 and HTTP/2, fast and slow: each byte arrives, and Pintle
holds next to nothing of them.

    large.py PINTLE MEBIBYTES    runs a Pintle of its own in front of a backend
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile

MIB = 1024 * 1024
PATIENCE = 600  # seconds for all of it
MOST_MIB = 8  # what Pintle may hold for all six transfers
BLOCK = bytes(range(256)) * 1024


async def serve(reader, writer):
    """Sends as many bytes as the path says, or counts those that come."""
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0] or 0)
            while length > 0:
                length -= len(await reader.readexactly(min(length, len(BLOCK))))
            size = int(head.split()[1].strip(b"/"))
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
            for _ in range(size // len(BLOCK)):
                writer.write(BLOCK)
                await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def listening(folder, running):
    for _ in range(200):
        assert running.returncode is None, "pintle has ended"
        try:
            reader, writer = await asyncio.open_unix_connection(f"{folder}/admin.sock")
        except OSError:
            await asyncio.sleep(0.05)
            continue
        writer.write(b"GET /v1/listeners HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), 20)
        return json.loads(answer.split(b"\r\n\r\n", 1)[1])[0]["addresses"][0]
    raise AssertionError("pintle opens no admin socket")


def anonymous_mib(pid):
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Anonymous:")) / 1024


async def transfer(url, size, flags, upload=None):
    """One curl, and how many bytes it says that it moved."""
    command = ["curl", "-sS", "--fail", *flags, "-o", "/dev/null", "-w", "%{size_download} %{size_upload}"]
    command += ["-T", upload, f"{url}/0"] if upload else [f"{url}/{size}"]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    out, _ = await process.communicate()
    assert process.returncode == 0, f"curl ended with {process.returncode}"
    moved = int(out.split()[1 if upload else 0])
    assert moved == size, f"{moved} of {size} bytes"


def hollow(folder, size):
    """A file of so many bytes that takes no room."""
    path = os.path.join(folder, f"{size}.bin")
    with open(path, "wb") as file:
        file.truncate(size)
    return path


async def watch(pid, over):
    most = 0
    while not over.done():
        most = max(most, anonymous_mib(pid))
        await asyncio.sleep(0.02)
    return most


async def main(pintle, size):
    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=len(BLOCK))
    backend = "%s:%d" % server.sockets[0].getsockname()
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "pintle.toml"), "w") as file:
            file.write(
                '[admin]\nsocket = "admin.sock"\nbind = "off"\n[log.access]\nenabled = false\n[server]\nworkers = 2\n'
                '[listener.web]\nbind = "127.0.0.1:0"\nprotocols = ["h2c", "http/1.1"]\n'
                f'[pool.app]\nbackends = ["{backend}"]\n'
            )
        running = await asyncio.create_subprocess_exec(pintle, "serve", "-c", "pintle.toml", cwd=folder)
        try:
            url = f"http://{await listening(folder, running)}"
            first, whole = hollow(folder, len(BLOCK)), hollow(folder, size)
            for version in ["--http1.1", "--http2-prior-knowledge"]:
                await transfer(url, len(BLOCK), [version])
                await transfer(url, len(BLOCK), [version], first)
            before = anonymous_mib(running.pid)
            slow = ["--http1.1", "--limit-rate", f"{size // 10}"]
            ways = [["--http1.1"], ["--http2-prior-knowledge"], slow]
            transfers = [transfer(url, size, way, upload) for way in ways for upload in [None, whole]]
            over = asyncio.ensure_future(asyncio.gather(*transfers))
            most = await asyncio.wait_for(watch(running.pid, over), PATIENCE)
            await over
        finally:
            if running.returncode is None:
                running.terminate()
            await asyncio.wait_for(running.wait(), 40)
    server.close()
    grown = most - before
    assert grown <= MOST_MIB, f"{grown:.1f} MiB more than before"
    print(f"large bodies: six of {size // MIB} MiB at once, both ways, at most {grown:.1f} MiB held")


asyncio.run(main(os.path.realpath(sys.argv[1]), int(sys.argv[2]) * MIB))
