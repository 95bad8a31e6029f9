from collections.abc import Sequence
from typing import final

from penstock_kernels.rows import ByteBuffer, IndexArray, TokenRows
from penstock_kernels.wordpiece_spec import WordPieceSpec

@final
class WordPieceTokenizer:
    def __init__(self, spec: WordPieceSpec) -> None: ...
    @property
    def vocab_size(self) -> int: ...
    def token(self, token_id: int) -> str: ...
    def special_tokens_count(self, pair: bool) -> int: ...
    def encode(
        self,
        texts: Sequence[str | bytes],
        pairs: Sequence[str | bytes | None] | None = None,
        *,
        tokens_max: int | None = None,
        truncate_left: bool = False,
        add_special_tokens: bool = True,
        return_offsets: bool = False,
    ) -> TokenRows: ...
    def encode_arrow(
        self,
        data: ByteBuffer,
        offsets: IndexArray,
        *,
        pair_data: ByteBuffer | None = None,
        pair_offsets: IndexArray | None = None,
        tokens_max: int | None = None,
        truncate_left: bool = False,
        add_special_tokens: bool = True,
        return_offsets: bool = False,
    ) -> TokenRows: ...
