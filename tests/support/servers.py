"""Private servers for tests: each on a free loopback port, with a directory of its own.

A test may stop, kill or pause them at will: nobody else uses them. They end with the process
that started them, also when that is killed::

    with RedisServer() as redis:
        redis.pause()
"""

from __future__ import annotations

import atexit
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar, NoReturn, Self

import psutil
import pytest

from tests.support.programs import (
    ServerError,
    find_program,
    is_alive,
    is_root,
    primary_group,
    program,
    user_exists,
)

START_SECONDS = 60.0

STOP_SECONDS = 20.0


class Server:
    """What the servers share: the process, its directory and its port.

    The port and the data survive `stop` and `kill`, so that `start` brings the same server back.
    `close` ends both.
    """

    user: ClassVar[str]  # whom the server runs as when the tests run as root
    programs: ClassVar[Sequence[str]]
    modules: ClassVar[Sequence[str]] = ()
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM

    def __init__(self, *options: str) -> None:
        """`options` are more arguments for the server, such as `"--maxmemory", "1mb"`."""
        self.options = options
        self.port = free_port()
        self.directory = Path(tempfile.mkdtemp(prefix=f"llmcache-{type(self).__name__.lower()}-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()
        if is_root():
            shutil.chown(self.directory, self.user)
        atexit.register(self.close)

    @classmethod
    def available(cls) -> str | None:
        """Why this server cannot run here, or None when it can."""
        for name in cls.programs:
            if find_program(name) is None:
                return f"{cls.__name__}: {name} is not installed; `make services` installs it"
        for module in cls.modules:
            if find_spec(module) is None:
                return f"{cls.__name__}: {module} is not installed; `make services` installs it"
        if is_root() and not user_exists(cls.user):
            return f"{cls.__name__}: there is no user {cls.user} that it could run as"
        return None

    @property
    def url(self) -> str:
        raise NotImplementedError

    @property
    def log(self) -> str:
        """What the server has written so far."""
        with suppress(FileNotFoundError):
            return (self.directory / "log").read_text(errors="replace")
        return ""

    @property
    def running(self) -> bool:
        """Whether the process is there, paused or not."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Return once the server answers.

        The thread that calls this must stay: with its end the kernel ends the server.
        """
        if self.running:
            return self
        self._prepare()
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._as_user(self._command()),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                start_new_session=True,  # Ctrl-C is for the tests, not for the server
            )
        self._wait_until_it_answers()
        return self

    def stop(self) -> None:
        """Shut down as an operator would."""
        if not self.running:
            return
        self.resume()
        family = self._family()
        self._signal(self.stop_signal, family[:1])
        if not self._wait_until_gone(family):
            self.kill()

    def kill(self) -> None:
        """End it without a chance to tidy up (SIGKILL)."""
        family = self._family()
        self._signal(signal.SIGKILL, family)
        self._wait_until_gone(family)

    def pause(self) -> None:
        """Stop all its processes where they are (SIGSTOP): connections stay open, none answers."""
        # The parent first: it must not start a child that is missed.
        self._signal(signal.SIGSTOP, self._family()[:1])
        self._signal(signal.SIGSTOP, self._family()[1:])

    def resume(self) -> None:
        """Let all its processes go on (SIGCONT)."""
        self._signal(signal.SIGCONT, self._family())

    def close(self) -> None:
        """End it and remove its directory."""
        if os.getpid() != self._owner:
            return  # a fork inherits the object and the exit handler, but not the server
        atexit.unregister(self.close)
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _prepare(self) -> None:
        """Make the data directory when there is none yet."""

    def _command(self) -> list[str]:
        raise NotImplementedError

    def _answers(self) -> bool:
        raise NotImplementedError

    def _run(self, *command: str) -> None:
        done = subprocess.run(
            self._as_user(command),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            cwd=self.directory,
            timeout=START_SECONDS,
        )
        if done.returncode:
            output = (done.stdout + done.stderr).decode(errors="replace")
            raise ServerError(f"{command[0]} failed:\n{output}")

    def _as_user(self, command: Sequence[str]) -> list[str]:
        """`command` as a process that dies with ours, and without root's rights."""
        setpriv = shutil.which("setpriv")
        if setpriv is None:  # not Linux
            return list(command)
        # setpriv becomes the command, so the process id is the server's own. A change of user
        # after this point would clear the parent-death signal, so the servers may not do it.
        change = (
            [f"--reuid={self.user}", f"--regid={primary_group(self.user)}", "--init-groups"]
            if is_root()
            else []
        )
        return [setpriv, "--pdeathsig=KILL", *change, "--", *command]

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if not self.running:
                self._fail("ended while it started")
            if self._answers():
                return
            time.sleep(0.05)
        self.kill()
        self._fail(f"did not answer within {START_SECONDS:g} seconds")

    def _fail(self, what: str) -> NoReturn:
        raise ServerError(f"{type(self).__name__} on port {self.port} {what}. Its log:\n{self.log}")

    def _family(self) -> list[psutil.Process]:
        """The server and its children. Not its process group: PostgreSQL's children leave that."""
        if self._process is None or not self.running:
            return []
        with suppress(psutil.NoSuchProcess):
            parent = psutil.Process(self._process.pid)
            return [parent, *parent.children(recursive=True)]
        return []

    def _signal(self, number: signal.Signals, family: Sequence[psutil.Process]) -> None:
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def _wait_until_gone(self, family: Sequence[psutil.Process]) -> bool:
        """Whether all of `family` ended in time. Until then the port and the data are in use."""
        deadline = time.monotonic() + STOP_SECONDS
        while any(map(is_alive, family)):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        if self._process is not None:
            self._process.wait(STOP_SECONDS)
        return True


class RedisServer(Server):
    """Redis, keeping nothing on disk: it comes back empty."""

    user = "nobody"
    programs = ["redis-server"]

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def _command(self) -> list[str]:
        return [
            program("redis-server"),
            *("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.directory)),
            *("--save", "", "--appendonly", "no", "--daemonize", "no"),
            *self.options,
        ]

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                # Any answer will do: with a password set it is an error, but an answer.
                return connection.recv(16)[:1] in (b"+", b"-")
        except OSError:
            return False


class ClusterNode(RedisServer):
    """A node of a Redis Cluster, which comes back with what it had when it was told to `save`."""

    programs = ["redis-server", "redis-cli"]

    def __init__(self, *options: str) -> None:
        self.bus_port = free_port()
        super().__init__(
            *("--save", "3600 1000000", "--cluster-enabled", "yes"),
            *("--cluster-port", str(self.bus_port), "--cluster-node-timeout", "1000"),
            *options,
        )


def join_cluster(nodes: Sequence[ClusterNode]) -> None:
    """Make a Cluster of `nodes`, at least three, each with a part of the keys."""
    addresses = [f"127.0.0.1:{node.port}" for node in nodes]
    create = [program("redis-cli"), "--cluster", "create", *addresses, "--cluster-yes"]
    subprocess.run(create, check=True, capture_output=True, timeout=START_SECONDS)


class MemcachedServer(Server):
    """Memcached, which cannot tell what it holds."""

    user = "nobody"
    programs = ["memcached"]

    @property
    def url(self) -> str:
        return f"127.0.0.1:{self.port}"

    def _command(self) -> list[str]:
        return [program("memcached"), "--listen=127.0.0.1", f"--port={self.port}", *self.options]

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"version\r\n")
                return connection.recv(7) == b"VERSION"
        except OSError:
            return False


class PostgreSQLServer(Server):
    """PostgreSQL; the user `postgres` is let in without a password."""

    user = "postgres"
    programs = ["initdb", "postgres"]
    modules = ["psycopg"]
    stop_signal = signal.SIGINT  # "fast": SIGTERM would wait for the clients to leave

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    @property
    def _data(self) -> Path:
        return self.directory / "data"

    def _prepare(self) -> None:
        if not self._data.exists():
            self._run(
                program("initdb"),
                *("--pgdata", str(self._data), "--username", "postgres", "--auth", "trust"),
                *("--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync"),
            )

    def _command(self) -> list[str]:
        settings = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": self.directory,
            "max_connections": 200,
            # The data is thrown away: nothing needs to survive a power cut.
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
            # In the data directory, so that a kill leaves nothing behind in /dev/shm.
            "dynamic_shared_memory_type": "mmap",
        }
        flags = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [program("postgres"), "-D", str(self._data), *flags, *self.options]

    def _answers(self) -> bool:
        import psycopg

        try:
            psycopg.connect(self.url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True


class MariaDBServer(Server):
    """MariaDB; `root` is let in without a password. The database `test` is there."""

    user = "mysql"
    programs = ["mariadbd", "mariadb-install-db"]
    modules = ["MySQLdb"]

    @property
    def url(self) -> str:
        return f"mysql://root@127.0.0.1:{self.port}/test"

    @property
    def _data(self) -> Path:
        return self.directory / "data"

    @property
    def _temporary(self) -> Path:
        # Of its own: servers name their temporary tables alike, and remove each other's.
        return self.directory / "tmp"

    def _prepare(self) -> None:
        if not self._temporary.exists():
            self._temporary.mkdir()
            if is_root():
                shutil.chown(self._temporary, self.user)
        if not self._data.exists():
            self._run(
                program("mariadb-install-db"),
                "--no-defaults",
                f"--datadir={self._data}",
                f"--tmpdir={self._temporary}",
                "--auth-root-authentication-method=normal",
            )

    def _command(self) -> list[str]:
        return [
            program("mariadbd"),
            "--no-defaults",
            f"--datadir={self._data}",
            f"--tmpdir={self._temporary}",
            f"--port={self.port}",
            "--bind-address=127.0.0.1",
            f"--socket={self.directory / 'socket'}",
            f"--pid-file={self.directory / 'pid'}",
            "--character-set-server=utf8mb4",
            "--skip-name-resolve",
            "--max-connections=200",
            # The data is thrown away: nothing needs to survive a power cut.
            "--innodb-flush-log-at-trx-commit=0",
            "--innodb-flush-method=nosync",
            *self.options,
        ]

    def _answers(self) -> bool:
        import MySQLdb

        try:
            MySQLdb.connect(
                host="127.0.0.1", port=self.port, user="root", connect_timeout=2
            ).close()
        except MySQLdb.OperationalError:
            return False
        return True


def require(server_class: type[Server]) -> None:
    """Skip the test when the server cannot run here; fail it in CI, where nothing is left out."""
    reason = server_class.available()
    if reason is None:
        return
    if os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def free_port() -> int:
    """A loopback port that nothing listens on.

    It lies below the range from which the kernel takes ports for outgoing connections: there, a
    client that retries while the server is down can end up connected to itself.
    """
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
