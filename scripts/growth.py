"""What grows with what: `scripts/bench.sh --growth`. See --help.

One thing grows at a time, everything else stays as it is. Each measurement is a line of JSON in `growth.jsonl`, written when it is
there; a second call with the same --out goes on behind the last one. Only clusters that this program started are ended, and each
series has a fresh one.
"""

import argparse
import itertools
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OPERATIONS = ("kv-put", "kv-get")
# What is measured: the field, what a plot calls it, what it is divided by, and how it is printed.
FIGURES = (
    ("operations_per_second", "operations a second", 1, "{:,.0f}"),
    ("p50_us", "p50, ms", 1000, "{:,.2f}"),
    ("p99_us", "p99, ms", 1000, "{:,.2f}"),
    ("server_cpu_us_per_operation", "server CPU, µs an operation", 1, "{:,.1f}"),
    ("rss_mb", "memory of the largest node, MB", 1, "{:,.0f}"),
    ("disk_mb", "data of the largest node, MB", 1, "{:,.0f}"),
)
PANELS = (
    ("operations_per_second", "operations a second"),
    ("p99_us", "p99, ms"),
    ("server_cpu_us_per_operation", "server CPU, µs an operation"),
)
# The same of a cluster that was under load, divided by those of one that has just been started.
OF_FRESH = "_of_fresh"
BESIDE_FRESH = tuple((field + OF_FRESH, name.split(",")[0] + ", of a fresh cluster's", 1, "{:.2f}") for field, name in PANELS)
TITLES = {
    "keys": "keys in the store",
    "value": "bytes of a value",
    "nodes": "nodes",
    "clients": "clients",
    "minutes": "minutes of load",
}
SETTLE_SECONDS = 20
# Of the series `minutes`: single pairs differ by a tenth and more.
LEAST_PAIRS = 3


def arguments():
    parser = argparse.ArgumentParser(
        prog="scripts/bench.sh --growth",
        description="Measures how the cost of puts and linearizable gets grows, as JSON, a table and plots.",
        epilog="By default it takes about 25 minutes on two cores, 15 of them for the series `minutes`; ten million keys take 10 minutes "
        "and 15 GB of disk more. It is ended by Ctrl-C and goes on where it was.",
    )
    parser.add_argument("--out", type=Path, default=Path("growth"), help="where growth.jsonl and growth.md go (%(default)s)")
    parser.add_argument("--plots", type=Path, default=ROOT / "docs", help="where growth-SERIES.svg go (docs/ of the checkout)")
    parser.add_argument("--series", default=",".join(TITLES), help="which, separated by commas (%(default)s)")
    parser.add_argument("--most-keys", type=int, default=1_000_000, help="keys grow tenfold from 10,000 up to this (%(default)s)")
    parser.add_argument("--minutes", type=int, default=10, help="how long the cluster of the series `minutes` is under load (%(default)s)")
    parser.add_argument("--every", type=int, default=2, help="minutes between two points of that series (%(default)s)")
    parser.add_argument("--load", type=int, default=64, help="clients that load it between them, with puts and gets (%(default)s)")
    parser.add_argument("--rounds", type=int, default=1, help="measure each point so often and take medians (%(default)s)")
    parser.add_argument("--seconds", type=int, default=4, help="of one measurement, after a warm-up of one (%(default)s)")
    parser.add_argument("--plot-only", action="store_true", help="table and plots of what is there, nothing is measured")
    parsed = parser.parse_args()
    parsed.series = parsed.series.split(",")
    if parsed.every < 1:
        parser.error("--every takes a number of minutes")
    unknown = [name for name in parsed.series if name not in TITLES]
    if unknown:
        parser.error(f"there is no series {', '.join(unknown)}; there are {', '.join(TITLES)}")
    return parsed


# ---- the points ---------------------------------------------------------------------------------------------


def points(series, args):
    """The values of what grows, each with the settings that it changes."""
    base = {"keys": 10_000, "value": 256, "nodes": 3, "clients": 256}
    if series == "keys":
        most = max(args.most_keys, 10_000)
        values = [10**power for power in range(4, 1 + int(math.log10(most) + 1e-9))]
        return [(keys, base | {"keys": keys}) for keys in values]
    if series == "value":
        # So few keys that the store is no larger than the disk is, however long their values are.
        return [(size, base | {"keys": 1_000, "value": size}) for size in (64, 256, 1024, 4096, 16384, 65536)]
    if series == "nodes":
        return [(nodes, base | {"nodes": nodes}) for nodes in (3, 5)]
    if series == "clients":
        return [(clients, base | {"clients": clients}) for clients in (1, 4, 16, 64, 256, 1024, 4096)]
    return [(minute, base) for minute in range(0, args.minutes + 1, args.every)]


def is_fresh(series):
    """Whether every point has a cluster of its own: what is stored, or who stores it, is another."""
    return series in ("keys", "nodes", "value")


# ---- a cluster ----------------------------------------------------------------------------------------------


class Cluster:
    """Nodes that scripts/cluster.sh starts, over a folder of their own. It takes a port for each and the one before them."""

    def __init__(self, folder, binary, port, nodes):
        self.folder, self.binary, self.nodes, self.port = folder, binary, nodes, port
        self.environment = os.environ | {
            "TROLLEY_DIR": str(folder),
            "TROLLEY_PORT": str(port),
            "TROLLEY_BIN": str(binary),
        }
        # What a run that was broken off has left.
        self.call("wipe", check=False)
        self.call("up", str(nodes))

    def call(self, *verb, check=True):
        done = subprocess.run(
            [ROOT / "scripts" / "cluster.sh", *verb], env=self.environment, capture_output=True, text=True, check=False
        )
        if check and done.returncode != 0:
            sys.exit(f"growth.py: cluster.sh {' '.join(verb)}: {done.stderr.strip()}")

    def end(self):
        self.call("wipe", check=False)

    def share(self):
        """Of the machine's cores: a node's, and that of whoever loads them."""
        return max(1, os.cpu_count() // self.nodes)

    def pids(self):
        files = [self.folder / f"node-{node}" / "pid" for node in range(1, self.nodes + 1)]
        return [file.read_text(encoding="utf-8").split()[0] for file in files]

    def endpoints(self):
        return ",".join(f"127.0.0.1:{self.port + node}" for node in range(1, self.nodes + 1))

    def ticks(self):
        """Processor time that all nodes have taken."""
        stats = [Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(") ")[2].split() for pid in self.pids()]
        return sum(int(fields[11]) + int(fields[12]) for fields in stats)

    def settle(self):
        """Waits until what the last measurement has left, compactions above all, takes less than a tenth of a core."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < deadline:
            before = self.ticks()
            time.sleep(0.5)
            if self.ticks() - before <= 5:
                return

    def rss_mb(self):
        def of(pid):
            lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
            return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024

        return max(of(pid) for pid in self.pids())

    def disk_mb(self):
        return max(size_of(self.folder / f"node-{node}") for node in range(1, self.nodes + 1)) / 1e6


def size_of(folder):
    """Bytes that a folder takes on the disk. A file with two names, as in a snapshot, counts once; one that just went, not at all."""
    blocks = {}
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                found = os.stat(os.path.join(place, name))
            except FileNotFoundError:
                continue
            # A ballast is room that is kept free.
            if name != "BALLAST":
                blocks[found.st_ino] = found.st_blocks * 512
    return sum(blocks.values())


def measure(cluster, operation, settings, seconds, warm_up):
    command = [
        str(cluster.binary), "bench", "--json", "--endpoints", cluster.endpoints(), "--operation", operation,
        "--clients", str(settings["clients"]), "--keys", str(settings["keys"]), "--value-bytes", str(settings["value"]),
        "--duration", f"{seconds}s", "--warm-up", f"{warm_up}s", "--server-pids", ",".join(cluster.pids()), "--timeout", "60s",
        "--threads", str(cluster.share()),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        # A machine that was too busy for one measurement need not be for the next.
        print(f"growth.py: {operation} with {settings}: {done.stderr.strip()}", file=sys.stderr)
        return None
    found = json.loads(done.stdout)
    return found | {"rss_mb": round(cluster.rss_mb(), 1), "disk_mb": round(cluster.disk_mb(), 1)}


# ---- measuring ----------------------------------------------------------------------------------------------


class Results:
    """Lines of JSON, each there as soon as it was measured."""

    def __init__(self, file):
        self.file = file
        self.lines = []
        # What was to be measured and came to nothing.
        self.missing = 0
        if file.exists():
            for line in file.read_text(encoding="utf-8").splitlines():
                try:
                    self.lines.append(json.loads(line))
                except json.JSONDecodeError:
                    print(f"growth.py: {file} holds half a line, which is measured again", file=sys.stderr)

    def has(self, key):
        return any(is_of(line, key) for line in self.lines)

    def forget(self, key):
        self.lines = [line for line in self.lines if not is_of(line, key)]

    def add(self, line):
        self.lines.append(line)
        # Written anew, so that half a line of a run that was broken off does not stay in the middle.
        draft = self.file.with_suffix(".new")
        draft.write_text("".join(json.dumps(it) + "\n" for it in self.lines), encoding="utf-8")
        draft.replace(self.file)


def is_of(line, key):
    return all(line[name] == value for name, value in key.items())


def run_series(series, args, results, binary, port):
    cluster = None
    folder = args.out.resolve() / "cluster"
    try:
        for round_number in range(1, args.rounds + 1):
            for x, settings in points(series, args):
                key = {"series": series, "x": x, "round": round_number, "seconds": args.seconds}
                left = [it for it in OPERATIONS if not results.has(key | {"operation": it})]
                if not left:
                    continue
                if is_fresh(series):
                    # What is measured later finds what was stored before.
                    left = OPERATIONS
                    results.forget(key)
                if cluster is None or is_fresh(series):
                    if cluster:
                        cluster.end()
                    cluster = Cluster(folder, binary, port, settings["nodes"])
                print(f"growth.py: {TITLES[series]}: {x:,} (round {round_number})", file=sys.stderr)
                # A get puts every key before, so the puts find them all there.
                for operation in sorted(left):
                    cluster.settle()
                    found = measure(cluster, operation, settings, args.seconds, warm_up=1)
                    if found is None:
                        results.missing += 1
                        continue
                    results.add(key | {"operation": operation} | {f"at_{name}": value for name, value in settings.items()} | found)
    finally:
        if cluster:
            cluster.end()


def run_minutes(args, results, binary, port):
    """One cluster that stays under load, measured beside one that has just been started. What else the machine does meets both alike,
    and what is divided by the other's is what time alone has done."""
    series = "minutes"
    rounds = max(LEAST_PAIRS, args.rounds)
    if len([line for line in results.lines if line["series"] == series]) >= len(points(series, args)) * len(OPERATIONS) * rounds:
        return
    # A cluster that was up for some minutes cannot be had again: this series begins anew.
    results.forget({"series": series})
    folder = args.out.resolve()
    aged = fresh = None
    before = {"loaded": 0, "load_errors": 0}
    try:
        for x, settings in points(series, args):
            if aged is None:
                aged = Cluster(folder / "aged", binary, port, settings["nodes"])
            else:
                before = load(aged, settings | {"clients": args.load}, 60 * args.every, results)
            print(f"growth.py: {TITLES[series]}: {x:,}", file=sys.stderr)
            fresh = Cluster(folder / "fresh", binary, port + 1 + settings["nodes"], settings["nodes"])
            for operation in sorted(OPERATIONS):
                pairs = [pair(aged, fresh, operation, settings, args.seconds) for _ in range(rounds)]
                results.missing += pairs.count(None)
                for number, found in enumerate(filter(None, pairs), 1):
                    key = {"series": series, "x": x, "round": number, "seconds": args.seconds, "operation": operation}
                    results.add(key | before | found)
            fresh.end()
            fresh = None
    finally:
        for cluster in filter(None, (aged, fresh)):
            cluster.end()


def pair(aged, fresh, operation, settings, seconds):
    """The figures of one cluster, and how many times the other's they are."""
    both = []
    for cluster in (fresh, aged):
        cluster.settle()
        both.append(measure(cluster, operation, settings, seconds, warm_up=1))
    if None in both:
        return None
    return both[1] | {field + OF_FRESH: round(both[1][field] / both[0][field], 4) for field, _ in PANELS}


def load(cluster, settings, seconds, results):
    """Puts and gets in turn, as long as that. Returns how many, and how many failed."""
    until = time.monotonic() + seconds
    total = {"loaded": 0, "load_errors": 0}
    for operation in itertools.cycle(OPERATIONS):
        left = int(until - time.monotonic())
        if left < 2:
            return total
        found = measure(cluster, operation, settings, min(30, left), warm_up=0)
        if found is None:
            results.missing += 1
            continue
        total["loaded"] += found["operations"]
        total["load_errors"] += found["errors"]
    return total


# ---- table and plots ----------------------------------------------------------------------------------------


def medians(lines, series, operation):
    """By what grows: the median of each figure."""
    found = {}
    for line in lines:
        if line["series"] == series and line["operation"] == operation:
            found.setdefault(line["x"], []).append(line)

    def median(of_x, field):
        values = [line[field] for line in of_x if line.get(field) is not None]
        return statistics.median(values) if values else None

    return {x: {field: median(of_x, field) for field, *_ in FIGURES + BESIDE_FRESH} for x, of_x in sorted(found.items())}


def figures_of(series):
    """The columns of its table."""
    return FIGURES + BESIDE_FRESH if series == "minutes" else FIGURES


def table(lines):
    rows = []
    for series, title in TITLES.items():
        head = [title, "operation", *(name for _, name, *_ in figures_of(series)), "errors"]
        body = []
        for operation in OPERATIONS:
            for x, figures in medians(lines, series, operation).items():
                of_x = [it for it in lines if (it["series"], it["x"], it["operation"]) == (series, x, operation)]
                # Those of the load before count once.
                errors = sum(it["errors"] for it in of_x) + max(it.get("load_errors", 0) for it in of_x)
                cells = [
                    "–" if figures[field] is None else form.format(figures[field] / scale) for field, _, scale, form in figures_of(series)
                ]
                body.append([f"{x:,}", operation, *cells, str(errors)])
        if body:
            rows += ["| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *body]] + [""]
    return "\n".join(rows)


WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 310, 206, 58, 48, 22, 40
# Colours that stand out from white and from black; text takes whatever the page has.
STYLE = """<style>
text { font: 11px system-ui, sans-serif; fill: #333 }
.title { font-weight: 600 } .grid { stroke: #8884; fill: none } .axis { stroke: #888; fill: none }
.kv-put { stroke: #d9731a } .kv-get { stroke: #2a8fd0 } text.kv-put { fill: #d9731a; stroke: none } text.kv-get { fill: #2a8fd0; stroke: none }
polyline { fill: none; stroke-width: 2 } circle { stroke: none } circle.kv-put { fill: #d9731a } circle.kv-get { fill: #2a8fd0 }
@media (prefers-color-scheme: dark) { text { fill: #ddd } }
</style>"""


def short(number):
    """As an axis has it: 2.5, 4,096, 65.5k, 10M."""
    for bound, unit, letter in ((1_000_000, 1_000_000, "M"), (10_000, 1_000, "k")):
        if number >= bound:
            return f"{number / unit:.3g}{letter}"
    return f"{number:,.6g}"


def ticks_to(highest):
    """Round numbers from nothing to a little beyond."""
    if highest <= 0:
        return [0, 1]
    rough = highest / 4
    power = 10 ** math.floor(math.log10(rough))
    step = next(nice * power for nice in (1, 2, 2.5, 5, 10) if nice * power >= rough)
    return [round(step * n, 10) for n in range(math.ceil(highest / step) + 1)]


def panel(found, field, title, series, offset):
    """One figure over what grows: from nothing, so that what is flat looks flat."""
    scale = next(it[2] for it in FIGURES + BESIDE_FRESH if it[0] == field)
    lines = {
        operation: [(x, figures[field] / scale) for x, figures in of.items() if figures[field] is not None]
        for operation, of in found.items()
    }
    xs = sorted({x for line in lines.values() for x, _ in line})
    if not xs:
        return ""
    # What grows by factors is shown by factors.
    warp = float if series in ("nodes", "minutes") else math.log
    low, high = warp(xs[0]), warp(xs[-1])
    ticks = ticks_to(max((y for line in lines.values() for _, y in line), default=0))
    inner_width, inner_height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def at_x(x):
        return round(LEFT + (inner_width * (warp(x) - low) / (high - low) if high > low else inner_width / 2), 1)

    def at_y(y):
        return round(TOP + inner_height * (1 - y / ticks[-1]), 1)

    parts = [f'<g transform="translate({offset} 0)">', f'<text class="title" x="{LEFT}" y="{TOP - 12}">{title}</text>']
    for tick in ticks:
        y = at_y(tick)
        parts.append(f'<path class="{"axis" if tick == 0 else "grid"}" d="M{LEFT} {y}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{short(tick)}</text>')
    every = max(1, math.ceil(len(xs) / 8))
    for x in xs[::every]:
        parts.append(f'<text x="{at_x(x)}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{short(x)}</text>')
    parts.append(f'<text x="{LEFT + inner_width / 2}" y="{HEIGHT - 8}" text-anchor="middle">{TITLES[series]}</text>')
    for operation, line in lines.items():
        path = " ".join(f"{at_x(x)},{at_y(y)}" for x, y in line)
        parts.append(f'<polyline class="{operation}" points="{path}"/>')
        parts += [f'<circle class="{operation}" cx="{at_x(x)}" cy="{at_y(y)}" r="2.5"/>' for x, y in line]
    return "\n".join([*parts, "</g>"])


def plot(lines, series):
    found = {operation: medians(lines, series, operation) for operation in OPERATIONS}
    which = [it[:2] for it in BESIDE_FRESH] if series == "minutes" else PANELS
    width = WIDTH * len(which)
    legend = " ".join(
        f'<text class="{operation}" x="{width - 130 + 65 * nth}" y="12">● {operation}</text>' for nth, operation in enumerate(OPERATIONS)
    )
    panels = [panel(found, field, title, series, WIDTH * nth) for nth, (field, title) in enumerate(which)]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" width="{width}" height="{HEIGHT}" role="img">'
    return "\n".join([head, f"<title>Cost over {TITLES[series]}</title>", STYLE, legend, *panels, "</svg>"]) + "\n"


def main():
    args = arguments()
    if "GROWTH_BINARY" not in os.environ:
        # bench.sh asks whether the options are right before it builds anything.
        return
    binary = Path(os.environ["GROWTH_BINARY"])
    port = int(os.environ["GROWTH_PORT"])
    args.out.mkdir(parents=True, exist_ok=True)
    results = Results(args.out / "growth.jsonl")
    # Whoever ends this program ends the cluster with it, by whichever signal.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if not args.plot_only:
        try:
            for series in args.series:
                if series == "minutes":
                    run_minutes(args, results, binary, port)
                else:
                    run_series(series, args, results, binary, port)
        except KeyboardInterrupt:
            sys.exit("growth.py: interrupted; the same call goes on from here")
    text = table(results.lines)
    (args.out / "growth.md").write_text(text, encoding="utf-8")
    args.plots.mkdir(parents=True, exist_ok=True)
    for series in TITLES:
        if any(line["series"] == series for line in results.lines):
            (args.plots / f"growth-{series}.svg").write_text(plot(results.lines, series), encoding="utf-8")
    print(text)
    if results.missing > 0:
        sys.exit(f"growth.py: {results.missing} measurements came to nothing, see above; the same call tries them again")


if __name__ == "__main__":
    main()
