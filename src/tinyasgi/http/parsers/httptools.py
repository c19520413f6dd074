"""Headers by httptools, the binding of Node's llhttp."""

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from ...typing import Headers
from . import START_LINE, split_headers

__all__ = ["HttptoolsParser"]


class HttptoolsParser:
    """llhttp is fed one whole head at a time and never sees a body."""

    def __init__(self) -> None:
        self._fields: Headers = []
        self._renew()

    def _renew(self) -> None:
        # Emptied when a message is complete: a list, so that what llhttp calls is no Python.
        self._unfinished = [True]
        self.on_message_complete = self._unfinished.clear
        self._llhttp = HttpRequestParser(self)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields.append((name.lower(), value.rstrip()))

    def parse_headers(self, head: bytes, start: int) -> Headers:
        headers: Headers = []
        self._fields = headers
        try:
            self._llhttp.feed_data(head)
        except HttpParserUpgrade:
            pass  # the message is complete all the same
        except HttpParserError:
            return self._fields_alone(head[start:])
        if self._unfinished:  # it waits for a body
            self._renew()
        else:
            self._unfinished.append(True)
        return headers

    def _fields_alone(self, section: bytes) -> Headers:
        """The headers of a head whose start line, or whose coming at all, llhttp may have refused.

        It knows a fixed list of methods and its own grammar of targets; `request` has judged both.
        After `connection: close` it expects no more, but this head is of another connection.
        """
        self._renew()
        self._fields = []
        try:
            self._llhttp.feed_data(START_LINE + section)
        except HttpParserUpgrade:
            pass
        except HttpParserError:
            self._fields = split_headers(section)
        finally:
            self._renew()
        return self._fields
