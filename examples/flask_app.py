"""A Flask application. It is a WSGI app, which the server runs in threads because it blocks.

    pip install flask
    tinyasgi examples.flask_app:app

Then try it out:

    curl http://127.0.0.1:8000/hello/you
    seq 1000000 | curl -T - http://127.0.0.1:8000/lines
    curl http://127.0.0.1:8000/squares.csv?n=5

The squares are a streamed response: a row is created when the client has room for it. The server
receives the whole request body, in memory or in a temporary file, before it calls the app. So a
slow upload does not occupy a thread. ``--wsgi-threads`` sets the number of threads.
"""

from collections.abc import Iterator

from flask import Flask, Response, request

app = Flask(__name__)


@app.get("/hello/<name>")
def hello(name: str) -> str:
    """Send a greeting."""
    return f"Hello, {name}!\n"


@app.put("/lines")
def lines() -> dict[str, int]:
    """Count the lines of the request body."""
    return {"lines": sum(1 for _ in request.stream)}


@app.get("/squares.csv")
def squares() -> Response:
    """Send a table row by row."""
    n = request.args.get("n", 10, type=int)

    def rows() -> Iterator[str]:
        yield "number,square\n"
        for number in range(1, n + 1):
            yield f"{number},{number * number}\n"

    return Response(rows(), mimetype="text/csv")
