# cython: boundscheck=False, wraparound=False, initializedcheck=False, embedsignature=False
"""Wraps penstock/wordpiece.h: collects texts, releases the GIL, calls, converts the status."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stddef cimport size_t
from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.string cimport memcpy
from libcpp cimport bool as cbool
from libcpp.string cimport string
from libcpp.utility cimport pair as cpair
from libcpp.vector cimport vector

import numpy as np

from penstock_kernels.rows import TokenRows


cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL


cdef extern from "penstock/wordpiece.h" namespace "penstock" nogil:
    cdef struct NormalizerOptions:
        cbool clean_text
        cbool handle_chinese_chars
        cbool strip_accents
        cbool lowercase

    cdef struct CAddedToken "penstock::AddedToken":
        string content
        int32_t id
        cbool single_word
        cbool lstrip
        cbool rstrip

    cdef enum class Kind "penstock::TemplatePiece::Kind"(uint8_t):
        pass

    cdef struct CTemplatePiece "penstock::TemplatePiece":
        Kind kind
        uint8_t type_id
        int32_t special_id

    cdef cppclass CSpec "penstock::WordPieceSpec":
        vector[cpair[string, int32_t]] vocabulary
        string continuing_prefix
        int32_t unknown_id
        int64_t word_chars_max
        NormalizerOptions normalizer
        vector[CAddedToken] raw_tokens
        vector[CAddedToken] normalized_tokens
        vector[CTemplatePiece] single
        vector[CTemplatePiece] pair

    cdef struct EncodeOptions:
        int64_t tokens_max
        cbool truncate_left
        cbool add_special_tokens
        cbool return_offsets

    cdef struct TextView:
        const char* data
        size_t size
        cbool is_checked

    cdef cppclass EncodedRows:
        vector[int32_t] ids
        vector[uint8_t] type_ids
        vector[int64_t] starts
        vector[uint8_t] truncated
        vector[uint8_t] valid
        vector[int32_t] offsets

    cdef enum class EncodeStatus(int):
        kOk
        kLimitBelowSpecialTokens
        kTextTooLong
        kOutOfMemory

    cdef cppclass CTokenizer "penstock::WordPieceTokenizer":
        CTokenizer(const CSpec&) except +
        EncodeStatus encode(const TextView*, const TextView*, size_t, const EncodeOptions&, EncodedRows&) noexcept
        size_t special_tokens_count(cbool is_pair) noexcept


cdef extern from *:
    """
    static inline penstock::TemplatePiece make_piece(int kind, uint8_t type_id, int32_t special_id) {
      return {static_cast<penstock::TemplatePiece::Kind>(kind), type_id, special_id};
    }
    """
    CTemplatePiece make_piece(int kind, uint8_t type_id, int32_t special_id) nogil


ctypedef fused offset_t:
    int32_t
    int64_t


cdef fill_pieces(pieces, vector[CTemplatePiece]& out):
    for piece in pieces:
        out.push_back(make_piece(piece.slot, piece.type_id, piece.token_id))


cdef fill_spec(spec, CSpec& out):
    cdef CAddedToken added
    cdef cpair[string, int32_t] entry
    for token, token_id in spec.vocabulary.items():
        entry.first = token.encode()
        entry.second = token_id
        if entry.second < 0:
            raise ValueError(f"token {token!r} has the negative id {token_id}")
        out.vocabulary.push_back(entry)
    out.continuing_prefix = spec.continuing_prefix.encode()
    out.unknown_id = spec.unknown_id
    out.word_chars_max = spec.word_chars_max
    out.normalizer.clean_text = spec.clean_text
    out.normalizer.handle_chinese_chars = spec.handle_chinese_chars
    out.normalizer.strip_accents = spec.strip_accents
    out.normalizer.lowercase = spec.lowercase
    for token in spec.added_tokens:
        added.content = token.content.encode()
        added.id = token.id
        added.single_word = token.single_word
        added.lstrip = token.lstrip
        added.rstrip = token.rstrip
        if token.normalized:
            out.normalized_tokens.push_back(added)
        else:
            out.raw_tokens.push_back(added)
    fill_pieces(spec.single, out.single)
    fill_pieces(spec.pair, out.pair)


cdef int fill_view(text, TextView* view) except -1:
    cdef Py_ssize_t size
    if isinstance(text, str):
        view.data = PyUnicode_AsUTF8AndSize(text, &size)
        view.size = size
        view.is_checked = True
    elif isinstance(text, bytes):
        view.data = PyBytes_AS_STRING(text)
        view.size = PyBytes_GET_SIZE(text)
        view.is_checked = False
    else:
        raise TypeError(f"texts must be str or bytes, not {type(text).__name__}")
    return 0


# Where the texts of a column without bytes are: empty, but there.
cdef const char* NO_BYTES = b""


cdef int fill_arrow_views(const uint8_t[::1] data, const offset_t[::1] offsets, vector[TextView]& out) except -1:
    cdef const char* base = NO_BYTES
    if data.shape[0]:
        base = <const char*>&data[0]
    cdef Py_ssize_t row, rows = offsets.shape[0] - 1
    cdef int64_t begin, end, size = data.shape[0]
    if rows < 0:
        raise ValueError("offsets must have one element more than there are rows")
    out.resize(rows)
    for row in range(rows):
        begin = offsets[row]
        end = offsets[row + 1]
        if begin < 0 or end < begin or end > size:
            raise ValueError(f"offsets of row {row} ({begin}, {end}) do not lie within {size} bytes")
        out[row].data = base + begin
        out[row].size = end - begin
    return 0


cdef arrow_views(data, offsets, vector[TextView]& out):
    if offsets.dtype == np.int32:
        fill_arrow_views[int32_t](data, offsets, out)
    elif offsets.dtype == np.int64:
        fill_arrow_views[int64_t](data, offsets, out)
    else:
        raise ValueError(f"offsets must be int32 or int64, not {offsets.dtype}")


cdef copy_out(const void* source, size_t items, shape, dtype):
    array = np.empty(shape, dtype)
    cdef uint8_t[::1] target
    if items:
        target = array.reshape(-1).view(np.uint8)
        memcpy(&target[0], source, target.shape[0])
    return array


cdef to_rows(EncodedRows& rows, return_offsets):
    cdef size_t tokens = rows.ids.size(), count = rows.truncated.size()
    return TokenRows(
        ids=copy_out(rows.ids.data(), tokens, tokens, np.int32),
        type_ids=copy_out(rows.type_ids.data(), tokens, tokens, np.uint8),
        starts=copy_out(rows.starts.data(), count + 1, count + 1, np.int64),
        truncated=copy_out(rows.truncated.data(), count, count, np.bool_),
        valid=copy_out(rows.valid.data(), count, count, np.bool_),
        offsets=copy_out(rows.offsets.data(), tokens, (tokens, 2), np.int32) if return_offsets else None,
    )


cdef class WordPieceTokenizer:
    """WordPiece with BERT's normaliser, bit-exact with Hugging Face ``tokenizers`` 0.23.3.

    Immutable; any number of threads may encode at once, and encoding releases the GIL.
    """

    cdef CTokenizer* _native
    cdef dict _tokens

    def __cinit__(self, spec):
        cdef CSpec native_spec
        fill_spec(spec, native_spec)
        self._native = new CTokenizer(native_spec)
        self._tokens = spec.tokens_by_id()

    def __init__(self, spec):
        pass

    def __dealloc__(self):
        del self._native

    @property
    def vocab_size(self):
        """Number of token ids, added tokens included."""
        return len(self._tokens)

    def token(self, token_id):
        """Text of a token as the vocabulary spells it.

        Raises:
            ValueError: There is no such id.
        """
        try:
            return self._tokens[token_id]
        except KeyError:
            raise ValueError(f"there is no token with id {token_id}") from None

    def special_tokens_count(self, pair):
        """Special tokens that the template adds to one text, or to a pair."""
        return self._native.special_tokens_count(pair)

    def encode(self, texts, pairs=None, *, tokens_max=None, truncate_left=False, add_special_tokens=True,
               return_offsets=False):
        """Encodes texts, each with its second text if it has one. See the reference twin for the contract."""
        cdef vector[TextView] first, second
        cdef size_t row, rows
        if isinstance(texts, (str, bytes)) or isinstance(pairs, (str, bytes)):
            raise TypeError("texts and pairs must be sequences of texts, not one text")
        # Tuples of our own: the views below must outlive changes of the caller's lists in other threads.
        texts = tuple(texts)
        pairs = None if pairs is None else tuple(pairs)
        rows = len(texts)
        if pairs is not None and len(pairs) != rows:
            raise ValueError(f"there are {rows} texts but {len(pairs)} pairs")
        first.resize(rows)
        for row in range(rows):
            fill_view(texts[row], &first[row])
        if pairs is not None:
            second.resize(rows)
            for row in range(rows):
                if pairs[row] is not None:
                    fill_view(pairs[row], &second[row])
        return self._encode(first, second, tokens_max, truncate_left, add_special_tokens, return_offsets)

    def encode_arrow(self, data, offsets, *, pair_data=None, pair_offsets=None, tokens_max=None,
                     truncate_left=False, add_special_tokens=True, return_offsets=False):
        """Encodes UTF-8 laid out as an Arrow string column. See the reference twin for the contract."""
        cdef vector[TextView] first, second
        # Held until the end: while views of them exist, no other thread can resize the buffers.
        cdef const uint8_t[::1] held = data
        cdef const uint8_t[::1] pair_held
        if (pair_data is None) != (pair_offsets is None):
            raise ValueError("pair_data and pair_offsets belong together")
        arrow_views(held, offsets, first)
        if pair_data is not None:
            pair_held = pair_data
            arrow_views(pair_held, pair_offsets, second)
            if first.size() != second.size():
                raise ValueError(f"there are {first.size()} texts but {second.size()} pairs")
        return self._encode(first, second, tokens_max, truncate_left, add_special_tokens, return_offsets)

    cdef _encode(self, vector[TextView]& first, vector[TextView]& second, tokens_max, truncate_left,
                 add_special_tokens, return_offsets):
        cdef EncodedRows rows
        cdef EncodeOptions options
        cdef EncodeStatus status
        if tokens_max is not None and tokens_max < 1:
            raise ValueError(f"tokens_max must be at least 1, not {tokens_max}")
        options.tokens_max = -1 if tokens_max is None else tokens_max
        options.truncate_left = truncate_left
        options.add_special_tokens = add_special_tokens
        options.return_offsets = return_offsets
        with nogil:
            status = self._native.encode(
                first.data(), second.data() if second.size() else NULL, first.size(), options, rows)
        if status == EncodeStatus.kOutOfMemory:
            raise MemoryError("not enough memory to hold the tokens; encode fewer texts at a time")
        if status == EncodeStatus.kTextTooLong:
            raise ValueError("a text is longer than 2 GiB; cut it")
        if status == EncodeStatus.kLimitBelowSpecialTokens:
            raise ValueError(
                f"tokens_max is {tokens_max}, below the special tokens of a row "
                f"({self._native.special_tokens_count(False)} for a text, "
                f"{self._native.special_tokens_count(True)} for a pair); allow more tokens")
        return to_rows(rows, return_offsets)
