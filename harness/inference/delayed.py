"""A session that takes a known share longer to encode: a difference that a measurement of runtime has to find."""

from __future__ import annotations

import time
from typing import Any

from harness.inference.session import EmbeddingLike, FloatArray, Session


class DelayedSession:
    """``session``, each of whose encodings is followed by ``share`` of its own time of doing nothing useful.

    The time is spent computing, not sleeping, as a slower encoder would spend it.
    """

    def __init__(self, session: Session, share: float) -> None:
        self._session, self._share = session, share

    @property
    def input_size(self) -> int:
        return self._session.input_size

    def encode(self, images: FloatArray) -> EmbeddingLike:
        begin = time.perf_counter()
        embedding = self._session.encode(images)
        end = time.perf_counter()
        until = end + self._share * (end - begin)
        while time.perf_counter() < until:
            pass
        return embedding

    def decode(
        self, embedding: Any, boxes: FloatArray, points: FloatArray | None = None, scribble: FloatArray | None = None
    ) -> tuple[FloatArray, FloatArray]:
        return self._session.decode(embedding, boxes, points, scribble)
