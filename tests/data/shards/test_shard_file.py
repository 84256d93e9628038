"""Shards from a server: one that gives parts, one that does not, one that breaks off."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from ssl_lens.data.shards import shard_file
from ssl_lens.data.shards.shard_file import ShardFile, public_url
from ssl_lens.errors import InputError

DATA = np.random.default_rng(0).bytes(300_000)


class Server(ThreadingHTTPServer):
    """Gives DATA; the requests of `broken` (by number, HEAD not counted) break off after 1000 bytes."""

    def __init__(self, *, ranges: bool, broken: set[int]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.ranges, self.broken, self.requests = ranges, broken, 0
        self.url = f"http://127.0.0.1:{self.server_port}/a.tar?token=secret"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:  # noqa: N802
        self.send_response(200)
        self.send_header("Content-Length", str(len(DATA)))
        self.end_headers()

    def do_GET(self) -> None:  # noqa: N802
        server = self.server
        number, server.requests = server.requests, server.requests + 1
        data, wanted = DATA, self.headers.get("Range")
        if server.ranges and wanted:
            start, stop = wanted.removeprefix("bytes=").split("-")
            data = DATA[int(start) : int(stop) + 1]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{int(start) + len(data) - 1}/{len(DATA)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        try:
            if number in server.broken:
                self.wfile.write(data[:1000])
                self.close_connection = True
            else:
                self.wfile.write(data)
        except OSError:  # the reader has what it wanted
            self.close_connection = True


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    monkeypatch.setattr(shard_file, "_WAIT_S", 0.0)
    monkeypatch.setattr(shard_file, "_BLOCK", 50_000)
    servers = []

    def start(*, ranges: bool, broken: tuple[int, ...] = ()) -> Server:
        server = Server(ranges=ranges, broken=set(broken))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("broken", [(), (0,), (2,)])
def test_a_file_is_read_through_whatever_the_server_does_once(serve, ranges, broken):
    server = serve(ranges=ranges, broken=broken)
    with ShardFile(server.url) as file:
        parts = [file.read(70_000) for _ in range(4)]
        file.seek(290_000)
        parts.append(file.read(99_999))
        assert file.tell() == len(DATA)
    assert b"".join(parts[:4]) == DATA[:280_000]
    assert parts[4] == DATA[290_000:]


def test_a_server_that_breaks_off_again_is_one_line(serve):
    server = serve(ranges=True, broken=tuple(range(1, 100)))
    with ShardFile(server.url) as file:
        assert file.read(40_000) == DATA[:40_000]
        with pytest.raises(InputError, match="cannot be read, tried twice: .*; check the address and the net") as error:
            file.read(70_000)
    assert public_url(server.url) in str(error.value)
    assert "secret" not in str(error.value)
    assert "\n" not in str(error.value)
    assert server.requests == 3, "one good, one broken, one more"


def test_no_server_is_one_line(serve):
    server = serve(ranges=True)
    server.shutdown()
    server.server_close()
    with (
        ShardFile(server.url) as file,
        pytest.raises(InputError, match="127.0.0.1:.*a.tar cannot be read, tried twice"),
    ):
        file.read(1)


def test_a_local_file_has_an_end(tmp_path):
    (tmp_path / "a.tar").write_bytes(DATA)
    with ShardFile(str(tmp_path / "a.tar")) as file:
        file.seek(299_000)
        assert file.read(5000) == DATA[299_000:]
        assert file.read(1) == b""


def test_passwords_and_queries_are_not_shown():
    assert public_url("https://me:secret@host:80/a/b.tar?token=1") == "https://host:80/a/b.tar"
    assert public_url("/a/b?c.tar") == "/a/b?c.tar"
