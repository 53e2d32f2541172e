"""ops/pgbouncer/pgbouncer.ini in front of one node of a local cluster: psql through it, and what it does not carry."""

import json
import os
import re
import subprocess
import unittest

from lib import OPS, PG_BIN, PATIENCE, Scratch, certificate_serial, environment, free_ports, program, psql, substitute, wait_for


class InFrontOfOneNode(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.scratch = scratch = Scratch()
        cls.addClassCleanup(scratch.end)
        cls.tls = scratch.certificate()
        (cls.port,) = free_ports(1)
        cls.cluster_dir = scratch.dir / "cluster"
        cls.cluster("up", "--replicas", "0", "--port", "0", "--no-fsync")
        cls.addClassCleanup(cls.cluster, "down", "--purge")
        node = json.loads(cls.cluster("status", "--json"))["nodes"][0]
        scratch.data_dirs.append(cls.cluster_dir / "pg1/data")
        exported = dict(re.findall(r"export (\w+)='(.*)'", cls.cluster("env")))
        cls.passwords = {
            "app": re.search(r"app:(\w+)@", exported["DATABASE_PRIMARY_URL"]).group(1),
            "monitor": exported["DATABASE_PROBE_PASSWORD"],
            "postgres": json.loads((cls.cluster_dir / "credentials.json").read_text())["superuser"],
        }
        cls.direct = f"host=127.0.0.1 port={node['port']} user={{}} dbname={{}}"
        # The command of userlist.txt.example's guide: the secrets as the server stores them.
        users = psql(cls.direct.format("postgres", "postgres"),
                     "SELECT format('\"%s\" \"%s\"', rolname, rolpassword) FROM pg_authid "
                     "WHERE rolname IN ('app', 'monitor', 'postgres')", PGPASSWORD=cls.passwords["postgres"])
        shape = [re.sub(r"\$4096:.*:.*\"", "$4096:SALT$STORED:SERVER\"", line) for line in users.splitlines()]
        example = (OPS / "pgbouncer/userlist.txt.example").read_text().splitlines()
        assert sorted(shape) == sorted(example), f"userlist.txt.example does not look like {shape}"
        scratch.file("userlist.txt", users + "\n")
        cls.sockets = scratch.folder("sockets")
        cls.shipped = substitute((OPS / "pgbouncer/pgbouncer.ini").read_text(), {
            "host=/var/run/postgresql port=5432": f"host=127.0.0.1 port={node['port']}",
            "listen_addr = 10.0.0.11": "listen_addr = 127.0.0.1",
            "listen_port = 6432": f"listen_port = {cls.port}",
            "unix_socket_dir = /var/run/postgresql": f"unix_socket_dir = {cls.sockets}",
            "/var/log/postgresql/pgbouncer.log": scratch.dir / "pgbouncer.log",
            "/var/run/postgresql/pgbouncer.pid": scratch.dir / "pgbouncer.pid",
            "/etc/pgbouncer/userlist.txt": scratch.dir / "userlist.txt",
            "/etc/postgresql/tls": cls.tls,
        })
        scratch.file("pgbouncer.ini", cls.shipped)
        cls.pooler = scratch.start([program("pgbouncer"), scratch.dir / "pgbouncer.ini"], "pgbouncer.out")
        wait_for("a query through PgBouncer", lambda: cls.through("app", "SELECT 1").stdout.strip() == "1")

    @classmethod
    def cluster(cls, *arguments):
        done = subprocess.run([os.environ["ROUTING_CLUSTER"], "--dir", str(cls.cluster_dir), *arguments],
                              text=True, capture_output=True, timeout=PATIENCE, env=environment(PG_BIN_DIR=str(PG_BIN)))
        if done.returncode:
            raise AssertionError(f"routing-cluster {arguments}: {done.stderr}")
        return done.stdout

    @classmethod
    def through(cls, user, sql, database="app", mode="verify-full", **variables):
        url = (f"host=127.0.0.1 port={cls.port} user={user} dbname={database} sslmode={mode} "
               f"sslrootcert={cls.tls}/root.crt")
        return psql(url, sql, check=False, PGPASSWORD=cls.passwords[user], **variables)

    def reload(self, text):
        (self.scratch.dir / "pgbouncer.ini").write_text(text)
        self.through("postgres", "RELOAD", database="pgbouncer")

    def test_it_carries_sessions_and_keeps_them_apart(self):
        self.through("app", "CREATE TABLE note (id int)")
        state = ("SET work_mem = '1234kB'; SELECT pg_advisory_lock(7); PREPARE one AS SELECT 1; "
                 "SHOW work_mem; EXECUTE one")
        self.assertEqual(self.through("app", state).stdout.split(), ["1234kB", "1"])
        left = "SELECT current_setting('work_mem') <> '1234kB' AND NOT EXISTS (SELECT FROM pg_prepared_statements)"
        self.assertEqual(self.through("app", left).stdout.strip(), "t")
        self.assertEqual(self.through("monitor", "SHOW POOLS", database="pgbouncer").returncode, 0)

    def test_it_wants_encryption_and_the_right_password(self):
        self.assertIn("SSL required", self.through("app", "SELECT 1", mode="disable").stderr)
        right, self.passwords["app"] = self.passwords["app"], "wrong"
        self.addCleanup(self.passwords.__setitem__, "app", right)
        self.assertNotEqual(self.through("app", "SELECT 1").returncode, 0)

    def test_a_new_certificate_is_shown_after_a_reload(self):
        serial = lambda: certificate_serial(f"127.0.0.1:{self.port}", "-starttls", "postgres")
        before = serial()
        self.scratch.certificate()
        self.through("postgres", "RELOAD", database="pgbouncer")
        wait_for("the new certificate", lambda: serial() != before)
        self.assertEqual(self.through("app", "SELECT 1").stdout.strip(), "1")

    def test_the_option_of_the_routers_read_pool_is_refused_or_lost(self):
        option = {"PGOPTIONS": "-c default_transaction_read_only=on"}
        show = "SHOW default_transaction_read_only"
        direct = psql(self.direct.format("app", "app"), show, PGPASSWORD=self.passwords["app"], **option)
        self.assertEqual(direct, "on")
        version = subprocess.run([program("pgbouncer"), "--version"], text=True, capture_output=True).stdout
        number = tuple(int(part) for part in re.search(r"(\d+)\.(\d+)", version).groups())
        if number < (1, 20):
            self.assertIn("unsupported startup parameter: options", self.through("app", show, **option).stderr)
            ignored = self.shipped.replace("extra_float_digits\n", "extra_float_digits, options\n")
            self.addCleanup(self.reload, self.shipped)
            self.reload(ignored)
            self.assertEqual(self.through("app", show, **option).stdout.strip(), "off")


if __name__ == "__main__":
    unittest.main(verbosity=2)
