"""A cart over HTTP, through one front: `scripts/bench.sh --gateway`. See --help.

All systems run at once and are measured in turn, round after round, so that whatever else the machine does meets all of them alike.
Only processes that this program started are ended, by their ids.
"""

import argparse
import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import os
import secrets
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from growth import Cluster

SCRIPTS = Path(__file__).resolve().parent
AUDIENCE, ISSUER = "shop", "bench"
# Everybody's cart has a line of each before the clock starts. As in carts.lua.
SKUS = 4
START_SECONDS = 30
# Those who fill the carts: few enough for either system.
FILLERS = 32
# Beside the first of the systems; the names are those of the table.
TROLLEY, EXPRESS, EXPRESS_CLUSTER = "trolley", "express", "express, 2 workers"
OPERATIONS = ("GET", "POST")


def arguments():
    parser = argparse.ArgumentParser(
        prog="scripts/bench.sh --gateway",
        description="Requests per second and latencies of GET and POST of a cart: through `trolley gateway` and three nodes, and through "
        "Express with express-session, connect-redis and one Redis (appendonly yes, appendfsync always).",
    )
    parser.add_argument("--rounds", type=int, default=3, help="measure everything so often, in turn, and take medians (%(default)s)")
    parser.add_argument("--seconds", type=int, default=4, help="of one measurement, after a warm-up of one (%(default)s)")
    parser.add_argument("--connections", default="64,256", help="that wrk keeps open (%(default)s)")
    parser.add_argument("--shoppers", type=int, default=10_000, help="each has a cart of its own (%(default)s)")
    parser.add_argument("--systems", default="trolley,express", help="which of them (%(default)s)")
    parser.add_argument("--json", action="store_true", help="every single measurement, one JSON object a line, instead of the table")
    parsed = parser.parse_args()
    parsed.connections = [int(number) for number in parsed.connections.split(",")]
    parsed.systems = parsed.systems.split(",")
    return parsed


def note(text):
    print(text, file=sys.stderr)


# ---- processes ----------------------------------------------------------------------------------------------


class Processes:
    """Whatever is started here, and ends with it."""

    def __init__(self, folder):
        self.folder = folder
        self.started = []

    def start(self, name, command, **environment):
        with open(self.folder / f"{name}.log", "wb") as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=os.environ | environment, start_new_session=True
            )
        self.started.append((name, process))
        return process

    def await_answer(self, name, process, url):
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and process.poll() is None:
            try:
                with urllib.request.urlopen(url, timeout=1):
                    return
            except urllib.error.HTTPError:
                return
            except OSError:
                time.sleep(0.1)
        log = (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")
        sys.exit(f"fronts.py: {name} does not start: {log[-500:]}")

    def end(self):
        for _, process in reversed(self.started):
            with contextlib.suppress(ProcessLookupError):
                # With the workers that it has made.
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def family(pid):
    """A process and those that it has made."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
    return [pid, *(member for child in children for member in family(child))]


def ticks(pids):
    """Processor time that processes have taken, in seconds."""
    spent = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(") ")[2].split()
        spent += int(fields[11]) + int(fields[12])
    return spent / os.sysconf("SC_CLK_TCK")


# ---- the systems --------------------------------------------------------------------------------------------


class System:
    """One front, and what is behind it."""

    def __init__(self, name, port, paths, front, behind):
        self.name, self.port, self.paths = name, port, paths
        self.front, self.behind = front, behind
        self.headers = None

    def pids(self):
        return family(str(self.front.pid)) + self.behind()

    def settle(self):
        """Waits until what the last measurement has left takes less than a tenth of a core."""
        for _ in range(40):
            before = ticks(self.pids())
            time.sleep(0.5)
            if ticks(self.pids()) - before <= 0.05:
                return


def trolley(processes, cluster, binary, port, shoppers):
    secret = secrets.token_hex(32)
    keys = processes.folder / "secret"
    keys.write_text(secret, encoding="utf-8")
    front = processes.start(
        TROLLEY,
        [
            binary, "gateway", "--endpoints", cluster.endpoints(), "--listen", f"127.0.0.1:{port}", "--jwt-keys", str(keys),
            "--jwt-algorithms", "HS256", "--jwt-audience", AUDIENCE, "--jwt-issuer", ISSUER,
        ],
    )  # fmt: skip
    processes.await_answer(TROLLEY, front, f"http://127.0.0.1:{port}/readyz")
    system = System(TROLLEY, port, {"GET": "/v1/carts/me", "POST": "/v1/carts/me/lines"}, front, cluster.pids)
    tokens = [f"Authorization: Bearer {sign(secret, f'shopper-{number}')}" for number in range(shoppers)]
    asyncio.run(fill(system, tokens))
    system.headers = keep(processes.folder / "tokens", tokens)
    return system


def sign(secret, user):
    """A JWT of this user, HS256."""
    claims = {"sub": user, "aud": AUDIENCE, "iss": ISSUER, "exp": int(time.time()) + 24 * 3600, "scope": "cart:read cart:write"}
    parts = [{"alg": "HS256", "typ": "JWT"}, claims]
    signed = ".".join(base64url(json.dumps(part, separators=(",", ":")).encode()) for part in parts)
    return f"{signed}.{base64url(hmac.digest(secret.encode(), signed.encode(), hashlib.sha256))}"


def base64url(value):
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def express(processes, modules, port, shoppers):
    """Express in one process and in two: the same sessions in the same Redis."""
    data = processes.folder / "redis"
    data.mkdir()
    redis_port = port + 2
    redis = processes.start(
        "redis",
        [
            "redis-server", "--bind", "127.0.0.1", "--port", str(redis_port), "--dir", str(data), "--appendonly", "yes",
            "--appendfsync", "always", "--save", "",
        ],
    )  # fmt: skip
    systems = []
    for name, workers, own_port in ((EXPRESS, 1, port), (EXPRESS_CLUSTER, 2, port + 1)):
        front = processes.start(
            name, ["node", str(SCRIPTS / "express-cart.js")], PORT=str(own_port), REDIS_PORT=str(redis_port), WORKERS=str(workers),
            NODE_ENV="production", NODE_PATH=str(modules),
        )  # fmt: skip
        processes.await_answer(name, front, f"http://127.0.0.1:{own_port}/cart")
        systems.append(System(name, own_port, {"GET": "/cart", "POST": "/cart/lines"}, front, lambda: [str(redis.pid)]))
    cookies = asyncio.run(fill(systems[0], [None] * shoppers))
    for system in systems:
        system.headers = keep(processes.folder / "cookies", cookies)
    return systems


def keep(file, lines):
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return file


# ---- filling carts ------------------------------------------------------------------------------------------


async def fill(system, headers):
    """Puts a line of each SKU into everybody's cart. Whoever has no header line yet gets the cookie that comes back."""
    left = iter(range(len(headers)))

    async def filler():
        reader, writer = await asyncio.open_connection("127.0.0.1", system.port)
        for number in left:
            for sku in range(SKUS):
                cookie = await post(system, reader, writer, headers[number], f'{{"sku":"SKU-{sku}","quantity":1}}')
                headers[number] = headers[number] or f"Cookie: {cookie}"
        writer.close()

    await asyncio.gather(*(filler() for _ in range(FILLERS)))
    return headers


async def post(system, reader, writer, header, body):
    """One request; the cookie that its answer sets, if there is one."""
    lines = [f"POST {system.paths['POST']} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json", f"Content-Length: {len(body)}"]
    lines += [header] if header else []
    writer.write(("\r\n".join(lines) + "\r\n\r\n" + body).encode())
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
    answer = await reader.readexactly(int(fields["content-length"]))
    if head.split()[1] not in ("200", "201"):
        sys.exit(f"fronts.py: {system.name} refuses to fill a cart: {answer.decode()}")
    cookies = [line.split(": ", 1)[1].split(";")[0] for line in head.split("\r\n") if line.lower().startswith("set-cookie: ")]
    return cookies[0] if cookies else None


# ---- measuring ----------------------------------------------------------------------------------------------


def wrk(system, operation, connections, seconds):
    command = [
        "wrk", "--threads", "1", "--connections", str(connections), "--duration", f"{seconds}s", "--timeout", "30s",
        "--script", str(SCRIPTS / "carts.lua"), f"http://127.0.0.1:{system.port}", "--", operation, system.paths[operation],
        str(system.headers),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"fronts.py: wrk: {done.stderr.strip() or done.stdout.strip()}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def measure(system, operation, connections, round_number, seconds):
    system.settle()
    note(f"round {round_number}: {system.name}: {operation}, {connections} connections")
    wrk(system, operation, connections, 1)
    front, all_of_it = family(str(system.front.pid)), system.pids()
    before = ticks(front), ticks(all_of_it)
    found = wrk(system, operation, connections, seconds)
    after = ticks(front), ticks(all_of_it)
    of_front, of_all = ((then - now) * 1e6 / max(found["requests"], 1) for now, then in zip(before, after))
    return {
        "system": system.name, "operation": operation, "connections": connections, "round": round_number,
        "requests_per_second": round(found["requests"] / found["seconds"], 1), "p50_us": found["p50_us"], "p99_us": found["p99_us"],
        "server_cpu_us_per_request": round(of_all, 1), "front_cpu_us_per_request": round(of_front, 1), "errors": found["errors"],
    }  # fmt: skip


def print_table(lines):
    groups = {}
    for line in lines:
        groups.setdefault((line["operation"], line["connections"], line["system"]), []).append(line)

    def median(key, field):
        return statistics.median(line[field] for line in groups[key])

    print("| cart | connections | through | requests/s | vs Express | p50 ms | p99 ms | server CPU µs/request | the front's part | errors |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for key in sorted(groups, key=lambda key: (OPERATIONS.index(key[0]), key[1])):
        operation, connections, system = key
        rate, rival = median(key, "requests_per_second"), (operation, connections, EXPRESS)
        ratio = f"{rate / median(rival, 'requests_per_second'):.2f}×" if rival in groups else "–"
        errors = sum(line["errors"] for line in groups[key])
        print(
            f"| {operation} | {connections} | {system} | {rate:,.0f} | {ratio} | {median(key, 'p50_us') / 1000:.2f} "
            f"| {median(key, 'p99_us') / 1000:.2f} | {median(key, 'server_cpu_us_per_request'):.0f} "
            f"| {median(key, 'front_cpu_us_per_request'):.0f} | {errors} |"
        )


def start_all(args, processes, cluster, binary, port):
    systems = []
    if cluster:
        systems.append(trolley(processes, cluster, binary, port + 20, args.shoppers))
    if "express" in args.systems:
        systems += express(processes, os.environ["GATEWAY_MODULES"], port + 30, args.shoppers)
    return systems


def main():
    args = arguments()
    if "GATEWAY_BINARY" not in os.environ:
        # bench.sh asks whether the options are right before it builds anything.
        return
    # As Ctrl-C: what was started here ends with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("fronts.py: terminated"))
    binary, port = os.environ["GATEWAY_BINARY"], int(os.environ["GATEWAY_PORT"])
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        processes, cluster = Processes(Path(folder)), None
        try:
            if TROLLEY in args.systems:
                cluster = Cluster(Path(folder) / "cluster", Path(binary), port, 3)
            systems = start_all(args, processes, cluster, binary, port)
            for round_number in range(1, args.rounds + 1):
                for connections in args.connections:
                    for operation in OPERATIONS:
                        for system in systems:
                            lines.append(measure(system, operation, connections, round_number, args.seconds))
                            if args.json:
                                print(json.dumps(lines[-1]), flush=True)
        finally:
            processes.end()
            if cluster:
                cluster.end()
    if not args.json:
        print_table(lines)


main()
