"""gRPC and Connect with connectrpc: one service for clients of both protocols.

    pip install connectrpc
    tinyasgi examples.connect_echo:app

gRPC clients need HTTP/2. Connect clients may also use HTTP/1.1, and JSON:

    curl --json '"Hello"' http://127.0.0.1:8000/Echo/Repeat

A real service has a .proto file, from which connectrpc generates the classes of the messages, the
descriptions of the methods, and the application. The messages of this example are strings, so it
needs no generated code.
"""

from collections.abc import AsyncIterator, Mapping
from typing import Any, TypeAlias

from connectrpc.method import IdempotencyLevel, MethodInfo, StreamType
from connectrpc.request import RequestContext
from connectrpc.server import ConnectASGIApplication, Endpoint
from protobuf.wkt.google.protobuf.wrappers_pb import StringValue

Context: TypeAlias = RequestContext[StringValue, StringValue]


class Echo:
    """The service: one method of each kind of call."""

    async def repeat(self, message: StringValue, context: Context) -> StringValue:
        """Unary."""
        return message

    async def join(self, messages: AsyncIterator[StringValue], context: Context) -> StringValue:
        """Client streaming."""
        return StringValue(value=" ".join([message.value async for message in messages]))

    async def split(self, message: StringValue, context: Context) -> AsyncIterator[StringValue]:
        """Server streaming."""
        for word in message.value.split():
            yield StringValue(value=word)

    async def answer(
        self, messages: AsyncIterator[StringValue], context: Context
    ) -> AsyncIterator[StringValue]:
        """Streaming in both directions."""
        async for message in messages:
            yield message


# connectrpc would generate the rest.


def method(name: str, kind: StreamType) -> MethodInfo[StringValue, StringValue]:
    """Describe a method whose messages are strings."""
    return MethodInfo(
        name=name,
        service_name="Echo",
        input=StringValue,
        output=StringValue,
        idempotency_level=IdempotencyLevel.UNKNOWN,
        stream_type=kind,
    )


REPEAT = method("Repeat", StreamType.UNARY)
JOIN = method("Join", StreamType.CLIENT_STREAM)
SPLIT = method("Split", StreamType.SERVER_STREAM)
ANSWER = method("Answer", StreamType.BIDI_STREAM)


def endpoints(service: Echo) -> Mapping[str, Any]:
    """Return the endpoint for each path."""
    return {
        "/Echo/Repeat": Endpoint.unary(REPEAT, service.repeat),
        "/Echo/Join": Endpoint.client_stream(JOIN, service.join),
        "/Echo/Split": Endpoint.server_stream(SPLIT, service.split),
        "/Echo/Answer": Endpoint.bidi_stream(ANSWER, service.answer),
    }


class EchoApplication(ConnectASGIApplication[Echo]):
    """An ASGI application that serves `Echo`."""

    path = "/Echo"

    def __init__(self, service: Echo) -> None:
        super().__init__(service=service, endpoints=endpoints)


app = EchoApplication(Echo())
