"""Prints the table of scripts/bench.sh from its measurements, one JSON object a line."""

import json
import statistics
import sys
from collections import defaultdict

# Which of etcd's operations one of Trolley's is held against.
RIVALS = {
    "kv-put": "kv-put",
    "session-write": "kv-put",
    "touch": "kv-put",
    "touch-stored": "kv-put",
    "login": "kv-put",
    "cart-add": "kv-put",
    "kv-put-once": "kv-put",
    "add-item": "kv-put",
    "txn": "kv-put",
    "kv-get": "kv-get",
    "session-read": "kv-get",
}


def median(lines, field):
    values = [line[field] for line in lines if line.get(field) is not None]
    return statistics.median(values) if values else None


def rows(lines):
    """What counts by operation, clients, system and transport: what was measured with the threads that are best for it."""
    groups = defaultdict(lambda: defaultdict(list))
    for line in lines:
        if "operations_per_second" in line and "beside" not in line:
            name = line["system"]
            if name == "trolley":
                name += " " + line["transport"]
            groups[line["operation"], line["clients"], name][line["threads"]].append(line)
    rate = lambda measured: median(measured, "operations_per_second")
    return {group: max(by_threads.values(), key=rate) for group, by_threads in groups.items()}


def print_throughput(groups):
    head = "| operation | clients | system | threads | op/s | vs etcd | p50 ms | p99 ms | server CPU µs/op | errors |"
    print(head)
    print("|---|---|---|---|---|---|---|---|---|---|")
    order = list(RIVALS)
    key = lambda item: (order.index(item[0][0]), item[0][1], item[0][2])
    for (operation, clients, name), lines in sorted(groups.items(), key=key):
        rate = median(lines, "operations_per_second")
        rival = groups.get((RIVALS[operation], clients, "etcd"))
        ratio = f"{rate / median(rival, 'operations_per_second'):.2f}×" if rival else "–"
        cpu = median(lines, "server_cpu_us_per_operation")
        print(
            f"| {operation} | {clients} | {name} | {lines[0]['threads']} | {rate:,.0f} | {ratio} "
            f"| {median(lines, 'p50_us') / 1000:.2f} | {median(lines, 'p99_us') / 1000:.2f} "
            f"| {'–' if cpu is None else f'{cpu:.1f}'} | {sum(line['errors'] for line in lines)} |"
        )


def print_fan_out(lines):
    groups = defaultdict(list)
    for line in lines:
        if "events_per_second" in line:
            groups[line["watchers"]].append(line)
    for watchers, found in sorted(groups.items()):
        cpu = median(found, "server_cpu_us_per_event")
        print(
            f"watch fan-out, {watchers:,} watchers on one node: {median(found, 'events_per_second'):,.0f} events/s "
            f"delivered, lag from the put's start p50 {median(found, 'lag_p50_us') / 1000:.1f} ms, "
            f"p99 {median(found, 'lag_p99_us') / 1000:.1f} ms{'' if cpu is None else f', {cpu:.2f} server CPU µs/event'}"
        )


def print_outages(lines):
    for signal, what in (("KILL", "killed"), ("STOP", "stopped"), ("CUT", "cut off")):
        for system in ("trolley", "etcd"):
            found = [line for line in lines if line["system"] == system and line.get("signal") == signal]
            outages = [line["outage_ms"] for line in found]
            if outages:
                print(
                    f"leader {what} to next acknowledged write, {system}: median {statistics.median(outages):.0f} ms "
                    f"of {len(outages)} (from {min(outages)} to {max(outages)} ms)"
                )


def print_memory(lines):
    groups = defaultdict(list)
    for line in lines:
        if "rss_mb" in line:
            groups[int(line["sessions"])].append(line["rss_mb"])
    for sessions, sizes in sorted(groups.items()):
        what = f"with {sessions:,} sessions" if sessions else "idle"
        print(f"memory per node, {what}: {max(sizes):.0f} MB (largest of {len(sizes)})")


def print_beside(lines):
    for line in lines:
        if "beside" in line:
            print(
                f"while {line['beside']}: {line['operations_per_second']:,.0f}/s, "
                f"p50 {line['p50_us'] / 1000:.2f} ms, p99 {line['p99_us'] / 1000:.2f} ms, "
                f"longest {line['max_us'] / 1000:.2f} ms"
            )


def main():
    with open(sys.argv[1], encoding="utf-8") as results:
        lines = [json.loads(line) for line in results]
    if groups := rows(lines):
        print_throughput(groups)
        print()
    print_fan_out(lines)
    print_outages(lines)
    print_memory(lines)
    print_beside(lines)


main()
