"""The Autobahn suite's fuzzing client against its own echo server: bare, and with Pintle between
them, in clear and in TLS. What the client sees must be the same, or better.

    autobahn.py PINTLE    skips, and says why, where the suite cannot be had

The suite is written in Python 2.7. A `wstest` on the path is taken; else one is installed from PyPI
into a folder of the cache, where the next run finds it.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time

SUITE = "autobahntestsuite==25.10.1"
CASES = [f"{group}.*" for group in (1, 2, 3, 4, 5, 6, 7, 10)]
COUNT = 247  # cases in these groups
RACES = 3  # how often a case that differs is tried again
PATIENCE = 900  # seconds for all of them, of one server


class Skipped(Exception):
    pass


def run(what, *words, **keys):
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=PATIENCE, **keys)
    if done.returncode != 0:
        last = done.stdout.decode(errors="replace").strip().splitlines()[-1:]
        raise Skipped(f"{what} failed: {' '.join(last)}")


def python2():
    """A Python 2.7 that runs: what pyenv puts on the path may be a shim that does not."""
    roots = [os.environ.get("PYENV_ROOT", os.path.expanduser("~/.pyenv")) + "/versions"]
    folders = [f"{root}/{name}/bin" for root in roots if os.path.isdir(root) for name in os.listdir(root)]
    for folder in [None, *folders]:
        path = shutil.which("python2.7", path=folder)
        if path and subprocess.run([path, "-c", ""], stderr=subprocess.DEVNULL).returncode == 0:
            return path
    raise Skipped("there is no Python 2.7")


def wstest():
    """The suite's one program."""
    found = shutil.which("wstest")
    if found:
        return found
    cache = os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache"))
    home = os.path.join(cache, "pintle-autobahn")
    program = os.path.join(home, "env", "bin", "wstest")
    if not os.path.exists(program):
        python = python2()
        shutil.rmtree(home, ignore_errors=True)
        tools = os.path.join(home, "tools")
        run("pip", python, "-m", "pip", "install", "-q", "--target", tools, "virtualenv<20.16")
        paths = {**os.environ, "PYTHONPATH": tools}
        run("virtualenv", python, "-m", "virtualenv", "-q", os.path.join(home, "env"), env=paths)
        pip = os.path.join(home, "env", "bin", "pip")
        run("pip", pip, "install", "-q", SUITE)
    return program


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def await_port(port, process):
    for _ in range(600):
        assert process.poll() is None, f"{process.args[0]} has ended"
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"nobody listens on port {port}")


def config(backend, clear, secure):
    # The echo server takes no Host but its own.
    text = (
        '[admin]\nsocket = "admin.sock"\nbind = "off"\n[log.access]\nenabled = false\n'
        f'[listener.web]\nbind = "127.0.0.1:{clear}"\n'
        f'[pool.app]\nhost = "backend"\nbackends = ["127.0.0.1:{backend}"]\n'
    )
    if secure:
        text += (
            f'[listener.tls]\nbind = "127.0.0.1:{secure}"\n'
            'tls.certificates = [{ cert = "site.crt", key = "site.key" }]\n'
        )
    return text


def certificate(folder):
    """Whether there is one."""
    if not shutil.which("openssl"):
        return False
    words = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2".split()
    names = ["-subj", "/CN=localhost", "-keyout", "site.key", "-out", "site.crt"]
    return subprocess.run([*words, *names], cwd=folder, stderr=subprocess.DEVNULL).returncode == 0


def verdicts(program, folder, agent, url, cases=CASES):
    """What the fuzzing client found, by case."""
    spec = {
        "outdir": folder,
        "servers": [{"agent": agent, "url": url}],
        "cases": cases,
        "exclude-cases": [],
        "exclude-agent-cases": {},
    }
    with open(os.path.join(folder, "spec.json"), "w") as file:
        json.dump(spec, file)
    with open(os.path.join(folder, f"{agent}.log"), "w") as log:
        subprocess.run(
            [program, "-m", "fuzzingclient", "-s", "spec.json"],
            cwd=folder, stdout=log, stderr=subprocess.STDOUT, timeout=PATIENCE, check=True,
        )
    with open(os.path.join(folder, "index.json")) as file:
        found = json.load(file)[agent]
    return {case: (one["behavior"], one["behaviorClose"]) for case, one in found.items()}


def differ(seen, bare):
    """Whether a case went otherwise. What is only tolerated of the bare server, since its last words got
    lost in its reset, may be right with Pintle, which passes them on."""
    return any(one != other and (one, other) != ("OK", "NON-STRICT") for one, other in zip(seen, bare))


def compare(program, folder, agent, url, bare, direct):
    seen = verdicts(program, folder, agent, url)
    assert len(seen) == COUNT, f"{len(seen)} of {COUNT} cases were answered {agent}"
    # After a violation the server resets, and how much of its last words survives that is a race,
    # with Pintle and without.
    for _ in range(RACES):
        again = sorted(case for case in direct if differ(seen[case], direct[case]))
        if again:
            seen.update(verdicts(program, folder, agent, url, again))
            direct.update(verdicts(program, folder, "direct", bare, again))
    others = sorted(case for case in direct if differ(seen[case], direct[case]))
    for case in others:
        print(f"{agent} {case}: {seen[case]}, bare {direct[case]}", file=sys.stderr)
    assert not others, f"{len(others)} of {COUNT} cases are not what they are without Pintle"
    print(f"autobahn: {len(seen)} of {COUNT} cases are as good {agent}")


def main(pintle):
    program = wstest()
    with tempfile.TemporaryDirectory() as folder:
        backend, clear = free_port(), free_port()
        secure = free_port() if certificate(folder) else 0
        with open(os.path.join(folder, "pintle.toml"), "w") as file:
            file.write(config(backend, clear, secure))
        with open(os.path.join(folder, "programs.log"), "w") as log:
            programs = [
                [program, "-m", "echoserver", "-u", "0", "-w", f"ws://127.0.0.1:{backend}"],
                [pintle, "serve", "-c", os.path.join(folder, "pintle.toml")],
            ]
            running = [subprocess.Popen(words, cwd=folder, stdout=log, stderr=log) for words in programs]
        try:
            for port, process in zip((backend, clear), running):
                await_port(port, process)
            bare = f"ws://127.0.0.1:{backend}"
            direct = verdicts(program, folder, "direct", bare)
            assert len(direct) == COUNT, f"the suite has {len(direct)} cases, not {COUNT}"
            compare(program, folder, "in clear", f"ws://127.0.0.1:{clear}", bare, direct)
            if secure:
                compare(program, folder, "in TLS", f"wss://127.0.0.1:{secure}", bare, direct)
            else:
                print("skipped: Autobahn in TLS (openssl is not here)")
        finally:
            for process in running:
                process.terminate()
            for process in running:
                process.wait()


try:
    main(os.path.realpath(sys.argv[1]))
except Skipped as why:
    print(f"skipped: Autobahn ({why})")
