from collections.abc import Sequence
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from penstock_kernels.options import EncodeOptions
from penstock_kernels.rows import ByteBuffer, IndexArray, TokenRows

@final
class Tokenizer:
    def __init__(
        self,
        blob: ByteBuffer,
        *,
        cache_bytes: int = ...,
        threads_max: int | None = None,
        with_fast_path: bool = True,
    ) -> None: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def path_name(self) -> str: ...
    @property
    def pad_id(self) -> int: ...
    def token(self, token_id: int) -> str: ...
    def token_id(self, token: str) -> int | None: ...
    def special_tokens_count(self, pair: bool) -> int: ...
    def encode(
        self,
        texts: Sequence[str | bytes] | str | bytes,
        pairs: Sequence[str | bytes | None] | str | bytes | None = None,
        options: EncodeOptions = ...,
    ) -> TokenRows: ...
    def encode_words(
        self,
        texts: Sequence[Sequence[str]],
        pairs: Sequence[Sequence[str] | None] | None = None,
        options: EncodeOptions = ...,
    ) -> TokenRows: ...
    def encode_arrow(
        self,
        data: ByteBuffer,
        offsets: IndexArray,
        pair_data: ByteBuffer | None = None,
        pair_offsets: IndexArray | None = None,
        options: EncodeOptions = ...,
    ) -> TokenRows: ...
    def encode_into(
        self,
        texts: Sequence[str | bytes] | str | bytes,
        ids: NDArray[Any],
        mask: NDArray[Any] | None = None,
        type_ids: NDArray[Any] | None = None,
        lengths: NDArray[np.int32] | None = None,
        flags: NDArray[np.uint8] | None = None,
        pairs: Sequence[str | bytes | None] | str | bytes | None = None,
        options: EncodeOptions = ...,
    ) -> int: ...
    def encode_arrow_into(
        self,
        data: ByteBuffer,
        offsets: IndexArray,
        ids: NDArray[Any],
        mask: NDArray[Any] | None = None,
        type_ids: NDArray[Any] | None = None,
        lengths: NDArray[np.int32] | None = None,
        flags: NDArray[np.uint8] | None = None,
        pair_data: ByteBuffer | None = None,
        pair_offsets: IndexArray | None = None,
        options: EncodeOptions = ...,
    ) -> int: ...
