"""Objects that let go of files or processes when a `with` block ends."""

from __future__ import annotations

from types import TracebackType
from typing import Self


class Closing:
    """What has a `close` can be used in a `with` statement."""

    def close(self) -> None:
        """Lets go of what is held."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
