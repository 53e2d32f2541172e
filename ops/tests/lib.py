"""What the tests of this folder share: a scratch directory, the servers' user, processes that end with the test."""

import atexit
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import ssl as tls
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OPS = ROOT / "ops"
PATIENCE = 60  # seconds; ten times and more what a step takes on a slow machine
IS_ROOT = os.geteuid() == 0
PG_BIN = Path(os.environ["PG_BIN_DIR"])

# A run that is ended must still end its servers.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))


def program(name):
    """Where a program lies; daemons are not on everybody's PATH."""
    found = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    if not found:
        raise AssertionError(f"{name} is missing: run the tests through ops/tests/run, which installs it")
    return found


def as_servers(command):
    """A command run by the user whom the servers run as: PostgreSQL refuses root."""
    prefix = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"] if IS_ROOT else []
    return prefix + [str(word) for word in command]


def environment(**more):
    """Nothing of the caller's PG* variables: PGPASSWORD beats every password file."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "PATRONI"))}
    return kept | {"HOME": "/nonexistent", "PATH": f"{PG_BIN}:{os.environ['PATH']}:/usr/sbin:/sbin", "LC_ALL": "C"} | more


def run(command, check=True, stdin="", **variables):
    """Runs a command as the servers' user and returns its output."""
    done = subprocess.run(
        as_servers(command), input=stdin, text=True, capture_output=True, timeout=PATIENCE * 2,
        env=environment(**variables), cwd="/",
    )
    if check and done.returncode:
        raise AssertionError(f"{command} ended with {done.returncode}: {done.stdout}{done.stderr}")
    return done


def wait_for(what, condition, patience=PATIENCE):
    """Waits until the condition is true and returns its value; says what was seen last when it never is."""
    begun, last = time.monotonic(), None
    while time.monotonic() - begun < patience:
        try:
            last = condition()
            if last:
                return last
        except (OSError, AssertionError, subprocess.TimeoutExpired, ValueError, KeyError) as error:
            last = error
        time.sleep(0.1)
    raise AssertionError(f"not within {patience} s: {what}; last seen: {last}")


def free_ports(count):
    """Ports below the ephemeral range, on which a dead server's clients are refused and nothing else happens."""
    while True:
        first = random.randrange(20000, 30000)
        held = []
        try:
            for port in range(first, first + count):
                held.append(socket.socket())
                held[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                held[-1].bind(("127.0.0.1", port))
            return list(range(first, first + count))
        except OSError:
            continue
        finally:
            for one in held:
                one.close()


def substitute(text, replacements):
    """A shipped file for a scratch machine. Every replacement must have something to replace: else the file has
    changed and this test no longer runs what is shipped."""
    for old, new in replacements.items():
        if old not in text:
            raise AssertionError(f"the shipped file has no {old!r} any more")
        text = text.replace(old, str(new))
    return text


def secret():
    return os.urandom(12).hex()


class Scratch:
    """A directory that the servers' user owns, and the processes that work in it; both go at the end."""

    def __init__(self):
        memory = Path("/dev/shm")
        self.dir = Path(tempfile.mkdtemp(prefix="ops-", dir=memory if os.access(memory, os.W_OK) else None))
        self.dir.chmod(0o755)
        self.own(self.dir)
        self.processes = []
        self.data_dirs = []
        atexit.register(self.end)

    def own(self, path):
        if IS_ROOT:
            shutil.chown(path, "postgres", "postgres")

    def folder(self, name, mode=0o700):
        path = self.dir / name
        path.mkdir()
        path.chmod(mode)
        self.own(path)
        return path

    def file(self, name, text, mode=0o600):
        path = self.dir / name
        path.touch()
        path.chmod(mode)
        path.write_text(text)
        self.own(path)
        return path

    def start(self, command, log, **variables):
        """Starts a daemon of the servers' user in a session of its own."""
        with open(self.dir / log, "ab") as out:
            process = subprocess.Popen(
                as_servers(command), stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                env=environment(**variables), cwd=self.dir, start_new_session=True,
            )
        self.processes.append(process)
        return process

    def log(self, name, lines=15):
        return "".join((self.dir / name).read_text(errors="replace").splitlines(True)[-lines:])

    def certificate(self, name="localhost"):
        """A folder with server.crt, server.key and root.crt, made as the security guide says."""
        out = self.folder("tls") if not (self.dir / "tls").exists() else self.dir / "tls"
        issue = [str(OPS / "certificates/issue"), "--authority", str(self.dir / "authority")]
        subprocess.run(issue + ["--out", str(out), "--name", name, "--address", "127.0.0.1"], check=True,
                       capture_output=True, timeout=PATIENCE)
        return out

    def postmaster(self, data_dir):
        """The process id of the server in a data directory, or None."""
        try:
            pid = int((data_dir / "postmaster.pid").read_text().split("\n", 1)[0])
            works_in = os.readlink(f"/proc/{pid}/cwd")
        except (OSError, ValueError):
            return None
        return pid if Path(works_in) == data_dir else None

    def kill_server(self, data_dir):
        """A crash: every process of the server at once."""
        pid = self.postmaster(data_dir)
        if pid is None:
            return
        children = subprocess.run(["pgrep", "-P", str(pid)], text=True, capture_output=True).stdout.split()
        for one in [pid, *map(int, children)]:
            try:
                os.kill(one, signal.SIGKILL)
            except ProcessLookupError:
                pass
        wait_for(f"the end of process {pid}", lambda: not Path(f"/proc/{pid}/cwd").exists())
        # Where nobody reaps orphans, as in some containers, the dead process still has its number, and the next server
        # would take its locks for a live one's.
        (data_dir / "postmaster.pid").unlink(missing_ok=True)
        for lock in self.dir.glob("sockets/.s.PGSQL.*.lock"):
            if lock.read_text().split("\n", 1)[0] == str(pid):
                lock.unlink()

    def end(self):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait()
        for data_dir in self.data_dirs:
            self.kill_server(data_dir)
        self.processes.clear()
        # Dying servers still write for a moment.
        for _ in range(50):
            shutil.rmtree(self.dir, ignore_errors=True)
            if not self.dir.exists():
                break
            time.sleep(0.1)


def certificate_serial(address, *options):
    """Of the certificate that a server shows; `-starttls postgres` for PostgreSQL and PgBouncer."""
    shown = run(["openssl", "s_client", *options, "-connect", address], check=False)
    return run(["openssl", "x509", "-noout", "-serial"], stdin=shown.stdout).stdout


def psql(url, sql, check=True, **variables):
    """Runs SQL and returns the rows as text, columns separated by a bar."""
    command = [PG_BIN / "psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", sql, url]
    done = run(command, check=check, PGCONNECT_TIMEOUT="5", **variables)
    return done.stdout.rstrip("\n") if check else done


def https(url, root, user=None, password=None, body=None, method=None):
    """Asks an HTTPS address and returns status and JSON; an error status is an answer as well."""
    context = tls.create_default_context(cafile=str(root))
    request = urllib.request.Request(url, method=method, data=json.dumps(body).encode() if body else None)
    if user:
        import base64
        word = base64.b64encode(f"{user}:{password}".encode()).decode()
        request.add_header("Authorization", f"Basic {word}")
    try:
        with urllib.request.urlopen(request, timeout=30, context=context) as answer:
            status, text = answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        status, text = error.code, error.read().decode()
    try:
        return status, json.loads(text)
    except ValueError:
        return status, text


def settings(text):
    """The settings of a configuration fragment, by name."""
    return dict(re.findall(r"^(\w+) = '(.*)'$", text, re.MULTILINE))
