"""Rows with their vectors in one Parquet file: what `export` and `embed` write and `import` reads.

A row is what a store holds (see `records`). The file's metadata say which model made the vectors,
so they go into any store as they are, bit by bit, and never into one of another model.
"""

from rsicd_embed.rowfile.checking import CheckedRows as CheckedRows
from rsicd_embed.rowfile.checking import check as check
from rsicd_embed.rowfile.reading import RowFile as RowFile
from rsicd_embed.rowfile.reading import what_is_at as what_is_at
from rsicd_embed.rowfile.writing import Written as Written
from rsicd_embed.rowfile.writing import write as write
