"""The URIs of stores: a scheme, a location, options and a table."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from rsicd_embed import plugins
from rsicd_embed.arguments import shown
from rsicd_embed.errors import StoreURIError


@dataclass(frozen=True)
class StoreURI:
    """`scheme:location[?option=value&…][#table]`, for example `lancedb:./tiles#images`."""

    scheme: str
    location: str
    table: str = "images"
    options: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> StoreURI:
        """Splits a store URI into its parts.

        Raises:
            StoreURIError: not a string, no scheme, no path, or an empty table name.
        """
        if not isinstance(text, str):
            raise StoreURIError(
                f"expected a store URI such as 'lancedb:./tiles', found {shown(text)}"
            )
        scheme, colon, rest = text.partition(":")
        location, hash_, table = rest.partition("#")
        if not (scheme and colon and location) or (hash_ and not table):
            raise StoreURIError(
                f"expected a store URI such as lancedb:./tiles or nmslib:./index, found {text!r}; "
                f"known schemes: {', '.join(plugins.names(plugins.STORES))}"
            )
        if location.startswith("//.") or location != location.strip():
            raise StoreURIError(
                f"expected a path after {scheme}:, as in {scheme}:./tiles, found {location!r}; "
                "remove the slashes or spaces before it"
            )
        # A path may contain a question mark, so only name=value pairs at the end are options.
        match = re.fullmatch(r"(.+?)\?(\w+=[\w.]+(?:&\w+=[\w.]+)*)", location)
        options: list[tuple[str, str]] = []
        if match:
            location = match[1]
            pairs = (pair.partition("=") for pair in match[2].split("&"))
            options = [(name, value) for name, _, value in pairs]
        return cls(scheme, location, table or "images", tuple(options))

    def __str__(self) -> str:
        options = "&".join(f"{name}={value}" for name, value in self.options)
        suffix = "" if self.table == "images" else f"#{self.table}"
        return f"{self.scheme}:{self.location}{'?' if options else ''}{options}{suffix}"

    def numbers(self, **limits: tuple[float, float]) -> dict[str, float]:
        """Returns the options as numbers, checked against `name=(lowest, highest)`.

        Raises:
            StoreURIError: an unknown option, or a value outside its limits.
        """
        numbers: dict[str, float] = {}
        for name, value in self.options:
            if name not in limits:
                known = ", ".join(limits) or "none"
                raise StoreURIError(
                    f"{self}: {self.scheme} stores have no option {name!r}; known options: {known}"
                )
            lowest, highest = limits[name]
            try:
                numbers[name] = float(value)
            except ValueError:
                numbers[name] = math.nan
            if not lowest <= numbers[name] <= highest:
                raise StoreURIError(
                    f"{self}: expected {name} from {lowest:g} to {highest:g}, found {value!r}"
                )
        return numbers
