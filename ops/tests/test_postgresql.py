"""ops/postgresql on three servers of their own, with the commands of the runbook and of the security guide."""

import re
import time
import unittest

from lib import IS_ROOT, OPS, PG_BIN, Scratch, certificate_serial, free_ports, psql, run, secret, substitute, wait_for

FOLDER = OPS / "postgresql"


class ThreeServers(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.scratch = scratch = Scratch()
        cls.addClassCleanup(scratch.end)
        cls.tls = scratch.certificate()
        cls.sockets = scratch.folder("sockets")
        cls.ports = dict(zip(("db1", "db2", "db3"), free_ports(3)))
        cls.secrets = {role: secret() for role in ("app", "monitor", "replicator", "rewinder", "postgres")}
        cls.passfile = scratch.dir / "replication.pass"
        cls.write_passfile()
        data = cls.data_dir("db1")
        password = scratch.file("superuser", cls.secrets["postgres"])
        run([PG_BIN / "initdb", "--pgdata", data, "--username", "postgres", "--pwfile", password, "--data-checksums",
             "--encoding", "UTF8", "--locale", "C", "--auth", "scram-sha-256", "--no-sync"])
        cls.configure("db1", "primary.conf")
        cls.pg_ctl("db1", "start")
        run([PG_BIN / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", "-", cls.socket("db1")], stdin=(FOLDER / "roles.sql").read_text(),
            PGPASSWORD=cls.secrets["postgres"],
            **{f"{role.upper()}_PASSWORD": password for role, password in cls.secrets.items()})
        cls.join("db2", "db1")
        cls.join("db3", "db1")

    @classmethod
    def data_dir(cls, node):
        path = cls.scratch.dir / node
        if path not in cls.scratch.data_dirs:
            cls.scratch.data_dirs.append(path)
        return path

    @classmethod
    def write_passfile(cls):
        lines = [f"127.0.0.1:*:*:{role}:{cls.secrets[role]}\n" for role in ("replicator", "rewinder")]
        cls.scratch.file("replication.pass", "".join(lines))

    @classmethod
    def configure(cls, node, fragment):
        """The shipped files with this machine's addresses, paths and memory."""
        data = cls.data_dir(node)
        text = substitute((FOLDER / fragment).read_text(), {
            "listen_addresses = '*'": "listen_addresses = '127.0.0.1'",
            "shared_buffers = '4GB'": "shared_buffers = '64MB'",
            "/etc/postgresql/tls": cls.tls,
        })
        cls.scratch.file(f"{node}/fragment.conf", text + (
            f"port = {cls.ports[node]}\nunix_socket_directories = '{cls.sockets}'\nfsync = off\n"))
        main = (data / "postgresql.conf").read_text()
        if "include 'fragment.conf'" not in main:
            cls.scratch.file(f"{node}/postgresql.conf", main + "\ninclude 'fragment.conf'\n")
        rules = substitute((FOLDER / "pg_hba.conf").read_text(), {
            "10.0.0.0/24 ": "127.0.0.1/32", "10.0.1.0/24 ": "127.0.0.1/32"})
        # `peer` wants the operating-system user postgres.
        cls.scratch.file(f"{node}/pg_hba.conf", rules if IS_ROOT else rules.replace("peer", "scram-sha-256"))

    @classmethod
    def pg_ctl(cls, node, *action):
        log = ["--log", cls.scratch.dir / f"{node}.log"] if action[0] == "start" else []
        done = run([PG_BIN / "pg_ctl", *action, "--wait", "--pgdata", cls.data_dir(node), *log], check=False)
        if done.returncode:
            raise AssertionError(f"pg_ctl {action}: {done.stderr}{cls.scratch.log(f'{node}.log')}")

    @classmethod
    def conninfo(cls, upstream, user, more=""):
        return (f"host=127.0.0.1 port={cls.ports[upstream]} user={user} passfile={cls.passfile} "
                f"sslmode=verify-full sslrootcert={cls.tls}/root.crt {more}")

    @classmethod
    def join(cls, node, upstream):
        """The runbook's way to add a replica."""
        run([PG_BIN / "pg_basebackup", "--pgdata", cls.data_dir(node), "--write-recovery-conf", "--wal-method", "stream",
             "--create-slot", "--slot", node, "--checkpoint", "fast", "--no-sync",
             "--dbname", cls.conninfo(upstream, "replicator", f"application_name={node}")])
        cls.configure(node, "replica.conf")
        cls.pg_ctl(node, "start")
        wait_for(f"{node} streams", lambda: cls.superuser(
            upstream, f"SELECT state FROM pg_stat_replication WHERE application_name = '{node}'") == "streaming")

    @classmethod
    def socket(cls, node):
        return f"host={cls.sockets} port={cls.ports[node]} user=postgres dbname=postgres"

    @classmethod
    def superuser(cls, node, sql):
        return psql(cls.socket(node), sql, PGPASSWORD=cls.secrets["postgres"])

    @classmethod
    def as_role(cls, node, role, database, sql, check=True, mode="verify-full"):
        url = (f"host=127.0.0.1 port={cls.ports[node]} user={role} dbname={database} sslmode={mode} "
               f"sslrootcert={cls.tls}/root.crt")
        return psql(url, sql, check=check, PGPASSWORD=cls.secrets[role])

    def test_1_the_files_are_loaded_without_a_complaint(self):
        for node in ("db1", "db2"):
            self.assertEqual(self.superuser(node, "SELECT name, error FROM pg_file_settings WHERE error IS NOT NULL"), "")
            self.assertEqual(self.superuser(node, "SELECT line_number, error FROM pg_hba_file_rules WHERE error <> ''"), "")
            self.assertEqual(self.superuser(node, "SHOW ssl"), "on")
        streams = self.superuser("db1", "SELECT ssl, version FROM pg_stat_ssl JOIN pg_stat_replication USING (pid)")
        self.assertTrue(streams.startswith("t|TLSv1."), streams)

    def test_2_each_role_gets_where_it_must_and_nowhere_else(self):
        self.as_role("db1", "app", "app", "CREATE TABLE note (id int); INSERT INTO note VALUES (1)")
        self.assertEqual(self.as_role("db1", "monitor", "app", "SELECT count(*) > 0 FROM pg_stat_replication "
                                                                "WHERE state = 'streaming'"), "t")
        for role, database, mode, words in (
            ("app", "postgres", "verify-full", "pg_hba.conf rejects"),
            ("postgres", "postgres", "verify-full", "pg_hba.conf rejects"),
            ("replicator", "app", "verify-full", "pg_hba.conf rejects"),
            ("rewinder", "app", "verify-full", "pg_hba.conf rejects"),
            ("app", "app", "disable", "no encryption"),
        ):
            refused = self.as_role("db1", role, database, "SELECT 1", check=False, mode=mode)
            self.assertIn(words, refused.stderr, f"{role} to {database} with sslmode={mode}")
        for role, sql in (("monitor", "SELECT * FROM note"), ("app", "SELECT pg_read_file('PG_VERSION')"),
                          ("app", "CREATE ROLE other"), ("monitor", "SELECT pg_reload_conf()")):
            self.assertIn("permission denied", self.as_role("db1", role, "app", sql, check=False).stderr, f"{role}: {sql}")

    def test_3_a_new_certificate_is_shown_after_a_reload(self):
        serial = lambda: certificate_serial(f"127.0.0.1:{self.ports['db1']}", "-starttls", "postgres")
        before = serial()
        self.scratch.certificate()
        self.assertEqual(serial(), before, "the server reads the file only when it is told")
        self.superuser("db1", "SELECT pg_reload_conf()")
        wait_for("the new certificate", lambda: serial() != before)
        self.assertEqual(self.as_role("db1", "app", "app", "SELECT 1"), "1")

    def test_4_a_replica_goes_on_when_the_replication_password_changes(self):
        self.secrets["replicator"] = secret()
        self.superuser("db1", f"ALTER ROLE replicator PASSWORD '{self.secrets['replicator']}'")
        self.write_passfile()
        # The connection that is there stays; a new one reads the file again.
        receiver = self.superuser("db2", "SELECT pid FROM pg_stat_wal_receiver")
        self.superuser("db1", "SELECT pg_terminate_backend(pid) FROM pg_stat_replication")
        wait_for("a new connection that streams", lambda: self.superuser(
            "db2", f"SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming' AND pid <> {receiver}") == "1")

    def test_5_a_second_login_lets_the_applications_password_change_without_a_gap(self):
        self.secrets["app_2"] = secret()
        self.superuser("db1", f"CREATE ROLE app_2 LOGIN PASSWORD '{self.secrets['app_2']}' IN ROLE app")
        self.superuser("db1", "ALTER ROLE app_2 SET role = app")
        self.as_role("db1", "app_2", "app", "CREATE TABLE made_by_2 (id int)")
        self.assertEqual(self.as_role("db1", "app", "app", "SELECT tableowner FROM pg_tables "
                                                           "WHERE tablename = 'made_by_2'"), "app")
        # Everybody has moved to app_2: the old password is of no use any more.
        self.superuser("db1", "ALTER ROLE app PASSWORD NULL")
        self.assertIn("password authentication failed",
                      self.as_role("db1", "app", "app", "SELECT 1", check=False).stderr)
        self.superuser("db1", f"ALTER ROLE app PASSWORD '{self.secrets['app']}'")

    def follow(self, node, upstream):
        """Another primary for a replica that runs: it goes on from where it is, on the new timeline."""
        slots = f"SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{node}'"
        if self.superuser(upstream, slots) == "0":
            self.superuser(upstream, f"SELECT pg_create_physical_replication_slot('{node}', true)")
        follow = self.conninfo(upstream, "replicator", f"application_name={node}").replace("'", "''")
        self.superuser(node, f"ALTER SYSTEM SET primary_conninfo = '{follow}'")
        self.superuser(node, "SELECT pg_reload_conf()")

    def streams(self, node, upstream):
        wait_for(f"{node} streams from {upstream}", lambda: self.superuser(
            upstream, f"SELECT state FROM pg_stat_replication WHERE application_name = '{node}'") == "streaming")

    def test_6_a_lost_primary_is_replaced_and_comes_back_without_a_superuser(self):
        self.scratch.kill_server(self.data_dir("db1"))
        begun = time.monotonic()
        self.pg_ctl("db2", "promote")
        self.as_role("db2", "app", "app", "INSERT INTO note VALUES (2)")
        print(f"promoted and written after {time.monotonic() - begun:.2f} s")
        self.follow("db3", "db2")
        self.streams("db3", "db2")
        self.superuser("db2", "CHECKPOINT")
        self.superuser("db2", "SELECT pg_create_physical_replication_slot('db1', true)")
        rewound = run([PG_BIN / "pg_rewind", "--target-pgdata", self.data_dir("db1"), "--write-recovery-conf", "--no-sync",
                       "--source-server", self.conninfo("db2", "rewinder", "dbname=postgres application_name=db1")])
        self.assertIn("pg_rewind: Done!", rewound.stdout + rewound.stderr)
        # The rewind copied db2's files and wrote down whom it has asked, as whom: the replication role must take over.
        self.configure("db1", "replica.conf")
        follow = self.conninfo("db2", "replicator", "application_name=db1")
        self.scratch.file("db1/postgresql.auto.conf",
                          f"primary_conninfo = '{follow}'\nprimary_slot_name = 'db1'\n")
        self.pg_ctl("db1", "start")
        self.streams("db1", "db2")
        for node in ("db1", "db3"):
            wait_for(f"{node} has both rows",
                     lambda: self.as_role(node, "app", "app", "SELECT count(*) FROM note") == "2")

    def test_7_a_planned_change_loses_nothing(self):
        self.pg_ctl("db2", "stop", "--mode", "fast")
        control = run([PG_BIN / "pg_controldata", self.data_dir("db2")]).stdout
        self.assertIn("shut down\n", control)
        end = re.search(r"Latest checkpoint location:\s+(\S+)", control).group(1)
        wait_for("db1 has the last checkpoint", lambda: self.superuser(
            "db1", f"SELECT pg_last_wal_replay_lsn() > '{end}'") == "t")
        self.pg_ctl("db1", "promote")
        self.follow("db3", "db1")
        # The old primary ended cleanly on the timeline that its successor continues: no rewind is needed.
        self.superuser("db1", "SELECT pg_create_physical_replication_slot('db2', true)")
        self.scratch.file("db2/standby.signal", "")
        follow = self.conninfo("db1", "replicator", "application_name=db2")
        self.scratch.file("db2/postgresql.auto.conf",
                          f"primary_conninfo = '{follow}'\nprimary_slot_name = 'db2'\n")
        self.pg_ctl("db2", "start")
        self.as_role("db1", "app", "app", "INSERT INTO note VALUES (3)")
        for node in ("db2", "db3"):
            self.streams(node, "db1")
            wait_for(f"{node} has all rows",
                     lambda: self.as_role(node, "app", "app", "SELECT count(*) FROM note") == "3")

    def test_8_a_replica_that_leaves_takes_its_slot_along(self):
        self.pg_ctl("db3", "stop")
        self.superuser("db1", "SELECT pg_drop_replication_slot('db3')")
        self.assertEqual(self.superuser("db1", "SELECT string_agg(slot_name, ',' ORDER BY 1) FROM pg_replication_slots"),
                         "db2")


if __name__ == "__main__":
    unittest.main(verbosity=2)
