"""Popular HTTP/2 clients, with TLS and without, on both event loops."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.helpers import PATIENCE, Certificates, Client
from tinyasgi.testing import LiveServer, serve

SIZE = 3_000_000

NODE = """
const http2 = require("http2"), fs = require("fs");
const [url, file, path] = process.argv.slice(1);
const session = http2.connect(url);
const stream = session.request({":method": "POST", ":path": path});
let size = 0;
stream.on("response", headers => console.log(headers[":status"]));
stream.on("data", data => size += data.length);
stream.on("end", () => { console.log(size); session.close(); });
fs.createReadStream(file).pipe(stream);
"""


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Echo the body, refuse it, or send the HTTP version and a part of the scope."""
    if scope["path"] == "/echo":
        await send({"type": "http.response.start", "status": 200})
        more_body = True
        while more_body:
            message = await receive()
            more_body = message["more_body"]
            body = {"body": message["body"], "more_body": more_body}
            await send({"type": "http.response.body", **body})
        return
    text = f"{scope['http_version']} {scope['scheme']} {scope['method']}"
    status = 403 if scope["path"] == "/refuse" else 200
    await send({"type": "http.response.start", "status": status})
    await send({"type": "http.response.body", "body": text.encode()})


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not shutil.which(program), reason=f"no {program}: make clients")


def run(*command: str | Path) -> str:
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode("latin-1")


@pytest.fixture(params=["asyncio", "uvloop"], scope="module")
def loop(request: pytest.FixtureRequest) -> str:
    if request.param == "uvloop":
        pytest.importorskip("uvloop")
    return str(request.param)


@pytest.fixture(scope="module")
def plain(loop: str) -> Iterator[LiveServer]:
    with serve(app, loop=loop) as server:
        yield server


@pytest.fixture(scope="module")
def secure(loop: str, tls: Certificates) -> Iterator[LiveServer]:
    with serve(app, loop=loop, ssl_certfile=tls.certfile) as server:
        yield server


@pytest.fixture(scope="module")
def body(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("body") / "body"
    path.write_bytes(bytes(range(250)) * (SIZE // 250))
    return path


@needs("curl")
def test_curl_with_prior_knowledge(plain: LiveServer, body: Path) -> None:
    curl = "curl", "--silent", "--show-error", "--http2-prior-knowledge"
    assert run(*curl, plain.url) == "2 http GET"
    assert run(*curl, "--head", plain.url).startswith("HTTP/2 200")
    assert len(run(*curl, "--data-binary", f"@{body}", f"{plain.url}/echo")) == SIZE
    assert run(*curl, "--header", "Expect: 100-continue", "-d", "x", f"{plain.url}/echo") == "x"
    limited = run(*curl, "--limit-rate", "3M", "--upload-file", body, f"{plain.url}/echo")
    assert len(limited) == SIZE


@needs("curl")
@pytest.mark.parametrize("expect", ["Expect:", "Expect: 100-continue"])
@pytest.mark.parametrize("length", ["Transfer-Encoding: chunked", "Another: header"])
def test_curl_gets_a_response_before_its_upload_is_complete(
    plain: LiveServer, secure: LiveServer, body: Path, expect: str, length: str
) -> None:
    curl = "curl", "--silent", "--show-error", "--insecure", "--header", expect, "--header", length
    data = "--data-binary", f"@{body}"
    url = f"https://localhost:{secure.port}"
    assert run(*curl, "--http2", *data, f"{url}/refuse") == "2 https POST"
    curl = *curl, "--http2-prior-knowledge"
    assert run(*curl, *data, f"{plain.url}/refuse") == "2 http POST"
    assert run(*curl, "--upload-file", body, f"{plain.url}/refuse") == "2 http PUT"


@needs("curl")
@pytest.mark.parametrize("version", ["2", "1.1"])
def test_curl_with_tls(secure: LiveServer, tls: Certificates, body: Path, version: str) -> None:
    url = f"https://localhost:{secure.port}"
    curl = "curl", "--silent", "--show-error", "--cacert", tls.ca_certs, f"--http{version}"
    assert run(*curl, url) == f"{version} https GET"
    assert len(run(*curl, "--data-binary", f"@{body}", f"{url}/echo")) == SIZE


@needs("curl")
def test_curl_with_upgrade(plain: LiveServer) -> None:
    assert run("curl", "--silent", "--http2", plain.url) == "1.1 http GET"


@needs("nghttp")
def test_nghttp(plain: LiveServer, body: Path) -> None:
    output = run("nghttp", "--no-dep", "-v", "-m", "20", plain.url)
    assert output.count("2 http GET") == 20
    output = run("nghttp", "-d", body, f"{plain.url}/echo")
    assert len(output) == SIZE


@needs("h2load")
@pytest.mark.parametrize("path", ["/", "/echo"])
def test_h2load(plain: LiveServer, body: Path, path: str) -> None:
    data = ["-d", str(body)] if path == "/echo" else []
    count = "20" if path == "/echo" else "2000"
    output = run("h2load", "-n", count, "-c", "4", "-m", "10", *data, plain.url + path)
    assert re.search(rf"{count} succeeded, 0 failed, 0 errored", output)


@needs("node")
def test_node(plain: LiveServer, body: Path) -> None:
    assert run("node", "-e", NODE, plain.url, body, "/echo").split() == ["200", str(SIZE)]
    assert run("node", "-e", NODE, plain.url, body, "/refuse").split() == ["403", "11"]


def test_httpx(secure: LiveServer, tls: Certificates, body: Path) -> None:
    context = tls.context()
    context.set_alpn_protocols(["h2", "http/1.1"])
    url = f"https://localhost:{secure.port}"
    with httpx.Client(http2=True, verify=context, timeout=PATIENCE) as client:
        for _ in range(3):
            response = client.get(url)
            assert (response.http_version, response.text) == ("HTTP/2", "2 https GET")
        data = body.read_bytes()
        assert client.post(f"{url}/echo", content=data).content == data
        assert client.post(f"{url}/refuse", content=data).status_code == 403


def test_no_alpn(secure: LiveServer, tls: Certificates) -> None:
    context = tls.context()
    context.set_alpn_protocols([])
    with Client(secure.port, context) as client:
        assert client.response(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").body == b"1.1 https GET"


def test_no_http2_in_alpn(tls: Certificates) -> None:
    context = tls.context()
    context.set_alpn_protocols(["h2", "http/1.1"])
    with (
        serve(app, ssl_certfile=tls.certfile, http2=False) as server,
        Client(server.port, context) as client,
    ):
        assert client.sock.selected_alpn_protocol() == "http/1.1"  # type: ignore[attr-defined]
