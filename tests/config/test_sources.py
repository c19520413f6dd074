"""Sources of options: precedence, values, errors and `--print-config`."""

import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.helpers import Command
from tests.test_cli import OPTIONS, alone, command, dashed, needed, refuse
from tinyasgi import Config
from tinyasgi.cli import main
from tinyasgi.config.env_file import read
from tinyasgi.config.sources import collect, render

__all__ = ["alone", "command"]  # fixtures

PYPROJECT = """
[project]
name = "site"
dependencies = ["tinyasgi"]
[project.scripts]
tinyasgi = "tinyasgi.cli:main"
[tool.other]
tinyasgi = "tinyasgi"
"""


#: Exits with code 1 if a settings file has been parsed.
SHOW = """
import sys
sys.modules.pop("tomllib", None)  # coverage imports it
from tinyasgi import cli
cli.run = lambda app, config: sys.exit("tomllib" in sys.modules)
cli.main(["m:a"])
"""


def write(**files: str) -> None:
    """Write files into the current directory. In a name, `__` stands for a dot."""
    for name, text in files.items():
        Path(name.replace("__", ".")).write_text(text, encoding="utf-8")


# Precedence.


def test_single_source(command: Any) -> None:
    assert command("m:a", "--port", "1")[1].port == 1
    assert command("m:a", TINYASGI_PORT="2")[1].port == 2


@pytest.mark.parametrize(
    ("sources", "port"),
    [
        ("command environment env_file file", 1),
        ("command file", 1),
        ("command env_file", 1),
        ("environment env_file file", 2),
        ("environment file", 2),
        ("env_file file", 3),
        ("env_file_in_file", 4),
        ("env_file", 3),
        ("file pyproject", 4),
        ("file", 4),
        ("pyproject", 5),
        ("", 8000),
    ],
)
def test_precedence(sources: str, port: int, command: Any) -> None:
    words, environment, text = ["m:a"], {}, "host = '::1'\n"
    if "command" in sources:
        words += ["--port", "1"]
    if "environment" in sources:
        environment["TINYASGI_PORT"] = "2"
    if "env_file" in sources:
        write(vars="APP=x\nTINYASGI_PORT=3\n")
        if sources == "env_file_in_file":
            sources, text = "file", text + "env-file = 'vars'\n"
        else:
            words += ["--env-file", "vars"]
    if re.search(r"\bfile\b", sources):
        write(tinyasgi__toml=text + "port = 4\n")
    if "pyproject" in sources:
        write(pyproject__toml=f"{PYPROJECT}[tool.tinyasgi]\n{text}port = 5\n")
    _, config = command(*words, **environment)
    assert config.port == port
    assert config.host == ("::1" if re.search(r"\bfile\b|pyproject", sources) else "127.0.0.1")


def test_app_in_each_source(command: Any) -> None:
    write(tinyasgi__toml="app = 'm:file'", vars="TINYASGI_APP=m:env_file")
    assert command()[0] == "m:file"
    assert command("--env-file", "vars")[0] == "m:env_file"
    assert command("m:word")[0] == "m:word"
    assert command("--env-file", "vars", TINYASGI_APP="m:environment")[0] == "m:environment"


def test_other_variable_of_an_option(command: Any) -> None:
    write(tinyasgi__toml="workers = 2", vars="WEB_CONCURRENCY=3")
    assert command("m:a", "--env-file=vars")[1].workers == 3
    assert command("m:a", WEB_CONCURRENCY="4")[1].workers == 4


def test_env_file_named_in_a_file(command: Any) -> None:
    """A settings file has priority over the env file that it names. `--print-config` needs this."""
    pytest.importorskip("dotenv")
    write(tinyasgi__toml="env-file = 'vars'\nport = 1", vars="TINYASGI_PORT=2\nTINYASGI_HOST=a")
    config = command("m:a")[1]
    assert (config.port, config.host, config.env_file) == (1, "a", "vars")


def test_named_file_replaces_the_default_files(command: Any) -> None:
    write(tinyasgi__toml="port = 1", production__toml="host = 'a'")
    config = command("m:a", "--config", "production.toml")[1]
    assert (config.port, config.host) == (8000, "a")
    assert command("m:a", TINYASGI_CONFIG="production.toml")[1] == config
    assert command("m:a", "--config", "tinyasgi.toml", TINYASGI_CONFIG="none")[1].port == 1
    assert command("m:a", "--config", os.devnull)[1] == Config()


def test_named_pyproject(command: Any, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    write(**{"site/pyproject__toml": "[tool.tinyasgi]\nport = 1"})
    assert command("m:a", "--config", "site/pyproject.toml")[1].port == 1


@pytest.mark.parametrize(
    "text",
    [
        "[tool.tinyasgi]\nport = 1",
        "[ tool . 'tinyasgi' ]\nport = 1",
        "[tool]\ntinyasgi = {port = 1}",
        "[tool]\ntinyasgi.port = 1",
        'tool."tinyasgi".port = 1',
        "tool = {tinyasgi = {port = 1}}",
        "[tool]\n[tool.other]\n[tool.tinyasgi]\nport = 1",
        "[tool.tinyasgi]\r\nport = 1\r\n",
        "\ufeff[tool.tinyasgi]\nport = 1",
    ],
)
def test_spelling_of_the_table(text: str, command: Any) -> None:
    write(pyproject__toml=text)
    assert command("m:a")[1].port == 1


@pytest.mark.parametrize("text", ["[tool.other]\nport = 1", PYPROJECT, "this is not TOML"])
def test_pyproject_of_others_is_left_alone(text: str, command: Any) -> None:
    write(pyproject__toml=text)
    assert command("m:a")[1] == Config()


def test_pyproject_of_others_is_not_parsed(tmp_path: Path) -> None:
    write(pyproject__toml=PYPROJECT)
    write(show__py=SHOW)
    with Command(script="show.py", cwd=tmp_path) as process:
        assert process.wait() == 0
    write(tinyasgi__toml="port = 1")
    with Command(script="show.py", cwd=tmp_path) as process:
        assert process.wait() == 1


# Values.


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("access-log = false", "access_log", False),
        ("access_log = false", "access_log", False),
        ("access_log = 'no'", "access_log", False),
        ("use-colors = true", "use_colors", True),
        ("port = '80'", "port", 80),
        ("timeout-head = 2", "timeout_head", 2.0),
        ("timeout-head = 2.5", "timeout_head", 2.5),
        ("timeout-head = '2.5'", "timeout_head", 2.5),
        ("uds-mode = '640'", "uds_mode", 0o640),
        ("bind = [':80', 'unix:a b']", "bind", (":80", "unix:a b")),
        ("bind = ':80'", "bind", (":80",)),
        ("bind = []", "bind", ()),
        ("header = ['A: 1', 'B: 2']", "header", (("A", "1"), ("B", "2"))),
        ("ssl-cert-reqs = '0'", "ssl_cert_reqs", "none"),
        ("root-path = ''", "root_path", ""),
        ("root-path = '/é€'", "root_path", "/é€"),
    ],
)
def test_value_in_a_file(text: str, name: str, value: Any, command: Any) -> None:
    write(tinyasgi__toml=text)
    assert getattr(command("m:a")[1], name) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("port = true", "port = true in tinyasgi.toml: expected a whole number from 0 to 65535"),
        ("port = 8000.0", "port = 8000.0 in tinyasgi.toml: expected a whole number"),
        ("port = 'http'", "port = 'http' in tinyasgi.toml: expected a whole number"),
        ("port = 65536", "port = 65536 in tinyasgi.toml: expected a whole number"),
        ("host = 7", "host = 7 in tinyasgi.toml: expected a string"),
        ("access-log = 1", "access-log = 1 in tinyasgi.toml: expected true or false"),
        ("access-log = 'maybe'", "access-log = 'maybe' in tinyasgi.toml: expected true or false"),
        ("timeout-head = inf", "timeout-head = inf in tinyasgi.toml: expected a number of seconds"),
        ("timeout-head = nan", "timeout-head = nan in tinyasgi.toml: expected"),
        ("timeout-head = 2026-01-01", "expected a number of seconds"),
        ("host = ['a']", "host = ['a'] in tinyasgi.toml: expected a string"),
        ("bind = [80]", "bind = 80 in tinyasgi.toml: expected an address"),
        ("bind = [':80', 'x']", "bind = 'x' in tinyasgi.toml: expected an address"),
        ("header = {A = '1'}", "header = {'A': '1'} in tinyasgi.toml: expected a header"),
        ("uds-mode = 640", "uds-mode = 640 in tinyasgi.toml: expected an octal number"),
        ("uds-mode = 0o640", "uds-mode = 416 in tinyasgi.toml: expected an octal number"),
        ("http = 'fast'", "http = 'fast' in tinyasgi.toml: expected auto, httptools or h11"),
        ("app = 1", "app = 1 in tinyasgi.toml: expected a string"),
        ("ssl-keyfile-password = 1234", "ssl-keyfile-password = '***' in tinyasgi.toml: expected"),
        (
            "ssl-keyfile-password = '1234'\nssl_keyfile_password = '1234'",
            "sets an option twice, as ssl-keyfile-password and as ssl_keyfile_password",
        ),
        ("prot = 1", "unknown option prot in tinyasgi.toml; did you mean port?"),
        ("no-access-log = true", "option no-access-log in tinyasgi.toml; did you mean access-log?"),
        ("zzzzzzz = 1", "unknown option zzzzzzz in tinyasgi.toml; see tinyasgi --help"),
        ("config = 'a'", "unknown option config in tinyasgi.toml"),
        ("[tool.tinyasgi]\nport = 1", "unknown option tool in tinyasgi.toml"),
        (
            "access-log = true\naccess_log = true",
            "tinyasgi.toml sets an option twice, as access-log and as access_log",
        ),
        ("port = !", "error: tinyasgi.toml can't be read: Invalid value (at line 1, column 8)"),
        ("ssl-keyfile = 'a'", "ssl-keyfile = 'a' in tinyasgi.toml needs --ssl-certfile: give one"),
    ],
)
@pytest.mark.parametrize("show", [[], ["--print-config"]])
def test_wrong_file(show: list[str], text: str, message: str, capsys: Any) -> None:
    write(tinyasgi__toml=text)
    line = refuse(capsys, *show)
    assert message in line
    assert "1234" not in line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[tool.tinyasgi]\nprot = 1", "unknown option prot in pyproject.toml; did you mean port?"),
        ("[tool.tinyasgi]\nport = 'a'", "port = 'a' in pyproject.toml: expected"),
        ("[tool]\ntinyasgi = 1", "tool.tinyasgi in pyproject.toml must be a table, not int"),
        (
            "[[tool.tinyasgi]]\nport = 1",
            "tool.tinyasgi in pyproject.toml must be a table, not list",
        ),
        ("[tool.tinyasgi]\nport", "error: pyproject.toml can't be read: "),
    ],
)
def test_wrong_pyproject(text: str, message: str, capsys: Any) -> None:
    write(pyproject__toml=text)
    assert message in refuse(capsys, "m:a")


def test_wrong_bytes_in_a_file(capsys: Any) -> None:
    Path("tinyasgi.toml").write_bytes(b"host = '\xff'")
    assert "error: tinyasgi.toml can't be read: 'utf-8' codec can't" in refuse(capsys, "m:a")


def test_named_file_that_is_not_there(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    write(pyproject__toml=PYPROJECT)
    line = refuse(capsys, "m:a", "--config", "none.toml")
    assert "--config none.toml can't be read: No such file or directory" in line
    line = refuse(capsys, "m:a", "--config", "pyproject.toml")
    assert "--config pyproject.toml has no table [tool.tinyasgi]" in line
    monkeypatch.setenv("TINYASGI_CONFIG", "none.toml")
    assert "TINYASGI_CONFIG=none.toml can't be read" in refuse(capsys, "m:a")


def test_overridden_value_is_not_checked(command: Any) -> None:
    write(tinyasgi__toml="port = 'a'")
    assert command("m:a", "--port", "1", TINYASGI_PORT="b")[1].port == 1


@contextmanager
def pipe(text: str) -> Iterator[str]:
    """Yield the path of a pipe that holds a text, as of `<(command)` in a shell."""
    reader, writer = os.pipe()
    with open(reader):
        with open(writer, "w") as file:
            file.write(text)
        yield f"/dev/fd/{reader}"


def test_config_from_a_pipe(command: Any) -> None:
    """A pipe can be read only once."""
    with pipe("port = 1") as path:
        assert command("m:a", "--config", path)[1].port == 1


@pytest.mark.parametrize("source", ["command", "environment", "env_file", "file"])
def test_spelling_in_cross_checks(
    source: str, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An option is spelled as in its source. One that is not given is spelled as in `--help`."""
    words = ["m:a"]
    if source == "command":
        words.append("--ssl-cert-reqs=required")
        name = "--ssl-cert-reqs required"
    elif source == "environment":
        monkeypatch.setenv("TINYASGI_SSL_CERT_REQS", "required")
        name = "TINYASGI_SSL_CERT_REQS=required"
    elif source == "env_file":
        write(vars="TINYASGI_SSL_CERT_REQS=required")
        words.append("--env-file=vars")
        name = "TINYASGI_SSL_CERT_REQS=required in vars"
    else:
        write(tinyasgi__toml="ssl-cert-reqs = 'required'")
        name = "ssl-cert-reqs = 'required' in tinyasgi.toml"
    line = refuse(capsys, *words)
    assert line.endswith(f" {name} needs --ssl-certfile\n")
    write(pyproject__toml="[tool.tinyasgi]\nssl-certfile = 'a'")
    if source != "file":
        line = refuse(capsys, *words)
        assert line.endswith(f" {name} needs --ssl-ca-certs\n")


@pytest.mark.parametrize(
    ("option", "value", "source"),
    [
        ("ssl_certfile", "none.pem", "command"),
        ("ssl_certfile", "none.pem", "Python"),
        ("log_config", "none.toml", "environment"),
        ("access_log_format", "%(nothing)s", "file"),
        ("access_log_file", "none/file", "command"),
        ("error_log_file", "none/file", "environment"),
        ("ssl_context_factory", "none:none", "file"),
        ("workers", "2", "Python"),  # with an object as an app
    ],
)
def test_spelling_in_startup_errors(
    option: str, value: str, source: str, tmp_path: Path, capsys: Any
) -> None:
    write(app__py="async def app(scope, receive, send): ...")
    write(
        python__py=f"""
import app, tinyasgi
value = {value!r}
tinyasgi.run(app.app, {option}=int(value) if value.isdecimal() else value)
"""
    )
    key, variable = option.replace("_", "-"), f"TINYASGI_{option.upper()}"
    words, environment = ["--port=0", "app:app"], {}
    shown = str(tmp_path / value) if value.startswith(("none.", "none/")) else value
    if source == "command":
        words.append(f"--{key}={value}")
        start = f"--{key} {shown}"
    elif source == "environment":
        environment[variable] = value
        start = f"{variable}={shown}"
    elif source == "file":
        write(tinyasgi__toml=f"{key} = '{value}'")
        start = f"{key} = {shown!r} in tinyasgi.toml"
    else:
        start = f"{option}={int(value) if value.isdecimal() else repr(shown)}"
    script = "python.py" if source == "Python" else ""
    with Command(*words, script=script, cwd=tmp_path, **environment) as command:
        assert command.wait() == 2
    last = command.log.splitlines()[-1]
    assert last.startswith(f"tinyasgi: error: {start} "), command.log


# Environment and env files.


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("TINYASGI_PORT=a", "TINYASGI_PORT=a in vars: expected a whole number"),
        ("TINYASGI_CONFIG=a", "TINYASGI_CONFIG in vars can't be set in an env file"),
        ("TINYASGI_ENV_FILE=a", "TINYASGI_ENV_FILE in vars can't be set in an env file"),
        ("A=1\nB C=1", "--env-file vars can't be read: line 2 must be NAME=VALUE"),
        ("A=b\0c", "--env-file vars can't be used: 'A' has"),
        ("'A=b'=c", "--env-file vars can't be used: 'A=b' has"),
    ],
)
def test_wrong_line_of_an_env_file(text: str, message: str, capsys: Any) -> None:
    write(vars=text)
    assert message in refuse(capsys, "m:a", "--env-file=vars")


def test_env_file_with_bom_and_crlf(command: Any) -> None:
    Path("vars").write_bytes(b"\xef\xbb\xbfTINYASGI_PORT=1\r\nTINYASGI_HOST=a\r\n")
    config = command("m:a", "--env-file=vars")[1]
    assert (config.port, config.host) == (1, "a")


def test_env_file_from_a_pipe(capsys: Any) -> None:
    """Each worker reads the file again, but a pipe can be read only once."""
    with pipe("A=1") as path:
        line = refuse(capsys, "m:a", f"--env-file={path}")
    assert f"--env-file {path} can't be read: a pipe can be read only once" in line


def test_env_file_that_is_not_there(capsys: Any) -> None:
    line = refuse(capsys, "m:a", "--env-file=none")
    assert "--env-file none can't be read: No such file or directory" in line


#: Lines that readers of such files treat differently.
DOTENV = r"""
export A=1
B = spaced  # a comment
C=no#comment
D='single # quoted \n \' ' # a comment
E="double # quoted \n \" ${A} " # a comment
F=first
F=last
G=${F}/${HOME}/${NONE}/${NONE:-default}
H="two
lines"
I
J=
'L'=quoted name
M=a b  c
N="${E}"
HOME=of the file
"""


@pytest.mark.parametrize(
    "lines", [DOTENV.replace("K: not a pair\n", ""), "", "\n#\n", "A=\\\r\nB=1"]
)
def test_env_file_is_read_as_python_dotenv_does(
    lines: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dotenv = pytest.importorskip("dotenv")
    monkeypatch.setattr(os, "environ", {"HOME": "/home", "PATH": "/bin"})
    Path("vars").write_text(lines, newline="")
    found = read("vars")
    dotenv.load_dotenv("vars")
    assert os.environ == found | {"HOME": "/home", "PATH": "/bin"}


def test_env_file_without_python_dotenv(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    write(vars="A=1")
    monkeypatch.setitem(sys.modules, "dotenv.main", None)
    line = refuse(capsys, "m:a", "--env-file=vars")
    assert "--env-file vars needs python-dotenv: pip install" in line


@pytest.mark.parametrize("name", ["PROT", "PORTS", "TIMEOUT_KEEPALIVE", "ACCES_LOG", "SSL_CERT"])
@pytest.mark.parametrize("where", ["environment", "env_file"])
def test_misspelling_in_the_environment(where: str, name: str, command: Any, capsys: Any) -> None:
    """The variable may belong to another program, so the message is a warning."""
    if where == "environment":
        _, config = command("m:a", **{f"TINYASGI_{name}": "1"})
        place = ""
    else:
        write(vars=f"TINYASGI_{name}=1\n")
        _, config = command("m:a", "--env-file=vars")
        place = " in vars"
    assert config.replace(env_file=None) == Config()
    line = capsys.readouterr().err
    assert line.startswith(f"tinyasgi: warning: unknown option TINYASGI_{name}{place}; did you")
    assert line.count("\n") == 1


def test_misspelling_in_json(command: Any, capsys: Any) -> None:
    command("m:a", "--log-format=json", TINYASGI_PROT="1")
    record = json.loads(capsys.readouterr().err)
    assert record["level"] == "warning"
    assert record["message"].startswith("unknown option TINYASGI_PROT; did you mean")


def test_variables_for_others(command: Any) -> None:
    """Variables of a Dockerfile, of a worker, and of Kubernetes for Services."""
    config = command(
        "m:a",
        TINYASGI_VERSION="0.1.0",
        TINYASGI_WORKER="0",
        TINYASGI_SERVICE_HOST="10.0.0.1",
        TINYASGI_SERVICE_PORT="80",
        TINYASGI_SERVICE_PORT_HTTP="80",
        TINYASGI_PORT="tcp://10.0.0.1:80",
        TINYASGI_PORT_80_TCP="tcp://10.0.0.1:80",
        TINYASGI_PORT_80_TCP_PROTO="tcp",
        TINYASGI_PORT_80_TCP_PORT="80",
        TINYASGI_PORT_80_TCP_ADDR="10.0.0.1",
        TINYASGI_METRICS_SERVICE_HOST="10.0.0.2",
        TINYASGI_METRICS_PORT="tcp://10.0.0.2:80",
    )[1]
    assert config == Config()


@pytest.mark.parametrize("service", ["DB", "WS", "PROXY", "WORKERS", "HEALTH", "LOGS"])
def test_services_whose_names_begin_alike(service: str, command: Any) -> None:
    """Variables of Kubernetes for the Service `tinyasgi-db` give no warning."""
    port = f"TINYASGI_{service}_PORT"
    names = {f"TINYASGI_{service}_SERVICE_HOST": "10.0.0.1", f"{port}_80_TCP_ADDR": "10.0.0.1"}
    for protocol in ("tcp", "udp", "sctp"):
        assert command("m:a", **names, **{port: f"{protocol}://10.0.0.1:80"})[1] == Config()


# --print-config.


def show(capsys: Any, *words: str) -> str:
    with pytest.raises(SystemExit) as leaving:
        main(["--print-config", *words])
    assert not leaving.value.code
    out, err = capsys.readouterr()
    assert err == ""
    return str(out)


def test_print(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tinyasgi__toml="timeout-head = 5\nenv-file = 'vars'", vars="TINYASGI_HOST=::1")
    monkeypatch.setenv("TINYASGI_BIND", ":80\nunix:sock")
    monkeypatch.setenv("TINYASGI_SSL_KEYFILE_PASSWORD", "sesame")
    text = show(capsys, "--no-access-log", "m:a")
    assert "sesame" not in text
    found = {tuple(re.split("  +# ", line)) for line in text.splitlines()}
    assert {
        ('app = "m:a"', "command line"),
        ("access-log = false", "--access-log"),
        ('bind = [":80", "unix:sock"]', "TINYASGI_BIND"),
        ('host = "::1"', "TINYASGI_HOST in vars"),
        ("timeout-head = 5", "timeout-head in tinyasgi.toml"),
        ("port = 8000", "default"),
        ("# use-colors", "not given"),
        ("# ssl-keyfile-password = ***", "TINYASGI_SSL_KEYFILE_PASSWORD"),
    } <= found


@pytest.mark.parametrize("option", OPTIONS, ids=[row[0] for row in OPTIONS])
def test_output_is_a_settings_file_with_the_same_meaning(
    option: Any, command: Any, capsys: Any
) -> None:
    name, text, value = option
    words = [dashed(name) if value else dashed(f"no_{name}")] if text is None else []
    words += [f"{dashed(name)}={text}"] if text is not None else []
    words += needed(name)
    app, config = command("m:a", *words)
    write(tinyasgi__toml=show(capsys, "m:a", *words))
    if name == "ssl_keyfile_password":
        config = config.replace(ssl_keyfile_password=None)
    assert command() == (app, config)


@pytest.mark.parametrize("words", [[], ["--port=1"], ["--log-level=debug"]])
def test_output_with_an_env_file(words: list[str], command: Any, capsys: Any) -> None:
    """As a settings file, the output has the same meaning, overridden options included."""
    pytest.importorskip("dotenv")
    write(vars="TINYASGI_PORT=2\nTINYASGI_HOST=::1\nTINYASGI_LOG_LEVEL=error")
    words += ["--env-file=vars"]
    expected = command("m:a", *words)
    write(tinyasgi__toml=show(capsys, "m:a", *words))
    assert command() == expected


@pytest.mark.parametrize("text", ['"', "\\", "a\tb", "\x7f", "é€😀", "#", "a # b", "'''"])
def test_texts_are_quoted(text: str, command: Any, capsys: Any) -> None:
    config = command("m:a", "--app-dir", text, "--reload-dir", text)[1]
    write(tinyasgi__toml=show(capsys, "m:a", "--app-dir", text, "--reload-dir", text))
    assert command("m:a")[1] == config


def test_path_that_is_not_utf8() -> None:
    found = collect({"app_dir": "\udcff"}, {})
    assert r'"\\udcff"' in render(None, Config(app_dir="\udcff"), found)


def test_output_on_an_ascii_terminal(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The output is UTF-8, as TOML requires, even for a path that is not valid UTF-8."""
    write(**{"\udcff__toml": "root-path = '/é'"})
    words = ["m:a", "--config", "\udcff.toml"]
    with (
        Path("tinyasgi.toml").open("w", encoding="ascii") as output,
        monkeypatch.context() as patch,
    ):
        patch.setattr(sys, "stdout", output)
        with pytest.raises(SystemExit) as leaving:
            main([*words, "--print-config"])
    assert not leaving.value.code
    assert command() == command(*words)


def test_print_without_an_app(capsys: Any) -> None:
    assert "# app" in show(capsys)


def test_python_reads_no_file(tmp_path: Path) -> None:
    write(tinyasgi__toml="port = 'wrong'")
    write(serve__py="import tinyasgi\nprint(tinyasgi.Config().port)\n")
    with Command(script="serve.py", cwd=tmp_path, TINYASGI_PORT="1") as process:
        assert process.wait() == 0
    assert process.output == "8000\n"
