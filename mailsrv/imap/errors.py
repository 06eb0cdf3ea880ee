"""What ends an IMAP command with NO or BAD; the server turns it into the reply."""


class ProtocolViolation(Exception):
    """The client broke the protocol: tagged BAD with this text."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class Refused(Exception):
    """A decision against the client: tagged NO, with an RFC 5530 code or none."""

    def __init__(self, text: str, code: bytes = b"") -> None:
        super().__init__(text)
        self.text = text
        self.code = code
