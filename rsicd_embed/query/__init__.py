"""SQL over the rows of any store, with similarity to a text or an image as an expression.

The engine is DataFusion, whose dialect `where` speaks too. The rows are the table `images`, and

    similarity('a harbour full of boats')      similarity_image('harbour.jpg')

are the cosine of a row with a text or an image: float32, the very score that `search` reports.

What is read of a store:
- Columns: those that DataFusion's optimised plan asks for, so no vectors without a similarity.
- Rows: where `images` is scanned once and has no alias, the conditions of its WHERE that consist of
  attributes, literals, comparisons, LIKE, IN, BETWEEN, IS …, AND, OR, NOT and a few functions that
  cannot fail go into `VectorStore.scan`; DataFusion applies all of WHERE again. Conditions on a
  similarity or with other functions, HAVING, and JOIN … ON are not handed down. Reading stops as
  soon as a LIMIT is reached.
- Memory: rows stream through. Of the vectors only their scores stay, unless a query uses `vector`
  itself, so sorts and groups hold little more than what they sort or group. Where a query scans the
  table several times, the columns it needs are read once and held: all see one state of the store.

Queries only read: statements that define, write or set anything are refused, no table but `images`
exists, and nothing in SQL names a file but `similarity_image`, which opens it as a picture.
"""

from rsicd_embed.query.run import run as run
