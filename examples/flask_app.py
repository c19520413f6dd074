"""A Flask application, which is one of WSGI: it blocks, and the server calls it in threads.

    pip install flask
    tinyasgi examples.flask_app:app

Then try it out:

    curl http://127.0.0.1:8000/hello/you
    seq 1000000 | curl -T - http://127.0.0.1:8000/lines
    curl http://127.0.0.1:8000/squares.csv?n=5

Both bodies are streams: the lines are counted as they arrive, the squares are sent as they are
made. Neither is ever in memory as a whole, and a client that is slow costs a thread its time, but
nobody else: ``--wsgi-threads`` says how many there are.
"""

from collections.abc import Iterator

from flask import Flask, Response, request

app = Flask(__name__)


@app.get("/hello/<name>")
def hello(name: str) -> str:
    """Greet somebody."""
    return f"Hello, {name}!\n"


@app.put("/lines")
def lines() -> dict[str, int]:
    """Count the lines of the body; reading waits for what has not arrived."""
    return {"lines": sum(1 for _ in request.stream)}


@app.get("/squares.csv")
def squares() -> Response:
    """Send a table row by row; the next one is made when the client has room for it."""
    n = request.args.get("n", 10, type=int)

    def rows() -> Iterator[str]:
        yield "number,square\n"
        for number in range(1, n + 1):
            yield f"{number},{number * number}\n"

    return Response(rows(), mimetype="text/csv")
