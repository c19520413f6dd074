"""Install the built wheel in clean environments, bare and with extras, and serve an app with it.

Run as `python -m tests.wheel dist/tinyasgi-*.whl`.
"""

import subprocess
import sys
import tempfile
import urllib.request
import venv
from pathlib import Path

APP = """
async def app(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"hello"})
"""
#: Each set of extras, and the parser and event loop that the first log line names.
EXTRAS = {"": "h11, asyncio", "[standard]": "httptools, uvloop", "[testing]": "h11, asyncio"}


def try_wheel(wheel: Path, extras: str, parts: str) -> None:
    """Serve one request from a new environment. Raise RuntimeError if that fails."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "hello.py").write_text(APP)
        venv.create(root / "venv", with_pip=True)
        pip = [root / "venv/bin/pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, f"{wheel.resolve()}{extras}"], check=True)
        with subprocess.Popen(
            [root / "venv/bin/tinyasgi", "hello:app", "--port", "0"],
            cwd=root,
            stderr=subprocess.PIPE,
            text=True,
        ) as server:
            try:
                log = ""
                assert server.stderr is not None
                for line in server.stderr:
                    log += line
                    if "http://" in line:
                        break
                if parts not in log:
                    raise RuntimeError(f"{wheel.name}{extras} does not use {parts}:\n{log}")
                url = next(word for word in log.split() if word.startswith("http://"))
                with urllib.request.urlopen(url.rstrip(",")) as response:
                    if response.read() != b"hello":
                        raise RuntimeError(f"{wheel.name}{extras} answers something else")
            finally:
                server.terminate()
        if server.returncode != 0:
            raise RuntimeError(f"{wheel.name}{extras} exits with {server.returncode}")
    print(f"{wheel.name}{extras}: served a request with {parts}")


if __name__ == "__main__":
    for extras, parts in EXTRAS.items():
        try_wheel(Path(sys.argv[1]), extras, parts)
