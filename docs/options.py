"""Writes docs/options.md from the fields of `Config`: `make docs`."""

import dataclasses
from pathlib import Path

from tinyasgi import Config
from tinyasgi.config.kinds import FLAG, Kind
from tinyasgi.config.sources import environment_name, option_name

PAGE = Path(__file__).with_name("options.md")

HEAD = """\
# Options

<!-- Written by docs/options.py from the fields of Config. Change those, then: make docs -->

Each option has four names:

- on the command line: `tinyasgi app:main --timeout-head 5`;
- in the environment: `TINYASGI_TIMEOUT_HEAD=5`, which the command line overrides;
- in `tinyasgi.toml`, or `[tool.tinyasgi]` of `pyproject.toml`: `timeout-head = 5`, which both
  override ([settings.md](settings.md));
- in Python, as a field of `tinyasgi.Config` and an argument of `run`, `serve` and `Server`:
  `timeout_head=5`.

Flags are said as `--access-log` or `--no-access-log`, elsewhere as `true` or `false`. An option
that is repeatable takes one value a line in the environment, and a list in a file and in Python.
Times are in seconds, sizes in bytes. The app itself can be given as `TINYASGI_APP`, or as `app` in
a file.
"""


def render() -> str:
    """The whole page."""
    parts = [HEAD]
    for field in dataclasses.fields(Config):
        if heading := field.metadata["heading"]:
            parts += [f"\n## {heading}\n\n", "| option | environment | default | meaning |\n"]
            parts += ["| --- | --- | --- | --- |\n"]
        parts += [_row(field)]
    return "".join(parts)


def _row(field: dataclasses.Field[object]) -> str:
    kind: Kind = field.metadata["kind"]
    name = option_name(field.name)
    if kind is FLAG:
        shown = {True: "on", False: "off"}.get(field.default, "")  # type: ignore[call-overload]
        name = f"`{name}`, `{name.replace('--', '--no-', 1)}`"
    else:
        given = field.default is not None and field.default not in ("", ())
        shown = f"`{', '.join(kind.show(field.default).splitlines())}`" if given else ""
        name = f"`{name} {kind.metavar}`"
    cells = (name, f"`{environment_name(field.name)}`", shown, field.metadata["help"])
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
