"""The workloads. To add one, add a row here and an app in `apps`."""

from __future__ import annotations

from functools import partial

from . import apps, http2_load, websocket
from .load import load
from .resting import crowd, memory_connection, memory_idle, start, wakeups
from .samples import Workload
from .servers import CROWD, Setup
from .steady import half_load, high_load

BODY = b"tinyasgi" * 128  # 1 KiB
TEXT, LONG = BODY[:64], BODY * 16
JSON = b'{"message":"Hello, world!"}'
#: Response of `frameworks.items_app`.
ITEMS_JSON = b"[%b]" % b",".join(
    [b'{"id":%d,"name":"item %d","tags":["a","b"]}' % (number, number) for number in range(20)]
)
STREAM = apps.PIECE * apps.PIECES
EVENTS = b"".join(apps.EVENTS)
#: Headers of a page request from Chrome, without Host.
BROWSER = (
    ("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8"),
    ("Accept-Encoding", "gzip, deflate, br, zstd"),
    ("Accept-Language", "en-GB,en;q=0.9,de;q=0.8"),
    ("Cache-Control", "max-age=0"),
    ("Cookie", "session=6f1ed002ab5595859014ebf0951522d9; theme=dark; consent=1"),
    ("Priority", "u=0, i"),
    ("Referer", "http://localhost/from/some/page?with=query"),
    ("Sec-CH-UA", '"Chromium";v="140", "Not=A?Brand";v="24"'),
    ("Sec-CH-UA-Mobile", "?0"),
    ("Sec-CH-UA-Platform", '"Linux"'),
    ("Sec-Fetch-Dest", "document"),
    ("Sec-Fetch-Mode", "navigate"),
    ("Sec-Fetch-Site", "same-origin"),
    ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/140.0 Safari/537.36"),
)
HTTP2, HTTP2_TLS = Setup("apps:hello", http2=True), Setup("apps:hello", http2=True, tls=True)
HELLO, ECHO = Setup("apps:hello"), Setup("apps:echo")
hello = partial(Workload, setup=HELLO, answer=apps.GREETING)
few = partial(hello, more_is_better=False)
latency = partial(
    Workload,
    setup=Setup("frameworks:items_app"),
    answer=ITEMS_JSON,
    unit="ms",
    more_is_better=False,
)
wsgi = partial(Workload, measure=load, answer=apps.GREETING)
http2 = partial(Workload, measure=http2_load.load, answer=apps.GREETING)
ws = partial(
    Workload,
    setup=Setup("apps:ws_echo", websocket=True),
    connections=32,
    unit="messages/s",
)

WORKLOADS = {
    workload.name: workload
    for workload in (
        hello("hello", "Short response to a GET", load),
        hello(
            "hello-log",
            "Short response, access log on",
            load,
            setup=Setup("apps:hello", log=True),
        ),
        hello("pipelined", "Short response, 16 pipelined requests", load, pipeline=16),
        hello("browser", "Short response, 15 request headers", load, headers=BROWSER),
        hello("tls", "Short response over TLS", load, setup=Setup("apps:hello", tls=True)),
        hello("workers", "Short response, 2 workers", load, setup=Setup("apps:hello", workers=2)),
        Workload("post-1k", "Echo of 1 KiB", load, ECHO, BODY, BODY),
        Workload("post-64k", "Echo of 64 KiB", load, ECHO, BODY * 64, BODY * 64),
        Workload(
            "stream-4m", "Response of 4 MiB in pieces of 64 KiB", load, Setup("apps:stream"), STREAM
        ),
        Workload("events-100", "Response of 100 events", load, Setup("apps:events"), EVENTS),
        Workload(
            "starlette",
            "Short response, Starlette",
            load,
            Setup("frameworks:starlette_app"),
            apps.GREETING,
        ),
        Workload("fastapi", "JSON response, FastAPI", load, Setup("frameworks:fastapi_app"), JSON),
        wsgi("flask", "Short response, Flask", setup=Setup("wsgi_frameworks:flask_app", wsgi=True)),
        wsgi(
            "flask-events",
            "Response of 100 events, Flask",
            setup=Setup("wsgi_frameworks:flask_events", wsgi=True),
            answer=EVENTS,
        ),
        wsgi(
            "django",
            "Short response, Django (WSGI)",
            setup=Setup("wsgi_frameworks:django_app", wsgi=True),
        ),
        http2("h2", "HTTP/2: short response", setup=HTTP2, connections=16, streams=32),
        http2("h2-single", "HTTP/2: short response, one stream per connection", setup=HTTP2),
        http2(
            "h2-tls",
            "HTTP/2: short response over TLS",
            setup=HTTP2_TLS,
            connections=16,
            streams=32,
        ),
        http2(
            "h2-stream-4m",
            "HTTP/2: response of 4 MiB in pieces of 64 KiB",
            setup=Setup("apps:stream", http2=True),
            answer=STREAM,
            connections=4,
            streams=2,
        ),
        http2(
            "h2-upload-1m",
            "HTTP/2: upload of 1 MiB",
            setup=Setup("apps:upload", http2=True),
            body=BODY * 1024,
            connections=4,
            streams=2,
        ),
        ws("ws-64", "WebSocket echo of 64 bytes", websocket.echo, body=TEXT, answer=TEXT),
        ws("ws-16k", "WebSocket echo of 16 KiB", websocket.echo, body=LONG, answer=LONG),
        ws(
            "ws-broadcast",
            "WebSocket broadcast to 1,000 clients",
            websocket.broadcast,
            setup=Setup("apps:ws_broadcast", websocket=True),
            body=TEXT,
            answer=TEXT,
            connections=1000,
        ),
        hello("crowd", f"100 of {CROWD:,} connections active", crowd, connections=100),
        latency("latency-50", "p99.9 at 50 % of saturation, FastAPI", half_load),
        latency("latency-80", "p99.9 at 80 % of saturation, FastAPI", high_load),
        few("start", "Time from process start to first response", start, unit="ms"),
        few("memory-idle", "Memory (PSS) after the first requests", memory_idle, unit="MiB"),
        few(
            "memory-connection",
            "Memory (PSS) per idle keep-alive connection",
            memory_connection,
            unit="KiB",
        ),
        few("wakeups", "Wake-ups of an idle server", wakeups, unit="per second"),
    )
}
