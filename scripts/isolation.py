#!/usr/bin/env python3
"""How long writes stop when the leader is cut off from the others, Trolley beside etcd with the same timers.

Each node has a network namespace of its own, and all of them hang on one bridge. The leader is cut off by routes that swallow
what it and the others send each other; clients go on reaching everybody. Needs root and `ip`. bench.sh --isolations runs it.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

SUBNET = "10.213.77"
BRIDGE = "trolley-bench"
HEARTBEAT_MS = 100
PATIENCE_S = 30


def run(*command, **options):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, **options).stdout


def wait_until(what, condition):
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            if condition():
                return
        except (subprocess.CalledProcessError, KeyError, ValueError):
            pass
        if time.monotonic() > deadline:
            sys.exit(f"isolation.py: never came within {PATIENCE_S} s: {what}")
        time.sleep(0.1)


class Network:
    """A namespace for each host, from 1 on."""

    def __init__(self, hosts):
        self.hosts = hosts

    @staticmethod
    def address(host):
        return f"{SUBNET}.{host}"

    @staticmethod
    def name(host):
        return f"{BRIDGE}-{host}"

    def __enter__(self):
        self.__exit__()
        run("ip", "link", "add", BRIDGE, "type", "bridge")
        run("ip", "addr", "add", f"{SUBNET}.254/24", "dev", BRIDGE)
        run("ip", "link", "set", BRIDGE, "up")
        for host in self.hosts:
            name, ends = self.name(host), (f"tb-{host}", f"tb-{host}-in")
            run("ip", "netns", "add", name)
            run("ip", "link", "add", ends[0], "type", "veth", "peer", "name", ends[1], "netns", name)
            run("ip", "link", "set", ends[0], "master", BRIDGE, "up")
            run("ip", "-n", name, "addr", "add", f"{self.address(host)}/24", "dev", ends[1])
            run("ip", "-n", name, "link", "set", ends[1], "up")
            run("ip", "-n", name, "link", "set", "lo", "up")
        return self

    def __exit__(self, *_):
        for host in self.hosts:
            subprocess.run(["ip", "netns", "del", self.name(host)], stderr=subprocess.DEVNULL, check=False)
        subprocess.run(["ip", "link", "del", BRIDGE], stderr=subprocess.DEVNULL, check=False)

    def routes(self, verb, host, others):
        """Commands that add or delete what swallows traffic between a host and others."""
        for other in others:
            for end, far in ((host, other), (other, host)):
                yield f"ip -n {self.name(end)} route {verb} blackhole {self.address(far)}/32"

    def cut_command(self, host, others):
        return " && ".join(self.routes("add", host, others))

    def heal(self, host, others):
        for command in self.routes("del", host, others):
            run(*command.split())


class System:
    """Three nodes, each on a host of its own."""

    def __init__(self, options, network, work, hosts):
        self.options, self.network, self.work, self.hosts = options, network, work, hosts
        self.processes = []

    def start(self):
        for host in self.hosts:
            with open(os.path.join(self.work, f"{self.name}-{host}.log"), "wb") as log:
                command = ["ip", "netns", "exec", self.network.name(host), *self.command(host)]
                self.processes.append(subprocess.Popen(command, stdout=log, stderr=log))
        wait_until(f"{self.name} is whole", self.is_whole)

    def stop(self):
        for process in self.processes:
            process.kill()
            process.wait()

    def endpoint(self, host):
        return f"{self.network.address(host)}:{self.port}"

    def endpoints(self):
        return ",".join(self.endpoint(host) for host in self.hosts)

    def measure(self):
        leader = self.leader()
        others = [host for host in self.hosts if host != leader]
        line = json.loads(
            run(
                self.options.binary, "bench", "--json", "--operation", "kv-put", "--timeout", f"{PATIENCE_S}s",
                *self.bench(leader), "--kill-command", self.network.cut_command(leader, others),
            )
        )  # fmt: skip
        self.network.heal(leader, others)
        wait_until(f"{self.name} is whole again", self.is_whole)
        return {"system": self.name, "operation": "outage", "signal": "CUT", **line}


class Trolley(System):
    name, port = "trolley", 7400

    def command(self, host):
        members = ",".join(f"{host}={self.endpoint(host)}" for host in self.hosts)
        return [
            self.options.binary, "serve", "--node-id", str(host), "--data-dir", os.path.join(self.work, f"trolley-{host}"),
            "--listen", self.endpoint(host), "--advertise", self.endpoint(host), "--initial-cluster", members,
            "--heartbeat-interval-ms", str(HEARTBEAT_MS), "--election-timeout-min-ms", str(self.options.election_ms),
            "--election-timeout-max-ms", str(2 * self.options.election_ms),
        ]  # fmt: skip

    def nodes(self):
        status = run(self.options.binary, "cluster", "status", "--json", "--endpoints", self.endpoints())
        return json.loads(status)["nodes"]

    def is_whole(self):
        nodes = self.nodes()
        same = {node["applied_index"] for node in nodes}
        return len(nodes) == 3 and len(same) == 1 and not any(node["error"] for node in nodes)

    def leader(self):
        leaders = [node for node in self.nodes() if node["role"] == "leader"]
        return int(max(leaders, key=lambda node: node["term"])["node_id"])

    def bench(self, _):
        return ["--endpoints", self.endpoints()]


class Etcd(System):
    name, port = "etcd", 2379

    def command(self, host):
        members = ",".join(f"n{host}=http://{self.network.address(host)}:2380" for host in self.hosts)
        client, peer = f"http://{self.endpoint(host)}", f"http://{self.network.address(host)}:2380"
        return [
            self.options.etcd, "--name", f"n{host}", "--data-dir", os.path.join(self.work, f"etcd-{host}"), "--log-level", "error",
            "--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peer,
            "--initial-advertise-peer-urls", peer, "--initial-cluster", members,
            "--heartbeat-interval", str(HEARTBEAT_MS), "--election-timeout", str(self.options.election_ms),
        ]  # fmt: skip

    def control(self, *command):
        environment = {**os.environ, "ETCDCTL_API": "3"}
        return run(self.options.etcdctl, "--endpoints", self.endpoints(), *command, env=environment, stderr=subprocess.DEVNULL)

    def members(self):
        return [member["Status"] for member in json.loads(self.control("endpoint", "status", "--write-out", "json"))]

    def is_whole(self):
        self.control("endpoint", "health")
        members = self.members()
        return len(members) == 3 and len({member["leader"] for member in members}) == 1 and members[0]["leader"] != 0

    def leader(self):
        for host, member in zip(self.hosts, self.members()):
            if member["leader"] == member["header"]["member_id"]:
                return host
        sys.exit("isolation.py: etcd has no leader")

    def bench(self, leader):
        # A follower is asked: it forwards, and so meets the next leader first.
        follower = next(host for host in self.hosts if host != leader)
        return ["--system", "etcd", "--clients", "1", "--endpoints", self.endpoint(follower)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", required=True, help="trolley")
    parser.add_argument("--etcd", help="etcd; without it Trolley is alone")
    parser.add_argument("--etcdctl", help="etcdctl")
    parser.add_argument("--times", type=int, default=10, help="cut each leader off so often (%(default)s)")
    parser.add_argument("--election-ms", type=int, default=500, help="shortest election timeout (%(default)s)")
    options = parser.parse_args()
    if os.geteuid() != 0 or not shutil.which("ip"):
        sys.exit("isolation.py: network namespaces need root and `ip`")
    hosts = {Trolley: (1, 2, 3), Etcd: (4, 5, 6)}
    with tempfile.TemporaryDirectory() as work, Network([1, 2, 3, 4, 5, 6]) as network:
        systems = [Trolley(options, network, work, hosts[Trolley])]
        if options.etcd:
            systems.append(Etcd(options, network, work, hosts[Etcd]))
        try:
            for system in systems:
                system.start()
            for nth in range(1, options.times + 1):
                print(f"outage {nth} of {options.times} by isolation", file=sys.stderr)
                for system in systems:
                    print(json.dumps(system.measure()), flush=True)
        finally:
            for system in systems:
                system.stop()


if __name__ == "__main__":
    main()
