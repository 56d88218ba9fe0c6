"""SQL over the rows of any store, with similarity to a text or an image as an expression.

The engine is DataFusion, whose dialect `where` uses too. The rows are the table `images`, and

    similarity('a harbour full of boats')      similarity_image('harbour.jpg')

are the cosine similarity of a row to a text or an image: float32, equal to the score of `search`.
Further parts follow by name, and a number before a `*` is a weight, as in `search`:

    similarity('2*harbour', not => 'oil tanks', also => 'boats', like => 'a row.png')

How a store is read:
- Columns: only those that DataFusion's optimised plan needs, so no vectors without a similarity.
- Rows: if `images` is scanned once and without an alias, `VectorStore.scan` applies the conditions
  of WHERE that consist of attributes, literals, comparisons, LIKE, IN, BETWEEN, IS …, AND, OR, NOT
  and a few functions that cannot fail; DataFusion applies all of WHERE again. Conditions on a
  similarity or with other functions, HAVING, and JOIN … ON are not pushed down. Reading stops as
  soon as LIMIT is reached.
- Memory: rows are streamed. Vectors are reduced to their scores unless a query uses `vector`
  itself, so sorts and groups need little more memory than the columns they use. If a query scans
  the table several times, the columns it needs are read once and cached: all scans see one state.

Queries are read-only: statements that define, write or set anything are refused, `images` is the
only table, and only `similarity_image` can open a file, which it reads as a picture.
"""
