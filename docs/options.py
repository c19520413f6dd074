"""Write docs/options.md from the fields of `Config`: `make docs`."""

import dataclasses
from pathlib import Path

from tinyasgi import Config
from tinyasgi.config.kinds import FLAG, Kind
from tinyasgi.config.sources import environment_name, option_name

PAGE = Path(__file__).with_name("options.md")

HEAD = """\
# Options

<!-- Written by docs/options.py from the fields of Config. Change those, then: make docs -->

You can set an option in four places:

- on the command line: `tinyasgi app:main --timeout-head 5`;
- in an environment variable: `TINYASGI_TIMEOUT_HEAD=5`. The command line overrides it;
- in `tinyasgi.toml`, or in the table `[tool.tinyasgi]` of `pyproject.toml`: `timeout-head = 5`. The
  command line and environment variables override it ([settings.md](settings.md));
- in Python, as a field of `tinyasgi.Config` or an argument of `run`, `serve` and `Server`:
  `timeout_head=5`.

A flag is `--access-log` or `--no-access-log` on the command line, and `true` or `false` elsewhere.
A repeatable option takes one value per line in an environment variable, and a list in a file and in
Python. Times are in seconds and may have a fraction. The app itself can be set by `TINYASGI_APP`,
or by `app` in a file.
"""


def render() -> str:
    """Return the whole page."""
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
    variables = f"`{environment_name(field.name)}`"
    if other := field.metadata["variable"]:
        variables += f", `{other}`"
    given = field.default not in (None, "", ())
    default = f"`{', '.join(kind.texts(field.default))}`" if given else ""
    if kind is FLAG:
        name = f"`{name}`, `{name.replace('--', '--no-', 1)}`"
    else:
        name = f"`{name} {kind.metavar}`"
    cells = (name, variables, default, field.metadata["help"])
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
