"""A local S3 server (moto) that fails as real networks do; fixtures `server` and `store`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from dmnet.core import stubs

NOISE = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
"""Marks of tests that use the server: its libraries leave sockets open."""

SECRET = "kept-out-of-every-file"
Answer = Callable[..., Iterable[bytes]]


@dataclass
class Faults:
    """What goes wrong with the next downloads."""

    app: Any
    plan: list[str] = field(default_factory=list)
    gets: list[str] = field(default_factory=list)

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        download = environ["REQUEST_METHOD"] == "GET" and "." in environ["PATH_INFO"]
        if download:
            self.gets.append(environ["PATH_INFO"])
        fault = self.plan.pop(0) if download and self.plan else ""
        if fault == "503":
            start("503 Slow Down", [("Content-Length", "0")])
            return [b""]
        if fault == "slow":
            time.sleep(0.5)
        answer: list[bytes] = list(self.app(environ, start))
        return [answer[0][: len(answer[0]) // 2]] if fault == "cut" else answer


@dataclass
class Store:
    """The server, and a client of its own."""

    faults: Faults
    client: Any

    def put(self, name: str, data: bytes) -> str:
        self.client.pipe_file(f"bucket/{name}", data)
        return f"s3://bucket/{name}"


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[Faults, str]]:
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    faults = Faults(DomainDispatcherApplication(create_backend_app))
    made = make_server("127.0.0.1", 0, faults, threaded=True)
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield faults, f"http://127.0.0.1:{made.server_port}"
    made.shutdown()
    thread.join()


@pytest.fixture
def store(server: tuple[Faults, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """An empty bucket; credentials come from the environment alone."""
    faults, address = server
    for name, value in {
        "AWS_ACCESS_KEY_ID": "someone", "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_ENDPOINT_URL": address, "AWS_DEFAULT_REGION": "us-east-1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(stubs, "PAUSE", 0.01)
    stubs.system.cache_clear()
    client = stubs.system("s3")
    client.mkdir("bucket")
    yield Store(faults, client)
    faults.plan.clear()
    faults.gets.clear()
    client.rm("bucket", recursive=True)
    stubs.system.cache_clear()
