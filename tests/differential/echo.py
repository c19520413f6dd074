"""Apps for all servers. A response shows the request in its header `x-echo`."""

from typing import Any


def describe(method: str, target: bytes, body: bytes) -> bytes:
    return b"%b %b %b" % (method.encode("latin-1"), target, body)


async def app(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    body, more_body = b"", True
    while more_body:
        message = await receive()
        if message["type"] != "http.request":
            return
        body += message["body"]
        more_body = message["more_body"]
    query = scope["query_string"]
    target = scope["raw_path"].partition(b"?")[0] + (b"?" + query if query else b"")
    echo = describe(scope["method"], target, body).hex().encode()
    headers = [(b"x-echo", echo), (b"content-length", b"0")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body"})


def wsgi(environ: Any, start_response: Any) -> list[bytes]:
    body = environ["wsgi.input"].read()
    target = environ["RAW_URI"].encode("latin-1").partition(b"#")[0]
    echo = describe(environ["REQUEST_METHOD"], target, body).hex()
    start_response("200 OK", [("x-echo", echo), ("content-length", "0")])
    return []
