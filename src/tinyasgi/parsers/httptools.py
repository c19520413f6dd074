"""Fields by httptools, the binding of Node's llhttp."""

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from ..typing import Fields
from . import START_LINE, malformed

__all__ = ["HttptoolsParser"]


class HttptoolsParser:
    """llhttp is fed one whole head at a time and never sees a body."""

    __slots__ = ("_ended", "_fields", "_llhttp", "_reusable")

    def __init__(self) -> None:
        self._fields: Fields = []
        self._renew()

    def _renew(self) -> None:
        self._ended = self._reusable = False
        self._llhttp = HttpRequestParser(self)
        # After a head with `connection: close` llhttp would refuse the next one; but that next
        # one comes from another connection.
        self._llhttp.set_dangerous_leniencies(lenient_data_after_close=True)

    def fields(self, head: bytes, start: int) -> Fields:
        if not self._reusable:
            self._renew()
        self._reusable = False
        fields: Fields = []
        self._fields = fields
        try:
            self._llhttp.feed_data(head)
        except HttpParserUpgrade:
            pass  # the message is complete all the same
        except HttpParserError:
            return self._fields_alone(head[start:])
        return fields

    def _fields_alone(self, section: bytes) -> Fields:
        """The fields of a head whose start line may be what llhttp refuses.

        It knows a fixed list of methods and its own grammar of targets; `rules` has judged both.
        """
        self._renew()
        self._fields = []
        try:
            self._llhttp.feed_data(START_LINE + section)
        except HttpParserError:
            # Past the end of the head only its opinion of transfer codings is left to refuse,
            # and `rules` has one.
            if not self._ended:
                raise malformed(section) from None
        return self._fields

    # What llhttp calls.

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields.append((name.lower(), value.rstrip()))

    def on_headers_complete(self) -> None:
        self._ended = True

    def on_message_complete(self) -> None:
        self._reusable = True
