"""ops/restore-test on a real backup: it proves a good one, and fails on an old one and on none."""

import os
import re
import subprocess
import unittest

from lib import OPS, PATIENCE, PG_BIN, Scratch, environment, psql


class RestoreTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.scratch = scratch = Scratch()
        cls.addClassCleanup(scratch.end)
        cls.cluster_dir = scratch.dir / "cluster"
        cls.cluster("up", "--replicas", "0", "--port", "0", "--no-fsync", "--archive")
        cls.addClassCleanup(cls.cluster, "down", "--purge")
        scratch.data_dirs.append(cls.cluster_dir / "pg1/data")
        url = re.search(r"DATABASE_PRIMARY_URL='[^=]*=([^']*)'", cls.cluster("env")).group(1)
        psql(url, "CREATE TABLE orders (id serial, created_at timestamptz DEFAULT now()); "
                  "INSERT INTO orders SELECT FROM generate_series(1, 1000)")
        cls.cluster("backup", "--to", str(scratch.dir / "backups"))

    @classmethod
    def cluster(cls, *arguments):
        done = subprocess.run([os.environ["ROUTING_CLUSTER"], "--dir", str(cls.cluster_dir), *arguments],
                              text=True, capture_output=True, timeout=PATIENCE, env=environment(PG_BIN_DIR=str(PG_BIN)))
        if done.returncode:
            raise AssertionError(f"routing-cluster {arguments}: {done.stderr}")
        return done.stdout

    def restore_test(self, **more):
        variables = {
            "RESTORE_FROM": str(self.scratch.dir / "backups"), "RESTORE_SCRATCH": str(self.scratch.dir / "scratch"),
            "RESTORE_CHECK": "SELECT extract(epoch FROM now() - max(created_at)) FROM orders",
            "RESTORE_METRICS": str(self.scratch.dir / "restore_test.prom"), "PG_BIN_DIR": str(PG_BIN),
            "ROUTING_CLUSTER": os.environ["ROUTING_CLUSTER"]} | more
        done = subprocess.run([str(OPS / "restore-test")], text=True, capture_output=True, timeout=PATIENCE * 2,
                              env=environment(**variables), cwd=self.scratch.dir)
        self.assertFalse((self.scratch.dir / "scratch/cluster").exists(), "the scratch server is removed in any case")
        return done

    def test_a_good_backup_is_proven_and_noted(self):
        done = self.restore_test()
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("bytes of dump", done.stdout)
        noted = (self.scratch.dir / "restore_test.prom").read_text()
        self.assertRegex(noted, r"(?m)^restore_test_last_success_timestamp_seconds \d{10}$")

    def test_rows_that_are_too_old_fail(self):
        done = self.restore_test(RESTORE_MAX_AGE="-1", RESTORE_METRICS=str(self.scratch.dir / "old.prom"))
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("the newest row is", done.stderr)
        self.assertFalse((self.scratch.dir / "old.prom").exists())

    def test_no_backup_fails(self):
        self.assertNotEqual(self.restore_test(RESTORE_FROM=str(self.scratch.dir / "nowhere")).returncode, 0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
