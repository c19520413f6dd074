"""Draw the diagrams of the docs as SVG: `make map`. They follow light and dark mode."""

import html
from collections.abc import Callable, Iterable
from pathlib import Path

FOLDER = Path(__file__).parent / "diagrams"

STYLE = """
    .page { fill: #ffffff }
    .box { fill: #f6f8fa; stroke: #57606a; stroke-width: 1.5 }
    .good { fill: #dafbe1; stroke: #1a7f37; stroke-width: 1.5 }
    .wait { fill: #fff8c5; stroke: #9a6700; stroke-width: 1.5 }
    .data { fill: #ddf4ff; stroke: #0969da; stroke-width: 1.5 }
    .line { fill: none; stroke: #57606a; stroke-width: 1.5; stroke-dasharray: 3 4 }
    .arrow { fill: none; stroke: #0969da; stroke-width: 2; marker-end: url(#tip) }
    .tip { fill: #0969da }
    text { fill: #1f2328 }
    .name { font-weight: 600 }
    .small { font-size: 13px; fill: #57606a }
    @media (prefers-color-scheme: dark) {
      .page { fill: #0d1117 }
      .box { fill: #161b22; stroke: #8b949e }
      .good { fill: #12261e; stroke: #3fb950 }
      .wait { fill: #272115; stroke: #d29922 }
      .data { fill: #121d2f; stroke: #58a6ff }
      .line { stroke: #8b949e }
      .arrow { stroke: #58a6ff }
      .tip { fill: #58a6ff }
      text { fill: #e6edf3 }
      .small { fill: #9da7b3 }
    }
"""


class Picture:
    """An SVG with boxes, arrows and texts. Coordinates are pixels."""

    def __init__(self, title: str, width: int, height: int) -> None:
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"'
            f' width="{width}" height="{height}" role="img" aria-labelledby="title"'
            ' font-family="system-ui, sans-serif" font-size="15">',
            f'  <title id="title">{html.escape(title)}</title>',
            f"  <style>{STYLE}  </style>",
            '  <defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="6"'
            ' markerHeight="6" orient="auto"><path class="tip" d="M0 0 8 4 0 8Z"/></marker></defs>',
            f'  <rect class="page" width="{width}" height="{height}"/>',
        ]

    def text(self, x: int, y: int, text: str, kind: str = "", anchor: str = "start") -> None:
        self.parts.append(
            f'  <text class="{kind}" x="{x}" y="{y}" text-anchor="{anchor}">'
            f"{html.escape(text)}</text>"
        )

    def box(
        self,
        x: int,
        y: int,
        width: int,
        height: int,
        kind: str = "box",
        name: str = "",
        lines: Iterable[str] = (),
    ) -> None:
        """Draw a box with a name and smaller lines below it."""
        self.parts.append(
            f'  <rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{height}" rx="6"/>'
        )
        if name:
            self.text(x + 14, y + 24, name, "name")
        for number, line in enumerate(lines):
            self.text(x + 14, y + 45 + 19 * number, line, "small")

    def arrow(self, *points: tuple[int, int], kind: str = "arrow") -> None:
        path = "L".join(f"{x} {y}" for x, y in points)
        self.parts.append(f'  <path class="{kind}" d="M{path}"/>')

    def message(self, y: int, start: int, end: int, label: str) -> None:
        """Draw an arrow from one lifeline to another, with a label above its middle."""
        self.arrow((start, y), (end + (6 if end < start else -6), y))
        self.text((start + end) // 2, y - 9, label, "small", "middle")

    def render(self) -> str:
        return "\n".join([*self.parts, "</svg>", ""])


def shutdown() -> str:
    """Draw the steps of a graceful shutdown."""
    picture = Picture("The steps of a graceful shutdown, and the time limit of each", 700, 560)
    steps = (
        (
            "Still accepting",
            (
                "New connections are accepted.",
                "The health path answers 503.",
            ),
            ("--shutdown-delay", "default: 0 s"),
        ),
        (
            "Draining",
            (
                "The sockets stop accepting. Idle connections close.",
                "Running requests finish. Streams end.",
            ),
            ("--timeout-graceful-shutdown", "default: 25 s, then cancelled"),
        ),
        (
            "Lifespan shutdown",
            ("The app closes its connection pools.",),
            ("--timeout-graceful-shutdown", "again, at least 1 s"),
        ),
        (
            "Background tasks and threads",
            ("Tasks are cancelled, threads and processes finish.",),
            ("the rest of the time", "that the requests had"),
        ),
    )
    picture.box(20, 16, 400, 40, "data", "SIGTERM or Ctrl-C")
    picture.text(440, 40, "time limit", "name")
    y = 56
    for name, lines, limit in steps:
        height = 38 + 19 * len(lines) + 2
        picture.arrow((220, y), (220, y + 24))
        y += 26
        picture.box(20, y, 400, height, "wait", name, lines)
        for number, line in enumerate(limit):
            picture.text(440, y + 26 + 20 * number, line, "small")
        y += height
    picture.arrow((220, y), (220, y + 24))
    picture.box(20, y + 26, 400, 40, "good", "Exit with code 0")
    picture.text(20, y + 94, "A second signal shortens each wait to 1 s.", "small")
    picture.text(20, y + 114, "A third signal ends the processes at once.", "small")
    return picture.render()


def replacement() -> str:
    """Draw how a worker is replaced without dropping a request."""
    picture = Picture(
        "A worker is replaced: the new one is ready before the old one stops", 700, 400
    )
    picture.box(20, 16, 190, 40, "box", "Supervisor")
    picture.box(260, 16, 190, 40, "wait", "Old worker")
    picture.box(490, 16, 190, 40, "good", "New worker")
    for x in (115, 355, 585):
        picture.arrow((x, 56), (x, 384), kind="line")
    messages = (
        (100, 115, 585, "start, with the same sockets"),
        (160, 585, 115, "ready: the app has started"),
        (220, 115, 355, "retire"),
        (350, 355, 115, "exit, after lifespan shutdown"),
    )
    for y, start, end, label in messages:
        picture.arrow((start, y), (end + (6 if end < start else -6), y))
        picture.text(235, y - 9, label, "small", "middle")
    picture.text(370, 245, "stops accepting", "small")
    picture.text(370, 266, "finishes its requests", "small")
    picture.text(370, 287, "closes idle connections", "small")
    picture.text(370, 308, "after 5 s at the latest", "small")
    picture.text(596, 196, "accepts", "small")
    picture.text(596, 215, "connections", "small")
    picture.text(370, 90, "serves", "small")
    return picture.render()


def wsgi() -> str:
    """Draw the messages of one WSGI call between client, event loop and thread."""
    picture = Picture("A WSGI call: the event loop does the I/O, a thread runs the app", 700, 530)
    picture.box(20, 16, 130, 40, "box", "Client")
    picture.box(250, 16, 150, 40, "data", "Event loop")
    picture.box(550, 16, 130, 40, "good", "Thread")
    client, loop, thread = 85, 325, 615
    for x in (client, loop, thread):
        picture.arrow((x, 56), (x, 514), kind="line")
    picture.message(96, client, loop, "request and whole body")
    picture.message(136, loop, thread, "job: call the app")
    picture.message(196, thread, loop, "head and first piece of body")
    picture.message(226, loop, client, "send")
    picture.message(256, thread, loop, "piece of body")
    picture.message(286, loop, client, "send")
    picture.message(336, thread, loop, "SYNC, after 256 KiB")
    picture.message(376, loop, client, "send what was posted")
    picture.message(406, loop, thread, "everything is sent")
    picture.message(456, thread, loop, "last piece of body, END")
    picture.message(486, loop, client, "send")
    picture.text(thread - 10, 160, "runs the app", "small", "end")
    picture.text(thread - 10, 352, "waits", "small", "end")
    picture.text(thread - 10, 500, "takes the next job", "small", "end")
    return picture.render()


def request() -> str:
    """Draw the life of a request between client, connection, exchange and app."""
    picture = Picture("The life of a request", 720, 600)
    client, connection, exchange, app = 75, 275, 475, 650
    picture.box(20, 16, 110, 40, "box", "Client")
    picture.box(210, 16, 130, 40, "data", "Connection")
    picture.box(415, 16, 120, 40, "data", "Exchange")
    picture.box(600, 16, 100, 40, "good", "App")
    for x in (client, connection, exchange, app):
        picture.arrow((x, 56), (x, 584), kind="line")
    picture.message(96, client, connection, "bytes of the head")
    picture.text(connection + 10, 121, "waits for the end", "small")
    picture.text(connection + 10, 140, "of the head, parses it,", "small")
    picture.text(connection + 10, 159, "chooses the framing", "small")
    picture.message(196, connection, exchange, "create, with scope")
    picture.message(230, exchange, app, "start a task")
    picture.message(264, client, connection, "bytes of the body")
    picture.message(290, connection, exchange, "feed")
    picture.message(324, app, exchange, "receive()")
    picture.message(350, exchange, app, "http.request")
    picture.message(394, app, exchange, "response.start")
    picture.text(exchange + 10, 414, "stored", "small")
    picture.message(444, app, exchange, "response.body")
    picture.message(470, exchange, connection, "write_head")
    picture.message(496, connection, client, "head and body")
    picture.text(client + 10, 516, "in one write", "small")
    picture.message(526, exchange, connection, "complete")
    picture.text(connection + 10, 546, "next request", "small")
    picture.message(566, app, exchange, "returns")
    return picture.render()


def logs() -> str:
    """Draw where log lines go by default."""
    picture = Picture("Where log lines go", 700, 250)
    rows = (
        (16, "Server messages", "logger tinyasgi.server", "stderr", "--error-log-file"),
        (96, "Access lines", "logger tinyasgi.access", "stdout", "--access-log-file"),
        (176, "Messages of the app", "its own loggers", "as the app configures", "--log-config"),
    )
    for y, name, logger, target, option in rows:
        picture.box(20, y, 260, 60, "box", name, (logger,))
        picture.arrow((280, y + 30), (414, y + 30))
        picture.text(347, y + 22, "default", "small", "middle")
        picture.box(420, y, 260, 60, "data", target, (f"or {option}",))
    return picture.render()


def metrics() -> str:
    """Draw how metrics of several workers become one page."""
    picture = Picture("Any worker answers a scrape with the sum of all workers", 700, 280)
    picture.box(20, 100, 130, 60, "box", "Prometheus", ("GET /metrics",))
    for number, y in enumerate((16, 100, 184)):
        picture.box(230, y, 160, 60, "good", f"Worker {number}", ("serves requests",))
        picture.arrow((390, y + 30), (494, y + 30))
        picture.box(500, y, 180, 60, "data", f"Row {number}", ("counters and gauges",))
    picture.text(442, 36, "writes", "small", "middle")
    picture.arrow((150, 130), (224, 130))
    picture.arrow((560, 100), (560, 82), kind="line")
    picture.arrow((560, 184), (560, 166), kind="line")
    picture.text(500, 264, "shared memory", "small")
    picture.text(20, 184, "any worker adds up", "small")
    picture.text(20, 203, "all rows", "small")
    return picture.render()


PICTURES: dict[str, Callable[[], str]] = {
    "shutdown": shutdown,
    "replacement": replacement,
    "wsgi": wsgi,
    "request": request,
    "logs": logs,
    "metrics": metrics,
}

if __name__ == "__main__":
    for name, draw in PICTURES.items():
        FOLDER.joinpath(f"{name}.svg").write_text(draw(), encoding="utf-8")
