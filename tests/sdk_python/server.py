"""The server under test, in each of its two forms.

Each run has a data directory, a database and a Redis database of its own, so that nothing is shared with
another run and nothing is left behind. The server is entered as anybody enters it: by its command line.
"""

from __future__ import annotations

import os
import re
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import httpx
import psycopg
import redis

READY_TIMEOUT_S = 60
STOP_TIMEOUT_S = 30
REDIS_DATABASES_TRIED = 16
DROPS_TRIED = 20


@dataclass(frozen=True)
class Server:
    form: str
    url: str
    api_key: str
    log: Path


def binary() -> str:
    root = Path(__file__).resolve().parents[2]
    return os.environ.get("AGENTLENS_BINARY", str(root / "target" / "debug" / "agentlens"))


def generate_key() -> str:
    """A well-formed key, as a container's start script would make one."""
    told = subprocess.run(
        [binary(), "key", "generate"], env=_environment(), capture_output=True, text=True, check=True, timeout=30
    )
    key = told.stdout.strip()
    assert key.startswith("al_live_"), f"not a key on stdout: {told.stdout!r}"
    assert len(key.split()) == 1, f"not one key on stdout: {told.stdout!r}"
    return key


@contextmanager
def running(form: str, directory: Path, *more: str) -> Iterator[Server]:
    if form == "embedded":
        with _process(form, directory, list(more)) as server:
            yield server
        return
    with _fresh_database() as (owner_url, app_url), _fresh_redis() as redis_url:
        arguments = ["--database-url", app_url, "--database-owner-url", owner_url, "--redis-url", redis_url]
        arguments += ["--secret-key", "5e" * 32, *more]
        with _process(form, directory, arguments) as server:
            yield server


@contextmanager
def _process(form: str, directory: Path, arguments: list[str]) -> Iterator[Server]:
    key = generate_key()
    log_path = directory / "server.log"
    command = [binary(), "serve", "--data-dir", str(directory / "data"), "--listen", "127.0.0.1:0", *arguments]
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            command, env=_environment(AGENTLENS_BOOTSTRAP_API_KEY=key), stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )
    try:
        yield Server(form, _wait_until_ready(process, log_path), key, log_path)
        assert process.poll() is None, f"the server died with {process.returncode}:\n{_tail(log_path)}"
        process.send_signal(signal.SIGTERM)
        status = process.wait(STOP_TIMEOUT_S)
        assert status == 0, f"the server left with {status} when asked to stop:\n{_tail(log_path)}"
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _wait_until_ready(process: subprocess.Popen, log_path: Path) -> str:
    """The address that the server printed, once it answers there."""
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the server left with {process.returncode} at its start:\n{_tail(log_path)}")
        printed = re.search(r"running at (http://\S+)\n", log_path.read_text(errors="replace"))
        try:
            if printed and httpx.get(f"{printed[1]}/readyz", timeout=2).status_code == 200:
                return printed[1]
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise RuntimeError(f"the server is not ready after {READY_TIMEOUT_S} s:\n{_tail(log_path)}")


@contextmanager
def _fresh_database() -> Iterator[tuple[str, str]]:
    owner_url = _needed("AGENTLENS_TEST_DATABASE_OWNER_URL")
    app_url = _needed("AGENTLENS_TEST_DATABASE_URL")
    name = f"agentlens_sdk_{secrets.token_hex(6)}"
    with psycopg.connect(owner_url, autocommit=True) as connection:
        connection.execute(f"create database {name}")
        try:
            yield _with_path(owner_url, name), _with_path(app_url, name)
        finally:
            _drop(connection, name)


def _drop(connection: psycopg.Connection, name: str) -> None:
    """Drops a database. Its owner can't end a vacuum that PostgreSQL itself has begun there, so that is waited for."""
    for attempt in range(DROPS_TRIED):
        try:
            connection.execute(f"drop database {name} with (force)")
            return
        except psycopg.errors.InsufficientPrivilege:
            if attempt + 1 == DROPS_TRIED:
                raise
            time.sleep(0.5)


@contextmanager
def _fresh_redis() -> Iterator[str]:
    url = _needed("AGENTLENS_TEST_REDIS_URL")
    for number in range(1, REDIS_DATABASES_TRIED):
        with redis.Redis.from_url(_with_path(url, str(number))) as connection:
            if connection.dbsize() != 0:
                continue
            try:
                yield _with_path(url, str(number))
            finally:
                connection.flushdb()
            return
    raise RuntimeError(f"the Redis server has no empty database below {REDIS_DATABASES_TRIED}")


def free_port() -> int:
    """A port that nobody listens on, for tests of a server that is not there."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _environment(**added: str) -> dict[str, str]:
    # A developer's own settings must not reach the server under test.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AGENTLENS_")}
    return kept | added


def _needed(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise RuntimeError(f"{name} is not set: run the suite through scripts/services.sh")
    return value


def _with_path(url: str, path: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{path}"))


def _tail(log_path: Path) -> str:
    return "\n".join(log_path.read_text(errors="replace").splitlines()[-40:])
