"""ops/systemd and the drop-ins of ops/exporters: systemd reads them without a complaint."""

import os
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

from lib import OPS, program, substitute


class Units(unittest.TestCase):
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="ops-units-"))
        self.addCleanup(shutil.rmtree, self.folder)

    def complaints(self, *units):
        """What systemd says of the units; the trailing colon keeps its own folders in the search."""
        done = subprocess.run([program("systemd-analyze"), "verify", *(str(self.folder / unit) for unit in units)],
                              text=True, capture_output=True,
                              env=os.environ | {"SYSTEMD_UNIT_PATH": f"{self.folder}:"})
        return done.stdout + done.stderr

    def test_the_restore_test_and_its_timer(self):
        service = substitute((OPS / "systemd/restore-test.service").read_text(),
                             {"/usr/local/sbin/restore-test": OPS / "restore-test"})
        (self.folder / "restore-test.service").write_text(service)
        shutil.copy(OPS / "systemd/restore-test.timer", self.folder)
        self.assertEqual(self.complaints("restore-test.service", "restore-test.timer"), "")

    def test_the_exporters_with_less_rights(self):
        for unit in ("prometheus-postgres-exporter.service", "prometheus-node-exporter.service"):
            shutil.copy(Path("/lib/systemd/system") / unit, self.folder)
            (self.folder / f"{unit}.d").mkdir()
            shutil.copy(OPS / "exporters/systemd/hardening.conf", self.folder / f"{unit}.d")
            self.assertEqual(self.complaints(unit), "")

    def test_what_is_wrong_is_seen(self):
        (self.folder / "restore-test.service").write_text("[Service]\nExecStart=/bin/true\nNoSuchSetting=1\n")
        self.assertIn("NoSuchSetting", self.complaints("restore-test.service"))


if __name__ == "__main__":
    unittest.main(verbosity=2)
