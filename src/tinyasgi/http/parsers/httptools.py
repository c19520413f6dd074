"""Parser that uses httptools, the binding of Node's llhttp."""

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from ...typing import Headers
from . import START_LINE, split_headers


class HttptoolsParser:
    """Parser that passes llhttp one complete head at a time, and never a body."""

    def __init__(self) -> None:
        self._headers: Headers = []
        self._reset()

    def _reset(self) -> None:
        # Empty once llhttp has completed a message. A method of this class as the callback would
        # cost 250 instructions more for each request.
        self._incomplete = [True]
        self.on_message_complete = self._incomplete.clear
        self._llhttp = HttpRequestParser(self)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value.rstrip()))

    def parse_headers(self, head: bytes, start: int) -> Headers:
        headers: Headers = []
        self._headers = headers
        try:
            self._llhttp.feed_data(head)
        except HttpParserUpgrade:
            pass  # the message is complete
        except HttpParserError:
            return self._parse_section(head[start:])
        if self._incomplete:  # llhttp waits for a body
            self._reset()
        else:
            self._incomplete.append(True)
        return headers

    def _parse_section(self, section: bytes) -> Headers:
        """Parse the headers of a head that llhttp has rejected.

        llhttp has a fixed list of methods and its own grammar of targets; `request` has validated
        both. After `connection: close`, llhttp rejects the next head, which is from another
        connection.
        """
        self._reset()
        self._headers = []
        try:
            self._llhttp.feed_data(START_LINE + section)
        except HttpParserUpgrade:
            pass
        except HttpParserError:
            return split_headers(section)
        finally:
            self._reset()
        return self._headers
