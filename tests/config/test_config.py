"""`Config`: values and errors. tests/test_cli.py has each option as text."""

import dataclasses
import pickle
import re
from pathlib import Path
from typing import Any

import pytest

import tinyasgi
from tinyasgi import Config
from tinyasgi.config.kinds import OptionError

SWITCHED_OFF = [field.name for field in dataclasses.fields(Config) if field.default == 0]


def test_defaults() -> None:
    config = Config()
    assert (config.host, config.port) == ("127.0.0.1", 8000)
    assert config.timeout_head == 10
    assert config.timeout_body == 60
    assert config.timeout_keep_alive >= 75
    assert config.timeout_write == 60
    assert config.min_rate_body == config.min_rate_write == 240
    assert config.timeout_graceful_shutdown == 25
    assert config.limit_head_size == 64 * 1024
    assert config.limit_head_fields == 100
    assert config.access_log
    assert config.ssl_min_version == "1.2"


def test_equality_and_pickle() -> None:
    config = Config(port=80, header=(("a", "b"),))
    assert config == Config(port=80, header=(("a", "b"),))
    assert config != Config()
    assert pickle.loads(pickle.dumps(config)) == config
    assert config.replace(port=8000, header=()) == Config()
    assert config.port == 80
    assert "port=80" in repr(config)
    assert hash(config) == hash(config.replace())
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"port": 65536}, "from 0 to 65535"),
        ({"port": "80"}, "from 0 to 65535"),
        ({"port": True}, "from 0 to 65535"),
        ({"port": -1}, "from 0 to 65535"),
        ({"http": "fast"}, "httptools"),
        ({"loop": "trio"}, "uvloop"),
        ({"lifespan": True}, "auto"),
        ({"factory": "yes"}, "true or false"),
        ({"timeout_head": -1}, "seconds"),
        ({"timeout_head": float("inf")}, "seconds"),
        ({"timeout_head": float("nan")}, "seconds"),
        ({"timeout_head": []}, "seconds"),
        ({"limit_head_fields": 0}, "at least 1"),
        ({"limit_concurrency": -1}, "at least 0"),
        ({"limit_concurrency": 1.5}, "at least 0"),
        ({"uds_mode": 0o1000}, "octal"),
        ({"header": "a"}, "header"),
        ({"header": (("a b", "c"),)}, "header"),
        ({"header": (("a", "b\r\nc: d"),)}, "header"),
        ({"header": (("", "b"),)}, "header"),
        ({"header": (("é", "b"),)}, "header"),
        ({"header": (("a", "€"),)}, "header"),
        ({"header": (("a",),)}, "header"),
        ({"header": (("Content-Length", "3"),)}, "not Connection, Content-Length"),
        ({"header": (("transfer-encoding", "chunked"),)}, "not Connection"),
        ({"header": (("a", "b"), ("CONNECTION", "close"))}, "not Connection"),
        ({"header": ("ab",)}, "header"),
        ({"header": (("Upgrade", "h2c"),)}, "not Connection"),
        ({"request_id_header": "Content-Length"}, "not Connection"),
        ({"log_level": "loud"}, "info"),
        ({"host": 7}, "string"),
        ({"ssl_min_version": "1.0"}, "1.2"),
        ({"ssl_keyfile": "key.pem"}, "needs ssl_certfile"),
        ({"ssl_certfile": ("",)}, "path"),
        ({"ssl_context_factory": "function"}, "MODULE:ATTRIBUTE"),
    ],
)
def test_wrong_value(given: dict[str, Any], expected: str) -> None:
    """The error names the option, the value and the allowed values."""
    ((name, value),) = given.items()
    with pytest.raises(OptionError) as raised:
        Config(**given)
    message = str(raised.value)
    assert expected in message
    assert "\n" not in message
    if isinstance(value, tuple):
        value = value[-1]
    assert message.startswith(f"{name}={value!r}")
    assert isinstance(raised.value, ValueError)


def test_several_values() -> None:
    """A list, a tuple or a str becomes a tuple."""
    config = Config(ssl_certfile=["a", "b"], ssl_keyfile="a\nb", bind=(":80",))
    assert config.ssl_certfile == config.ssl_keyfile == ("a", "b")
    assert hash(config.replace(header=[("a", "b")])) == hash(config.replace(header="a: b"))
    with pytest.raises(OptionError, match=r"^bind='x': expected an address as HOST:PORT"):
        Config(bind=[":80", "x"])


def test_secret() -> None:
    """A message or a `repr` may be logged, so neither shows the password."""
    assert "sesame" not in repr(Config(ssl_keyfile_password="sesame"))
    with pytest.raises(OptionError, match=r"^ssl_keyfile_password='\*\*\*': expected a string$"):
        Config(ssl_keyfile_password=b"sesame")  # type: ignore[arg-type]


def test_resolved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths become absolute. Other options do not change."""
    monkeypatch.chdir(tmp_path)
    paths, values = ("PATH", "ADDRESS"), {"PATH": "a/b", "ADDRESS": "unix:a/b"}
    given, resolved = {"port": 1, "root_path": "/a"}, {"port": 1, "root_path": "/a"}
    for field in dataclasses.fields(Config):
        kind = field.metadata["kind"]
        if kind.metavar in paths and field.name not in (
            "health_path",
            "access_log_exclude",
            "root_path",
        ):
            value = values[kind.metavar]
            given[field.name] = value
            resolved[field.name] = value.replace("a/b", f"{tmp_path}/a/b")
    assert len(given) > 12
    assert Config(**given).resolved() == Config(**resolved)
    standard = Config(access_log_file="-", error_log_file="-", bind=(":80", "fd://3"))
    assert standard.resolved() == standard.replace(app_dir=str(tmp_path))


def test_errors_name_options_as_the_user_does() -> None:
    """Other modules use `Config.error`, or at least a spelling of the option."""
    package = Path(tinyasgi.__file__).parent
    own = {"kinds.py", "config.py", "sources.py", "other_servers.py"}
    own.add("systemd.py")  # sets no options
    for path in package.rglob("*.py"):
        # Messages of integrations name the settings of another program.
        if path.name not in own and "integrations" not in path.parts:
            for text in re.findall(r"OptionError\((.*)", path.read_text()):
                assert re.search(r"(spelling|argument)\(", text), path


def test_long_value() -> None:
    with pytest.raises(OptionError) as raised:
        Config(http="x" * 1000)
    assert len(str(raised.value)) < 300


def test_unknown_option() -> None:
    with pytest.raises(OptionError, match="unknown option prot; did you mean port"):
        Config(prot=80)  # type: ignore[call-arg]


@pytest.mark.parametrize("name", SWITCHED_OFF)
def test_zero_is_allowed_where_it_is_the_default(name: str) -> None:
    assert Config(**{name: getattr(Config(), name)}) == Config()


@pytest.mark.parametrize(
    ("given", "root_path"),
    [("", ""), ("/", ""), ("/p", "/p"), ("/p/", "/p"), ("p", "/p"), ("/p/q//", "/p/q")],
)
def test_root_path(given: str, root_path: str) -> None:
    assert Config(root_path=given).root_path == root_path


def test_every_option_has_help() -> None:
    for field in dataclasses.fields(Config):
        assert field.metadata["help"], field.name
