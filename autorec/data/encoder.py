"""Raw columns to codes and floats, fitted on training rows only, in bounded memory.

The encoder belongs to the model: it is saved beside the weights as JSON and Arrow files, and a
row means the same in training, tuning and serving.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from autorec.data import saved, text
from autorec.data.casting import numbers
from autorec.data.learning import BIN, Fitting, Settings, features_of, finite, require
from autorec.data.numeric import Numeric
from autorec.data.sequences import pad, parts
from autorec.data.timeline import of_rows
from autorec.data.vocabulary import FIRST, Codes, Vocabulary
from autorec.errors import SchemaError
from autorec.schema import DenseField, Layout, ListField, Schema, SparseField

if TYPE_CHECKING:
    from autorec.data.derivation import Derivation

__all__ = ["Encoded", "Encoder", "Settings", "require"]

Batches = Callable[[], Iterator[Any]]

_DERIVED = "derived"
_ROWS = 1 << 16  # rows encoded at a time: what is between raw values and codes stays in cache


@dataclass(frozen=True)
class Encoded:
    """What a model sees of n rows, in the order of the layout.

    Attributes:
        codes: (n, F) int32, one column per `layout.sparse`.
        lists: name to (n, L) int32, for each of `layout.lists`.
        dense: (n, Q) float32, one column per `layout.dense`, NaN where missing.
    """

    codes: Codes
    lists: dict[str, Codes]
    dense: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.codes)


class Encoder:
    """Fitted vocabularies, bins and scales. Made by `fit` or `load`.

    The layout has the plain columns first and the bins of the numeric columns (`<column>#bin`)
    behind them, each in the order of the schema, and last what a `Derivation` makes of these. A
    text is a list of hashed words, and its length (`<column>#length`) stands behind the numbers.

    Attributes:
        base: the layout without derived columns.
        layout: all columns.
    """

    def __init__(
        self,
        schema: Schema,
        settings: Settings,
        vocabularies: Mapping[str, Vocabulary],
        numeric: Mapping[str, Numeric],
        lengths: Mapping[str, int],
        derivation: Derivation | None = None,
    ) -> None:
        self.schema, self.settings, self.derivation = schema, settings, derivation
        self._vocabularies, self._numeric = dict(vocabularies), dict(numeric)
        self._lengths, self._texts = dict(lengths), text.lengths_of(schema.features)
        rows = {name: one.rows for name, one in vocabularies.items()}
        rows |= dict.fromkeys(self._texts.values(), FIRST + settings.text_buckets)
        plain = [name for name in vocabularies if name not in lengths]
        sparse = [SparseField(name, rows[name], name) for name in plain]
        own = [name for name in numeric if name not in self._texts]
        binned = [SparseField(f"{n}{BIN}", numeric[n].rows, n, binned=True) for n in own]
        self.base = Layout(
            sparse=(*sparse, *binned),
            lists=tuple(ListField(n, rows[n], lengths[n]) for n in lengths),
            dense=tuple(DenseField(name, column.nullable) for name, column in numeric.items()),
        )
        self.layout = self.base if derivation is None else derivation.behind(self.base)

    @classmethod
    def fit(
        cls,
        batches: Batches,
        schema: Schema,
        *,
        min_count: int = 2,
        bins: int = 32,
        max_list_length: int = 50,
        max_vocabulary: int | None = None,
        text_buckets: int = text.BUCKETS,
    ) -> Encoder:
        """Learn vocabularies, scales and bins from training rows.

        Memory is bounded by the distinct ids of a column, not by the rows. There is one pass, and
        a second one where a numeric column has more than 65,536 distinct values.

        Args:
            batches: gives a new iterator over the record batches of the training rows each time.
            schema: the roles and kinds; only `schema.features` are read.
            min_count: rarer values are out of vocabulary.
            bins: most quantile bins of a numeric column.
            max_list_length: a longer list keeps its LAST values, a longer text its FIRST words.
            max_vocabulary: each column keeps at most this many of its most frequent values.
            text_buckets: codes that the words of a text are hashed to.

        Raises:
            ConfigError: a setting is out of range.
            SchemaError: there is no feature, or a name collides with that of bins or a length.
            DataError: no rows, a missing column, an infinite number or a value of a wrong type.
        """
        settings = Settings(min_count, bins, max_list_length, max_vocabulary, text_buckets)
        fields = features_of(schema)
        fitting = Fitting(fields, settings)
        for batch in batches():
            fitting.add(batch)
        for batch in batches() if fitting.settle() else ():
            fitting.count(batch)
        return cls(schema, settings, *fitting.result())

    @property
    def min_count(self) -> int:
        """Rows a value needed in training to be kept."""
        return self.settings.min_count

    @property
    def bins(self) -> int:
        """Most quantile bins of a numeric column."""
        return self.settings.bins

    @property
    def max_list_length(self) -> int:
        """Most values kept of a list."""
        return self.settings.max_list_length

    @property
    def max_vocabulary(self) -> int | None:
        """Most values kept of a column, None for all."""
        return self.settings.max_vocabulary

    def vocabulary(self, name: str) -> Any:
        """Return the kept values (V,) as `pa.Array` of the training type; code c is at c - 2.

        Raises:
            SchemaError: the column has no vocabulary.
        """
        found = self._vocabulary(name)
        return found.decode(np.arange(2, found.rows))

    def decode(self, name: str, codes: npt.NDArray[Any]) -> Any:
        """Return the raw values (n,) as `pa.Array` of the training type; codes 0 and 1 are null.

        Raises:
            SchemaError: the column has no vocabulary.
            DataError: a code lies outside the vocabulary.
        """
        return self._vocabulary(name).decode(codes)

    def numeric(self, name: str) -> Numeric:
        """Return the fitted transform of a numeric column, or of `<column>#length` of a text.

        Raises:
            SchemaError: the column is not numeric.
        """
        if name not in self._numeric:
            raise SchemaError(f"no numeric column {name!r}; there are {sorted(self._numeric)}")
        return self._numeric[name]

    def extended(self, derivation: Derivation) -> Encoder:
        """Return this encoder with derived columns behind its own."""
        own = (self._vocabularies, self._numeric, self._lengths)
        return Encoder(self.schema, self.settings, *own, derivation)

    def encode(self, batch: Any) -> Encoded:
        """Return the codes and floats of the n rows of a `pa.RecordBatch` or `pa.Table`.

        Columns may come in any order, others are ignored. The timestamp is read where a derived
        column asks for it; rows without it are of the moment behind training.

        Raises:
            DataError: columns are missing (all are named), or a value cannot be encoded.
        """
        timed = self.derivation is not None and self.derivation.timed
        return self.derive(self.plain(batch), of_rows(batch, self.schema) if timed else None)

    def derive(self, encoded: Encoded, time: npt.NDArray[np.int64] | None = None) -> Encoded:
        """Return rows of `base`, of known times (n,), with the derived columns behind them."""
        if self.derivation is None:
            return encoded
        return self.derivation.append(self.base, encoded, time)

    def plain(self, batch: Any) -> Encoded:
        """Return what `encode` does without derived columns, as rows of `base`.

        Raises:
            DataError: columns are missing (all are named), or a value cannot be encoded.
        """
        names, n = [field.name for field in features_of(self.schema)], batch.num_rows
        require(batch, names)
        out = Encoded(
            codes=np.empty((n, len(self.base.sparse)), np.int32),
            lists={f.name: np.empty((n, f.length), np.int32) for f in self.base.lists},
            dense=np.empty((n, len(self.base.dense)), np.float32),
        )
        table = batch if isinstance(batch, pa.Table) else pa.Table.from_batches([batch])
        start = 0
        for piece in table.select(names).to_batches(max_chunksize=_ROWS):
            self._encode_into(piece, out, slice(start, start + piece.num_rows))
            start += piece.num_rows
        return out

    def save(self, folder: Path | str) -> None:
        """Write `encoder.json` and one Arrow file per vocabulary; the folder appears whole.

        Raises:
            DataError: the folder holds something that is no encoder.
        """
        numeric = {name: vars(column) for name, column in self._numeric.items()}
        body = {
            "schema": self.schema.to_json(),
            "settings": vars(self.settings),
            "numeric": {name: {**v, "edges": list(v["edges"])} for name, v in numeric.items()},
            "lengths": self._lengths,
            "derived": self.derivation is not None,
        }
        saved.write(Path(folder), body, self._vocabularies)
        if self.derivation is not None:
            self.derivation.save(Path(folder) / _DERIVED)

    @classmethod
    def load(cls, folder: Path | str) -> Encoder:
        """Read what `save` wrote; every code and float comes out the same.

        Raises:
            RankerError: no encoder, a newer version, or a file that is missing or altered.
        """
        body, vocabularies = saved.read(Path(folder))
        told = body["numeric"].items()
        numeric = {name: Numeric(**{**v, "edges": tuple(v["edges"])}) for name, v in told}
        schema, settings = Schema.from_json(body["schema"]), Settings(**body["settings"])
        derivation = None
        if body.get("derived"):
            from autorec.data.derivation import Derivation

            derivation = Derivation.load(Path(folder) / _DERIVED)
        return cls(schema, settings, vocabularies, numeric, body["lengths"], derivation)

    def _encode_into(self, batch: Any, out: Encoded, rows: slice) -> None:
        """Fill `rows` of `out` from a batch."""
        for at, sparse in enumerate(self.base.sparse):
            if not sparse.binned:
                codes = self._vocabularies[sparse.name].encode(batch.column(sparse.name))
                out.codes[rows, at] = codes
        counts = self._fill_lists(batch, out, rows)
        first = len(self.base.sparse) - len(self._numeric) + len(self._texts)
        infinite = {}
        for at, (name, column) in enumerate(self._numeric.items()):
            if name in self._texts:
                out.dense[rows, at] = column.dense(text.scaled(counts[self._texts[name]]))
                continue
            values = numbers(batch.column(name), name)
            if count := int(np.isinf(values).sum()):
                infinite[name] = count
                continue
            out.dense[rows, at] = column.dense(values)
            out.codes[rows, first + at] = column.bins(values)
        finite(infinite)

    def _fill_lists(self, batch: Any, out: Encoded, rows: slice) -> dict[str, text.Counts]:
        """Fill the lists of `rows` from a batch; return how many words each text (n,) has."""
        counts = {}
        for field in self.base.lists:
            name, array, width = field.name, batch.column(field.name), field.length
            if name in self._vocabularies:
                values, lengths = parts(array)
                block = pad(self._vocabularies[name].encode(values), lengths, width)
            else:
                block, counts[name] = text.block(array, width, self.settings.text_buckets, name)
            out.lists[name][rows] = block
        return counts

    def _vocabulary(self, name: str) -> Vocabulary:
        if name not in self._vocabularies:
            raise SchemaError(
                f"no column {name!r} with a vocabulary; there are {sorted(self._vocabularies)}"
            )
        return self._vocabularies[name]
