#!/usr/bin/env python3
"""Where the processor time of an operation goes: a table in microseconds, and a flame graph (SVG).

A fresh cluster of three, the benchmark's clients, and `perf` on the servers alone. Each sample is counted for the innermost frame that
one of PLACES names; shares of the samples are turned into microseconds by what an operation costs in the same run.
"""

import argparse
import collections
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from html import escape
from pathlib import Path

from growth import Cluster

# Where a sample belongs, and by which names of functions that is seen. The innermost frame that is named anywhere decides.
PLACES = (
    ("apply: find records", r"StateView as |keys::Key as |Batch<S>::load|storage::layer::Layer::get|storage::cache"),
    ("apply: encode and hash what changed", r"Slot::take_encoding|state::record::|state::digest|xxh3|Batch<S>::finish"),
    ("apply: events", r"state::history|state::journal"),
    ("apply: replies that are kept", r"state::replies|state::window"),
    ("apply: the operations themselves", r"trolley::state::|trolley::proto::session"),
    ("apply: into the layer in memory", r"storage::layer|StateDb::commit|Machine::commit_batch"),
    ("log: fdatasync", r"fdatasync|do_fsync"),
    ("log: write", r"WriteImpl|storage::commit|storage::wal|storage::wire|storage::log"),
    ("flushes and compactions", r"rocksdb::FlushJob|CompactionJob|BackgroundCall|flush_events|BuildTable|ThreadPoolImpl"),
    ("replication: entries to and from messages", r"network::message|raft::wire|Proposal::decode|Proposal::new|trolley::network"),
    ("openraft", r"openraft::"),
    ("API: requests to commands, replies to messages", r"trolley::api|trolley::proto|trolley::node"),
    ("HTTP/2 and gRPC", r"\bh2::|hyper|tonic|http_body|trolley::transport"),
    ("sockets", r"tcp_|sock_|inet_|__ip_|net_rx|__x64_sys_(recv|send|write)|ksys_write|softirq|epoll"),
    ("scheduling", r"schedule|futex|tokio::|try_to_wake_up|irqentry|sysvec"),
)
NAMED = [(place, re.compile(pattern)) for place, pattern in PLACES]
OTHER = "everything else"

FRAME = re.compile(r"^\s+[0-9a-f]+ (.*?)(?:\+0x[0-9a-f]+)? \(")
HASH = re.compile(r"::h[0-9a-f]{16}$")


def stacks(text):
    """Stacks of samples, innermost frame first."""
    stack = []
    for line in text:
        found = FRAME.match(line)
        if found:
            stack.append(HASH.sub("", found.group(1)))
        elif not line.strip() and stack:
            yield stack
            stack = []
    if stack:
        yield stack


def place_of(stack):
    for frame in stack:
        for place, pattern in NAMED:
            if pattern.search(frame):
                return place
    return OTHER


# ---- the flame graph ----------------------------------------------------------------------------------------

WIDTH, ROW, FONT = 1200, 17, 11
LEAST_SHARE = 0.004
DEEPEST = 48


class Node:
    def __init__(self):
        self.samples, self.inner = 0, {}

    def add(self, frames):
        self.samples += 1
        node = self
        for frame in frames:
            node = node.inner.setdefault(frame, Node())
            node.samples += 1


def short(frame):
    """A name without its module path, generics left in: enough to know it."""
    frame = frame.replace("{{closure}}", "…")
    return re.sub(r"(?:\b[a-z_0-9]+::)+(?=[A-Za-z_…])", "", frame)


def flame(root, title):
    rows, out, least = 0, [], root.samples * LEAST_SHARE

    def draw(node, left, row):
        nonlocal rows
        rows = max(rows, row)
        for frame, inner in sorted(node.inner.items()):
            if inner.samples >= least:
                width = WIDTH * inner.samples / root.samples
                share = f"{100 * inner.samples / root.samples:.1f} %"
                hue = sum(frame.encode()) % 40 + 10
                text = escape(short(frame)[: int(width / (FONT * 0.62))]) if width > 30 else ""
                out.append(
                    f'<g><title>{escape(frame[:120])} ({share})</title><rect x="{left:.1f}" y="{{{row}}}" width="{width:.1f}" '
                    f'height="{ROW - 1}" fill="hsl({hue} 70% 65%)"/><text x="{left + 3:.1f}" y="{{t{row}}}">{text}</text></g>'
                )
                draw(inner, left, row + 1)
            left += WIDTH * inner.samples / root.samples

    draw(root, 0, 1)
    height = (rows + 2) * ROW
    # The root at the bottom, as flame graphs have it.
    place = {str(row): height - (row + 1) * ROW for row in range(rows + 2)}
    place |= {f"t{row}": y + FONT + 1 for row, y in list(place.items())}
    body = "\n".join(re.sub(r'y="\{(t?\d+)\}"', lambda found: f'y="{place[found.group(1)]}"', line) for line in out)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="monospace" font-size="{FONT}">\n'
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/><text x="3" y="{FONT + 3}">{escape(title)}</text>\n{body}\n</svg>\n'
    )


# ---- the run ------------------------------------------------------------------------------------------------


def measure(args, folder):
    cluster = Cluster(folder / "cluster", args.binary, args.port, 3)
    try:
        pids = ",".join(cluster.pids())
        bench = [
            args.binary, "bench", "--json", "--endpoints", cluster.endpoints(), "--operation", args.operation, "--clients",
            str(args.clients), "--duration", f"{args.seconds + 3}s", "--warm-up", "1s", "--server-pids", pids,
            "--threads", str(cluster.share()),
        ]  # fmt: skip
        data = folder / "perf.data"
        with subprocess.Popen(bench, stdout=subprocess.PIPE, text=True) as running:
            time.sleep(2.5)
            record = ["perf", "record", "-o", data, "-F", str(args.frequency), "--call-graph", "dwarf,8192", "-p", pids]
            watched = None
            if running.poll() is None:
                watched = subprocess.run([*record, "--", "sleep", str(args.seconds)], check=False, capture_output=True, text=True)
            answer = running.communicate()[0]
        if running.returncode != 0:
            sys.exit("profile.py: the benchmark failed, see above")
        if watched is None or watched.returncode != 0:
            sys.exit(f"profile.py: perf saw nothing: {watched.stderr.strip() if watched else 'the benchmark was too short'}")
        measured = json.loads(answer)
    finally:
        cluster.end()
    script = subprocess.run(
        ["perf", "script", "-i", data, "--no-inline", "-F", "comm,ip,sym,dso"], check=True, capture_output=True, text=True, errors="replace"
    )
    return measured, list(stacks(script.stdout.splitlines()))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", default=os.environ.get("TROLLEY_BIN"), required="TROLLEY_BIN" not in os.environ, help="trolley, built with --bins")
    parser.add_argument("--operation", default="kv-put", help="of `trolley bench` (%(default)s)")
    parser.add_argument("--clients", type=int, default=256, help="(%(default)s)")
    parser.add_argument("--seconds", type=int, default=5, help="of profiling (%(default)s)")
    parser.add_argument("--frequency", type=int, default=700, help="samples a second and processor (%(default)s)")
    parser.add_argument("--port", type=int, default=17600, help="the cluster's, of four in a row (%(default)s)")
    parser.add_argument("--flame", type=Path, help="where the flame graph goes")
    args = parser.parse_args()
    if not shutil.which("perf"):
        sys.exit("profile.py: there is no `perf` here")
    if not os.access(args.binary, os.X_OK):
        sys.exit(f"profile.py: {args.binary} is not an executable file: build one with `cargo build --release --locked --bins`")
    with tempfile.TemporaryDirectory() as folder:
        measured, found = measure(args, Path(folder))
    cost = measured["server_cpu_us_per_operation"]
    counts = collections.Counter(map(place_of, found))
    print(f"{args.operation}, {args.clients} clients: {measured['operations_per_second']:,.0f}/s while it was watched, ", end="")
    print(f"{cost:.1f} µs of server CPU an operation over three nodes, {len(found):,} samples\n")
    print("| where | share | µs |\n|---|---|---|")
    for place in [*(place for place, _ in PLACES), OTHER]:
        share = counts[place] / max(len(found), 1)
        print(f"| {place} | {100 * share:.0f} % | {cost * share:.1f} |")
    if args.flame:
        root = Node()
        for stack in found:
            root.add(list(reversed(stack))[-DEEPEST:])
        args.flame.write_text(flame(root, f"{args.operation}, {args.clients} clients, three nodes"), encoding="utf-8")


if __name__ == "__main__":
    main()
