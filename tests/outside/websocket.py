"""Python's `websockets`, client and server, with Pintle between them.

    websocket.py PINTLE    runs a Pintle of its own in front of two echo servers
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile

import websockets

PATIENCE = 20  # seconds for any one step


async def echo(socket, _path=None):
    async for message in socket:
        await socket.send(message)


def config(addresses, policy):
    backends = ", ".join(f'"{address}"' for address in addresses)
    return (
        '[admin]\nsocket = "admin.sock"\nbind = "off"\n[log.access]\nenabled = false\n'
        '[listener.web]\nbind = "127.0.0.1:0"\n'
        f'[pool.app]\npolicy = "{policy}"\nbackends = [{backends}]\n'
    )


async def command(pintle, folder, *words):
    process = await asyncio.create_subprocess_exec(
        pintle, *words, "--json", "--admin", f"{folder}/admin.sock", cwd=folder, stdout=subprocess.PIPE
    )
    out, _ = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert process.returncode == 0, f"pintle {' '.join(words)} ended with {process.returncode}"
    return json.loads(out)


async def address_of(folder, running):
    for _ in range(200):
        assert running.returncode is None, "pintle has ended"
        try:
            reader, writer = await asyncio.open_unix_connection(f"{folder}/admin.sock")
        except OSError:
            await asyncio.sleep(0.05)
            continue
        writer.write(b"GET /v1/listeners HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), PATIENCE)
        return json.loads(answer.split(b"\r\n\r\n", 1)[1])[0]["addresses"][0]
    raise AssertionError("pintle opens no admin socket")


def handshake(socket):
    """The headers of the 101, as old and new versions of the module keep them."""
    return socket.response.headers if hasattr(socket, "response") else socket.response_headers


async def trip(socket, message):
    await socket.send(message)
    assert await asyncio.wait_for(socket.recv(), PATIENCE) == message


async def main(pintle):
    servers = [await websockets.serve(echo, "127.0.0.1", 0) for _ in range(2)]
    backends = ["%s:%d" % server.sockets[0].getsockname() for server in servers]
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "pintle.toml")
        with open(path, "w") as file:
            file.write(config(backends, "sticky_cookie"))
        running = await asyncio.create_subprocess_exec(pintle, "serve", "-c", path, cwd=folder)
        try:
            url = f"ws://{await address_of(folder, running)}/echo"
            socket = await asyncio.wait_for(websockets.connect(url), PATIENCE)
            assert "pintle_app=" in handshake(socket)["set-cookie"], "the handshake sets the cookie"
            for message in ["a word", b"\x00\xff bytes", "long " * 100_000]:
                await trip(socket, message)
            await asyncio.wait_for(await socket.ping(), PATIENCE)

            with open(path, "w") as file:
                file.write(config(backends, "ip_hash"))
            await command(pintle, folder, "reload")
            await trip(socket, "the same socket after a reload")
            status = await command(pintle, folder, "status")
            assert status["totals"]["tunnels"] == 1, status["totals"]
            await asyncio.wait_for(socket.close(1000, "done"), PATIENCE)
            assert socket.close_code == 1000, socket.close_code
        finally:
            if running.returncode is None:
                running.terminate()
            await asyncio.wait_for(running.wait(), PATIENCE)
    for server in servers:
        server.close()
    print("websockets: text, bytes, 500 kB, ping, a reload under way, close 1000")


asyncio.run(main(sys.argv[1]))
