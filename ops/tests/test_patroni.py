"""ops/patroni/patroni.yml on three nodes with etcd: it forms a cluster, switches over, and survives its leader."""

import os
import signal
import sys
import time
import unittest
import urllib.error

import yaml
from lib import (OPS, PG_BIN, IS_ROOT, Scratch, certificate_serial, free_ports, https, program, psql, run, secret,
                 settings, substitute, wait_for)

SHIPPED = (OPS / "patroni/patroni.yml").read_text()
NODES = ["db1", "db2", "db3"]


class ThreeNodes(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.scratch = scratch = Scratch()
        cls.addClassCleanup(scratch.end)
        cls.tls = scratch.certificate()
        cls.secrets = {name: secret() for name in ("su", "repl", "rewind", "rest", "app", "monitor")}
        cls.sockets = scratch.folder("sockets")
        client, peer, *ports = free_ports(8)
        cls.etcd = f"127.0.0.1:{client}"
        cls.ports = dict(zip(NODES, ports))
        cls.rest = dict(zip(NODES, ports[3:]))
        cls.patroni = {}
        scratch.start(
            [program("etcd"), "--name", "e1", "--data-dir", scratch.folder("etcd"),
             "--listen-client-urls", f"https://{cls.etcd}", "--advertise-client-urls", f"https://{cls.etcd}",
             "--cert-file", cls.tls / "server.crt", "--key-file", cls.tls / "server.key",
             "--trusted-ca-file", cls.tls / "root.crt", "--client-cert-auth",
             "--listen-peer-urls", f"http://127.0.0.1:{peer}", "--initial-advertise-peer-urls",
             f"http://127.0.0.1:{peer}", "--initial-cluster", f"e1=http://127.0.0.1:{peer}"], "etcd.log")
        cls.begun = time.monotonic()
        for node in NODES:
            cls.start_node(node)
        cls.whole("from nothing")
        print(f"leader and two streaming replicas after {time.monotonic() - cls.begun:.1f} s", file=sys.stderr)

    @classmethod
    def data_dir(cls, node):
        return cls.scratch.dir / node

    @classmethod
    def start_node(cls, node):
        """The shipped file with this machine's addresses and paths."""
        number = NODES.index(node) + 1
        text = substitute(SHIPPED, {
            "name: db1 ": f"name: {node} ",
            "10.0.0.11:8008": f"127.0.0.1:{cls.rest[node]}",
            "10.0.0.11:5432": f"127.0.0.1:{cls.ports[node]}",
            "10.0.0.21:2379,10.0.0.22:2379,10.0.0.23:2379": cls.etcd,
            "/etc/postgresql/tls": cls.tls,
            "/usr/lib/postgresql/15/bin": PG_BIN,
            "/var/lib/postgresql/15/shop": cls.data_dir(node),
            "/var/lib/postgresql/patroni.pass": cls.scratch.dir / f"{node}.pass",
            "/var/run/postgresql": cls.sockets,
            "10.0.0.0/24": "127.0.0.1/32",
            "10.0.1.0/24": "127.0.0.1/32",
            # Memory that this machine may not have.
            "shared_buffers: 4GB": "shared_buffers: 64MB",
        })
        if not IS_ROOT:
            # `peer` wants the operating-system user postgres.
            text = text.replace("postgres                    peer", "postgres                    scram-sha-256")
            text = text.replace("auth-local: peer", "auth-local: trust")
        config = cls.scratch.dir / f"{node}.yml"
        if not config.exists():
            cls.scratch.file(f"{node}.yml", text)
            cls.scratch.data_dirs.append(cls.data_dir(node))
        cls.patroni[node] = cls.scratch.start(
            [os.environ["PATRONI"], config], f"{node}.log", HOME=str(cls.scratch.dir),
            PATRONI_SUPERUSER_PASSWORD=cls.secrets["su"], PATRONI_REPLICATION_PASSWORD=cls.secrets["repl"],
            PATRONI_REWIND_PASSWORD=cls.secrets["rewind"],
            PATRONI_RESTAPI_USERNAME="patroni", PATRONI_RESTAPI_PASSWORD=cls.secrets["rest"])

    @classmethod
    def ask(cls, path, **more):
        """Any member that answers."""
        for node in NODES:
            try:
                return https(f"https://127.0.0.1:{cls.rest[node]}{path}", cls.tls / "root.crt", **more)
            except (urllib.error.URLError, OSError):
                continue
        raise AssertionError("no member answers\n" + cls.scratch.log("db1.log"))

    @classmethod
    def members(cls):
        return {member["name"]: member for member in cls.ask("/cluster")[1]["members"]}

    @classmethod
    def leader(cls):
        return next(name for name, member in cls.members().items() if member["role"] == "leader")

    @classmethod
    def whole(cls, when):
        def look():
            members = cls.members()
            states = sorted((member["role"], member["state"]) for member in members.values())
            roles = [role for role, _ in states]
            return (roles == ["leader", "quorum_standby", "quorum_standby"]
                    and [state for _, state in states] == ["running", "streaming", "streaming"])
        try:
            wait_for(f"a leader and two streaming replicas {when}", look)
        except AssertionError as error:
            logs = "\n".join(f"--- {node}\n{cls.scratch.log(f'{node}.log')}" for node in NODES)
            raise AssertionError(f"{error}\n{logs}") from None

    @classmethod
    def superuser(cls, node, sql):
        return psql(f"host={cls.sockets} port={cls.ports[node]} user=postgres dbname=postgres", sql,
                    PGPASSWORD=cls.secrets["su"])

    @classmethod
    def url(cls, node, user, database):
        return (f"host=127.0.0.1 port={cls.ports[node]} user={user} dbname={database} "
                f"sslmode=verify-full sslrootcert={cls.tls}/root.crt")

    def test_1_it_runs_with_the_settings_and_rules_of_this_folder(self):
        leader = self.leader()
        shipped = settings((OPS / "postgresql/primary.conf").read_text())
        # Patroni listens where its own file says; the test gives little memory and other paths.
        for name in ("listen_addresses", "shared_buffers", "ssl_cert_file", "ssl_key_file"):
            del shipped[name]
        config = yaml.safe_load(SHIPPED)
        given = config["bootstrap"]["dcs"]["postgresql"]["parameters"]
        self.assertEqual({name: str(given.get(name)) for name in shipped}, shipped, "patroni.yml and primary.conf differ")
        rules = [line.split() for line in (OPS / "postgresql/pg_hba.conf").read_text().splitlines()
                 if line and not line.startswith("#")]
        self.assertEqual([line.split() for line in config["postgresql"]["pg_hba"]], rules)
        shipped["wal_compression"] = "pglz"  # what the server makes of "on"
        for node in NODES:
            for name, value in shipped.items():
                # Over a socket of the file system keepalives show as 0.
                shown = f"SELECT setting FROM pg_file_settings WHERE name = '{name}'" if "keepalive" in name else f"SHOW {name}"
                self.assertEqual(self.superuser(node, shown), value, f"{name} on {node}")
            self.assertEqual(self.superuser(node, "SELECT count(*) FROM pg_hba_file_rules WHERE error IS NOT NULL"), "0")
        self.assertEqual(self.superuser(leader, "SELECT count(*) FROM pg_replication_slots WHERE active"), "2")
        self.assertEqual(self.superuser(leader, "SHOW synchronous_standby_names"), "ANY 1 (" + ",".join(
            node for node in NODES if node != leader) + ")")

    def test_2_the_roles_have_what_they_need_and_no_more(self):
        leader = self.leader()
        variables = {f"{role.upper()}_PASSWORD": self.secrets[key] for role, key in (
            ("app", "app"), ("monitor", "monitor"), ("replicator", "repl"), ("rewinder", "rewind"))}
        run([PG_BIN / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", "-",
             f"host={self.sockets} port={self.ports[leader]} user=postgres dbname=postgres"],
            stdin=(OPS / "postgresql/roles.sql").read_text(), PGPASSWORD=self.secrets["su"], **variables)
        psql(self.url(leader, "app", "app"), "CREATE TABLE note (id bigserial PRIMARY KEY)",
             PGPASSWORD=self.secrets["app"])
        supers = self.superuser(leader, "SELECT string_agg(rolname, ',') FROM pg_roles WHERE rolsuper")
        self.assertEqual(supers, "postgres")
        for user, database, key, expected in (
            ("app", "postgres", "app", "pg_hba.conf"), ("postgres", "postgres", "su", "pg_hba.conf"),
            ("replicator", "app", "repl", "pg_hba.conf"), ("rewinder", "app", "rewind", "pg_hba.conf"),
        ):
            refused = psql(self.url(leader, user, database), "SELECT 1", check=False, PGPASSWORD=self.secrets[key])
            self.assertNotEqual(refused.returncode, 0)
            self.assertIn(expected, refused.stderr)
        plain = self.url(leader, "app", "app").replace("verify-full", "disable")
        self.assertIn("no encryption", psql(plain, "SELECT 1", check=False, PGPASSWORD=self.secrets["app"]).stderr)
        denied = psql(self.url(leader, "monitor", "app"), "SELECT * FROM note", check=False,
                      PGPASSWORD=self.secrets["monitor"])
        self.assertIn("permission denied", denied.stderr)

    def test_3_new_certificates_are_shown_after_a_reload(self):
        node = self.leader()
        rest = lambda: certificate_serial(f"127.0.0.1:{self.rest[node]}")
        server = lambda: certificate_serial(f"127.0.0.1:{self.ports[node]}", "-starttls", "postgres")
        before = rest(), server()
        self.assertEqual(before[0], before[1])
        self.scratch.certificate()
        status, _ = https(f"https://127.0.0.1:{self.rest[node]}/reload", self.tls / "root.crt", body={}, method="POST",
                          user="patroni", password=self.secrets["rest"])
        self.assertEqual(status, 202)
        wait_for("new certificates", lambda: rest() != before[0] and server() != before[1])

    def test_4_a_switchover_moves_the_leader(self):
        old = self.leader()
        new = next(node for node in NODES if node != old)
        request = {"leader": old, "candidate": new}
        status, _ = self.ask("/switchover", body=request, method="POST")
        self.assertEqual(status, 401, "a change without the password")
        begun = time.monotonic()
        status, text = self.ask("/switchover", body=request, method="POST", user="patroni",
                                password=self.secrets["rest"])
        logs = "\n".join(self.scratch.log(f"{node}.log") for node in NODES)
        self.assertEqual(status, 200, f"{text}\n{logs}")
        self.whole("after the switchover")
        self.assertEqual(self.leader(), new)
        print(f"switchover: whole again after {time.monotonic() - begun:.1f} s", file=sys.stderr)

    def test_5_the_leader_is_killed_and_nothing_confirmed_is_lost(self):
        old = self.leader()
        acknowledged = 0
        for _ in range(20):
            psql(self.url(old, "app", "app"), "INSERT INTO note DEFAULT VALUES", PGPASSWORD=self.secrets["app"])
            acknowledged += 1
        self.patroni[old].kill()
        self.patroni[old].wait()
        self.scratch.kill_server(self.data_dir(old))
        begun = time.monotonic()
        new = wait_for("another leader", lambda: next(
            (name for name, member in self.members().items() if member["role"] == "leader" and name != old), None))
        wait_for("a write on it", lambda: psql(
            self.url(new, "app", "app"), "INSERT INTO note DEFAULT VALUES RETURNING 1",
            check=False, PGPASSWORD=self.secrets["app"]).returncode == 0)
        print(f"leader killed: written again after {time.monotonic() - begun:.1f} s", file=sys.stderr)
        found = int(psql(self.url(new, "app", "app"), "SELECT count(*) FROM note", PGPASSWORD=self.secrets["app"]))
        self.assertGreaterEqual(found, acknowledged + 1)
        self.start_node(old)
        self.whole("after the killed leader returned")


if __name__ == "__main__":
    unittest.main(verbosity=2)
