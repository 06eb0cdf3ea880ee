"""How many deliveries go one way at a time: more while it goes well. Pure."""

FIRST = 5  # as much as a server that knows nothing of us takes gladly


class Window:
    """The number for one route: one more after as many good ones, one less after bad.

    A failure of a recipient says nothing of the way. One always remains: to find
    out whether the other side is back.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._size = float(min(FIRST, most))

    @property
    def size(self) -> int:
        return int(self._size)

    def succeeded(self) -> None:
        self._size = min(self._size + 1 / self._size, self._most)

    def failed(self) -> None:
        """The server could not be reached, or was too busy."""
        self._size = max(self._size - 1, 1)
