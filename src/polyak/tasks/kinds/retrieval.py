"""Queries whose relevant documents an encoder should find in a corpus."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from ...errors import TaskError
from ...modules import from_transformers, pool
from ...reading import Place, positive
from .._batch import Batch
from .._task import Task
from ..examples import ExampleTask
from ..frame import Frame, task_kind
from ..ranking import METRIC, measure
from ..rows import Rows, read_rows
from ..texts import Tokens, check_texts

if TYPE_CHECKING:
    from torch import Tensor, nn

TEMPERATURE = 0.05  # of the contrastive losses
CHUNK = 64  # documents encoded at a time


@dataclass(frozen=True)
class Corpus:
    """The documents to rank.

    Attributes:
        texts: The documents.
        relevance: By query, the relevance of its relevant documents, by their position in `texts`.
        prefixes: Texts before each query and each document.
        pooling: Reduction of token vectors to one vector.
    """

    texts: tuple[str, ...]
    relevance: Mapping[str, Mapping[int, float]]
    prefixes: tuple[str, str]
    pooling: str


class Retrieval(ExampleTask):
    """Cosine similarity of query and document ranks the whole corpus; rows are queries with `id` and `text`.

    `losses` are contrastive: each query's first relevant document against those of the other queries of the batch, at a
    temperature of 0.05.  They depend on who else is in the batch, so the task has no likelihood.
    """

    tokens: Tokens
    corpus: Corpus

    def collate(self, rows: Rows, examples: tuple[int, ...]) -> Batch:
        inputs = self.tokens.encode([self.corpus.prefixes[0] + text for text in rows.columns["text"]])
        relevance = [self.corpus.relevance[str(query)] for query in rows.columns["id"]]
        return Batch(inputs, None, examples, inputs["attention_mask"].bool(), {"relevance": relevance})

    def outputs(self, module: nn.Module, batch: Batch) -> Tensor:
        """The queries' vectors, (n, hidden), of length 1."""
        return self._embed(module, batch.inputs)

    def losses(self, module: nn.Module, batch: Batch) -> Tensor:
        import torch

        queries = self.outputs(module, batch)
        firsts = [next(iter(relevant)) for relevant in batch.extra["relevance"]]
        documents = self._documents(module, [self.corpus.texts[i] for i in firsts], queries.device)
        own = torch.arange(len(batch), device=queries.device)
        return torch.nn.functional.cross_entropy(queries @ documents.T / TEMPERATURE, own, reduction="none")

    def scores(self, module: nn.Module, batch: Batch) -> Tensor:
        return self.scoring(module)(batch)

    def scoring(self, module: nn.Module) -> Callable[[Batch], Tensor]:
        import torch

        device = next(module.parameters()).device
        with torch.no_grad():
            texts = self.corpus.texts
            parts = [self._documents(module, texts[i : i + CHUNK], device) for i in range(0, len(texts), CHUNK)]
            documents = torch.cat(parts)
        if not documents.isfinite().all():
            raise TaskError("the vectors of documents are not finite.")

        def score(batch: Batch) -> Tensor:
            similar = self.outputs(module, batch) @ documents.T
            order = similar.argsort(dim=1, descending=True, stable=True).tolist()
            metrics = [
                measure(self.metric, ranking, relevance)
                for ranking, relevance in zip(order, batch.extra["relevance"], strict=True)
            ]
            values = torch.tensor(metrics, dtype=torch.float64)
            return values.where(similar.isfinite().all(1).cpu(), float("nan"))

        return score

    def _documents(self, module: nn.Module, texts: Any, device: Any) -> Tensor:
        inputs = self.tokens.encode([self.corpus.prefixes[1] + text for text in texts])
        return self._embed(module, {name: values.to(device) for name, values in inputs.items()})

    def _embed(self, module: nn.Module, inputs: Mapping[str, Any]) -> Tensor:
        import torch

        vectors: Any = module(**inputs)
        if hasattr(vectors, "last_hidden_state"):
            vectors = pool(vectors.last_hidden_state, inputs["attention_mask"], self.corpus.pooling)
        return torch.nn.functional.normalize(vectors.float(), dim=-1)


def _metric(value: object, place: Place) -> str:
    if not isinstance(value, str) or not METRIC.fullmatch(value):
        raise place.expected("ndcg@K, recall@K or mrr@K, such as ndcg@10", value)
    return value


@task_kind("retrieval")
def retrieval(
    frame: Frame,
    *,
    id: str = "id",
    text: str = "text",
    corpus: str,
    relevance: str,
    query_prefix: str = "",
    document_prefix: str = "",
    pooling: Literal["mean", "first", "last"] = "mean",
    length: Annotated[int, positive] = 256,
    metric: Annotated[str, _metric] = "ndcg@10",
) -> Task:
    """Queries for which an encoder ranks the documents of a corpus.

    Args:
        frame: The common keys.
        id: Column of the queries' identifiers.
        text: Column of the queries' texts.
        corpus: File of the documents, with columns `id` and `text`.
        relevance: File with columns `query`, `doc` and `rel`: the relevance of a document for a query.
        query_prefix: Text before each query.
        document_prefix: Text before each document.
        pooling: Vector of a text: mean over the tokens, the first token's, or the last's.
        length: Texts are truncated to this number of tokens.
        metric: `ndcg@K`, `recall@K` or `mrr@K`.
    """
    documents = read_rows(frame.folder / corpus, {"id": "id", "text": "text"})
    pairs = read_rows(frame.folder / relevance, {"query": "query", "doc": "doc", "rel": "rel"})
    data, notes = frame.read({"id": id, "text": text})
    for rows in (documents, *data.values()):
        check_texts(rows, "text")
    relevant, prefixes = _relevance(documents, pairs), (query_prefix, document_prefix)
    body = frame.body(lambda folder: from_transformers("AutoModel", folder))
    about = {"length": length, "pooling": pooling, "prefixes": prefixes, "corpus": _digest(documents, pairs)}
    ready = {split: _with_answers(rows, relevant) for split, rows in data.items()}
    task = Retrieval(frame.name, metric, ready, body, settings=frame.settings | about, notes=notes)
    task.tokens = Tokens(frame.tokenizer or frame.config, length)
    task.corpus = Corpus(tuple(documents.columns["text"]), relevant, prefixes, pooling)
    return task


def _relevance(documents: Rows, pairs: Rows) -> dict[str, dict[int, float]]:
    positions = {str(name): i for i, name in enumerate(documents.columns["id"])}
    relevant: dict[str, dict[int, float]] = {}
    for i, (query, document, relevance) in enumerate(zip(*pairs.columns.values(), strict=True)):
        if str(document) not in positions:
            raise TaskError(f"{pairs.place(i)}: there is no document {document!r:.60} in {documents.label}.")
        try:
            amount = float(relevance)
        except (TypeError, ValueError):
            raise TaskError(f"{pairs.place(i)}: the relevance must be a number; got {relevance!r:.60}.") from None
        if amount > 0:
            relevant.setdefault(str(query), {})[positions[str(document)]] = amount
    return relevant


def _with_answers(rows: Rows, relevance: Mapping[str, Any]) -> Rows:
    for i, query in enumerate(rows.columns["id"]):
        if str(query) not in relevance:
            raise TaskError(f"{rows.place(i)}: no document is relevant for the query {query!r:.60}. Leave it out.")
    return rows


def _digest(*tables: Rows) -> str:
    import xxhash

    return xxhash.xxh3_128_hexdigest(b"".join(fingerprint for table in tables for fingerprint in table.fingerprints))
