"""ops/exporters with Debian's programs, as unprivileged processes: every metric of the table is there."""

import json
import os
import re
import shlex
import subprocess
import unittest
import urllib.request

from lib import OPS, PG_BIN, PATIENCE, Scratch, environment, free_ports, program, substitute, wait_for

FOLDER = OPS / "exporters"


def arguments(text):
    """A defaults file as systemd reads it: variables, and the words of ARGS."""
    variables = dict(part.split("=", 1) for part in shlex.split(text, comments=True))
    return variables, shlex.split(variables.pop("ARGS"))


class Exporters(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.scratch = scratch = Scratch()
        cls.addClassCleanup(scratch.end)
        cls.cluster_dir = scratch.dir / "cluster"
        cls.cluster("up", "--replicas", "1", "--port", "0", "--no-fsync", "--tls")
        cls.addClassCleanup(cls.cluster, "down", "--purge")
        nodes = json.loads(cls.cluster("status", "--json"))["nodes"]
        exported = dict(re.findall(r"export (\w+)='(.*)'", cls.cluster("env")))
        scratch.file("monitor.pass", exported["DATABASE_PROBE_PASSWORD"])
        cls.root = (scratch.file("root.crt", (cls.cluster_dir / "ca.crt").read_text(), 0o644))
        ports = free_ports(3)
        cls.texts = []
        for node, port in zip(nodes, ports):
            scratch.data_dirs.append(cls.cluster_dir / node["name"] / "data")
            variables, words = arguments(substitute((FOLDER / "prometheus-postgres-exporter").read_text(), {
                "localhost:5432": f"localhost:{node['port']}",
                "/etc/postgresql/tls/root.crt": cls.root,
                "DATA_SOURCE_PASS_FILE='/etc/prometheus/monitor.pass'":
                    f"DATA_SOURCE_PASS_FILE='{scratch.dir}/monitor.pass'",
                "10.0.0.11:9187": f"127.0.0.1:{port}",
            }))
            scratch.start([program("prometheus-postgres-exporter"), *words], f"{node['name']}.log", **variables)
        _, words = arguments(substitute((FOLDER / "prometheus-node-exporter").read_text(),
                                        {"10.0.0.11:9100": f"127.0.0.1:{ports[2]}"}))
        scratch.start([program("prometheus-node-exporter"), *words], "node.log")
        for port in ports:
            cls.texts.append(wait_for(f"metrics on port {port}", lambda: cls.metrics(port)))

    @classmethod
    def cluster(cls, *arguments):
        done = subprocess.run([os.environ["ROUTING_CLUSTER"], "--dir", str(cls.cluster_dir), *arguments],
                              text=True, capture_output=True, timeout=PATIENCE, env=environment(PG_BIN_DIR=str(PG_BIN)))
        if done.returncode:
            raise AssertionError(f"routing-cluster {arguments}: {done.stderr}")
        return done.stdout

    @classmethod
    def metrics(cls, port):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        return text if "pg_up 1" in text or "node_load1" in text else None

    def test_every_metric_of_the_table_is_there(self):
        primary, replica, machine = self.texts
        table = re.findall(r"^\| `(\w+)` \| ([^|]*) \|", (FOLDER / "README.md").read_text(), re.MULTILINE)
        self.assertGreater(len(table), 10)
        for name, source in table:
            text = machine if "node exporter" in source else replica if "replica" in source else primary
            self.assertRegex(text, rf"(?m)^{name}(\{{| )", f"{name} from the {source}")

    def test_the_scrape_has_no_error_and_sees_the_standby(self):
        primary = self.texts[0]
        self.assertIn("pg_exporter_last_scrape_error 0", primary)
        self.assertRegex(primary, r'pg_replication_slots_active\{.*slot_name="pg2"\} 1')

    def test_no_password_shows(self):
        password = (self.scratch.dir / "monitor.pass").read_text()
        for log in self.scratch.dir.glob("*.log"):
            self.assertNotIn(password, log.read_text())
        for process in self.scratch.processes:
            with open(f"/proc/{process.pid}/cmdline", "rb") as line:
                self.assertNotIn(password.encode(), line.read())


if __name__ == "__main__":
    unittest.main(verbosity=2)
