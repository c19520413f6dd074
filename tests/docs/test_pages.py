"""Pages of the documentation that a reader follows: their files and commands work as shown."""

import shlex
import shutil
import sys
from pathlib import Path

import pytest

from tests.support.pages import DOCS, ROOT, Reader, blocks, commands
from tinyasgi.cli import main

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="the commands are for a POSIX shell"),
    pytest.mark.skipif(not shutil.which("curl"), reason="no curl here"),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "package"),
    [
        ("quickstart.md", ""),
        ("api.md", ""),
        ("frameworks/fastapi.md", "fastapi"),
        ("frameworks/django.md", "django"),
        ("frameworks/flask.md", "flask"),
        ("frameworks/litestar.md", "litestar"),
    ],
)
def test_page(page: str, package: str, tmp_path: Path) -> None:
    if package:
        pytest.importorskip(package)
    with Reader(tmp_path) as reader:
        reader.follow(DOCS / page)
    assert any(command.startswith("curl") for command in reader.done)


def test_commands_parse(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every command line of tinyasgi on any page has options that exist, with valid values."""
    pages = [*DOCS.rglob("*.md"), ROOT / "README.md", *(ROOT / "deploy").glob("*.md")]
    found = [
        (page, words)
        for page in pages
        for language, text in blocks(page)
        if language == "console"
        for command, _ in commands(text)
        if (words := shlex.split(command, comments=True))[0].endswith("tinyasgi")
    ]
    assert len(found) > 30
    monkeypatch.chdir(ROOT / "deploy")  # some commands read the options from tinyasgi.toml
    for page, words in found:
        with pytest.raises(SystemExit) as leaving:
            main([*words[1:], "--print-config"])
        assert not leaving.value.code, (page, words, capsys.readouterr().err)
