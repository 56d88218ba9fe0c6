"""Rows with vectors in one Parquet file: written by `export` and `embed`, read by `import`.

The rows are those of a store (see `records`). The file's metadata names the model that made the
vectors, so `import` stores them unchanged, and never in a store of another model.
"""

from rsicd_embed.rowfile.row_checks import CheckedRows as CheckedRows
from rsicd_embed.rowfile.row_checks import check as check
from rsicd_embed.rowfile.row_file import RowFile as RowFile
from rsicd_embed.rowfile.row_file import WrittenFile as WrittenFile
from rsicd_embed.rowfile.row_file import describe as describe
from rsicd_embed.rowfile.row_file import write as write
