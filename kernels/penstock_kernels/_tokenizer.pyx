# cython: boundscheck=False, wraparound=False, initializedcheck=False, embedsignature=False
# cython: always_allow_keywords=True
"""Wraps penstock/encode.h: collects texts and buffers, releases the GIL, calls, converts the status."""

import os

from cpython.buffer cimport (
    PyBUF_FORMAT, PyBUF_C_CONTIGUOUS, PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer)
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stddef cimport size_t
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t, uintptr_t
from libc.string cimport memcpy
from libcpp.string_view cimport string_view
from libcpp.vector cimport vector

import numpy as np

from penstock_kernels.options import (
    CACHE_BYTES, CACHE_BYTES_MAX, DEFAULT_OPTIONS, TOKENIZER_THREADS_MAX, EncodeStatus, encode_error)
from penstock_kernels.rows import TokenRows


# Below so many bytes a call keeps the GIL: giving it away and taking it back would cost more than it frees.
cdef enum:
    HOLD_GIL_BYTES = 1024
    # What a row costs beside its text, in bytes of text: without it, many empty rows would hold the lock long.
    ROW_BYTES = 16


cdef class CompiledOptions:
    """EncodeOptions as the core reads them."""

    cdef COptions encode
    cdef Padding padding
    cdef size_t threads

    def __cinit__(self, options):
        self.encode.tokens_max = -1 if options.tokens_max is None else options.tokens_max
        self.encode.stride = options.stride
        self.encode.overflow_tokens_max = options.overflow_tokens_max
        self.encode.truncation = <Truncation><int>options.truncation
        self.encode.truncate_left = options.truncate_left
        self.encode.add_special_tokens = options.add_special_tokens
        self.encode.split_special_tokens = options.split_special_tokens
        self.encode.return_overflow = options.return_overflow
        self.encode.return_type_ids = True
        self.encode.return_offsets = options.return_offsets
        self.encode.return_special_mask = options.return_special_mask
        self.encode.return_word_ids = options.return_word_ids
        self.encode.return_sequence_ids = options.return_sequence_ids
        self.padding.width = -1 if options.pad_width is None else options.pad_width
        self.padding.multiple = options.pad_multiple
        self.padding.id = -1 if options.pad_id is None else options.pad_id
        self.padding.type_id = -1 if options.pad_type_id is None else options.pad_type_id
        self.padding.on_left = options.pad_left
        self.threads = options.threads

    def __reduce__(self):
        # Copies of options compile them anew.
        return type(None), ()


cdef CompiledOptions compile_options(options):
    compiled = options.compiled
    if type(compiled) is not CompiledOptions:
        compiled = CompiledOptions(options)
        # Computed from the frozen fields alone: whoever comes first, it is the same.
        object.__setattr__(options, "compiled", compiled)
    return <CompiledOptions>compiled


include "_tokenizer_inputs.pxi"


cdef struct Tensors:
    Py_buffer buffers[5]
    int held


cdef int open_tensor(object array, str name, const char* kinds, Tensors& tensors, void** data) except -1:
    """Opens a writable buffer whose elements are of one of `kinds`; the first one opened tells the size."""
    cdef Py_buffer* buffer = &tensors.buffers[tensors.held]
    try:
        PyObject_GetBuffer(array, buffer, PyBUF_WRITABLE | PyBUF_FORMAT | PyBUF_C_CONTIGUOUS)
    except (BufferError, TypeError, ValueError) as err:
        raise ValueError(f"{name} must be a writable C-contiguous array: {err}") from None
    tensors.held += 1
    cdef char kind = buffer.format[0]
    cdef size_t i = 0
    while kinds[i] and kinds[i] != kind:
        i += 1
    if not kinds[i] or buffer.format[1]:
        raise ValueError(f"{name} has elements of another type than it must have: {buffer.format.decode()}")
    data[0] = buffer.buf
    return 0


cdef size_t items_of(const Py_buffer& buffer) noexcept:
    return buffer.len // buffer.itemsize


# Looked up once: a short call makes five arrays.
cdef object NEW = np.empty
cdef object BOOL = np.dtype(np.bool_)
cdef object INT8 = np.dtype(np.int8)
cdef object INT32 = np.dtype(np.int32)
cdef object INT64 = np.dtype(np.int64)
cdef object UINT8 = np.dtype(np.uint8)


cdef object empty(size_t count, object dtype, void** data):
    """A new array, and where its elements are; the array is what keeps them."""
    array = NEW(count, dtype)
    cdef Py_buffer buffer
    PyObject_GetBuffer(array, &buffer, PyBUF_WRITABLE | PyBUF_C_CONTIGUOUS)
    data[0] = buffer.buf
    PyBuffer_Release(&buffer)
    return array


cdef class Tokenizer:
    """A compiled tokenizer. See the reference twin for the contract."""

    cdef Py_buffer _blob
    cdef bint _has_blob
    cdef object _aligned
    cdef CTokenizer* _tokenizer
    cdef BatchEncoder* _encoder
    cdef dict _token_ids

    def __cinit__(self, blob, *, cache_bytes=CACHE_BYTES, threads_max=None, with_fast_path=True):
        if threads_max is None:
            threads_max = min(os.cpu_count() or 1, TOKENIZER_THREADS_MAX)
        if not 1 <= threads_max <= TOKENIZER_THREADS_MAX:
            raise ValueError(f"threads_max must be from 1 to {TOKENIZER_THREADS_MAX}, not {threads_max}")
        if not 0 <= cache_bytes <= CACHE_BYTES_MAX:
            raise ValueError(f"cache_bytes must be from 0 to {CACHE_BYTES_MAX}, not {cache_bytes}")
        PyObject_GetBuffer(blob, &self._blob, PyBUF_SIMPLE)
        self._has_blob = True
        cdef const char* data = <const char*>self._blob.buf
        if <uintptr_t>data % 8:
            # The core reads records in place; an array of our own lies as they need it.
            self._aligned = empty(self._blob.len, UINT8, <void**>&data)
            memcpy(<void*>data, self._blob.buf, self._blob.len)
        self._tokenizer = open_tokenizer(string_view(data, self._blob.len), with_fast_path)
        self._encoder = new BatchEncoder(self._tokenizer[0], cache_bytes, threads_max)

    def __init__(self, blob, *, cache_bytes=CACHE_BYTES, threads_max=None, with_fast_path=True):
        pass

    def __dealloc__(self):
        del self._encoder
        del self._tokenizer
        if self._has_blob:
            PyBuffer_Release(&self._blob)

    @property
    def vocab_size(self):
        """Number of token ids, added tokens included."""
        cdef string_view there = self._tokenizer.blob().bytes(Section.kTokenIsThere)
        cdef size_t i, count = 0
        for i in range(there.size()):
            count += there.data()[i] != 0
        return count

    @property
    def path_name(self):
        """Name of the fast path in use, or ``general``."""
        return self._tokenizer.path_name().decode()

    @property
    def pad_id(self):
        """Id of the token that fills up short rows unless a call says otherwise."""
        return self._encoder.rows().pad_id()

    def token(self, token_id):
        """Text of a token as the vocabulary spells it."""
        cdef string_view there = self._tokenizer.blob().bytes(Section.kTokenIsThere)
        if not 0 <= token_id < <Py_ssize_t>there.size() or not there.data()[<size_t>token_id]:
            raise ValueError(f"there is no token with id {token_id}")
        cdef size_t at = token_id
        cdef string_view texts = self._tokenizer.blob().bytes(Section.kTokenTexts)
        cdef string_view starts = self._tokenizer.blob().bytes(Section.kTokenStarts)
        cdef const uint32_t* bounds = <const uint32_t*>starts.data()
        if starts.size() < 4 * (at + 2) or bounds[at] > bounds[at + 1] or bounds[at + 1] > texts.size():
            raise ValueError("the compiled tokenizer has broken token texts")
        return texts.data()[bounds[at]:bounds[at + 1]].decode()

    def token_id(self, token):
        """Id of the token that is spelt so, or None."""
        if self._token_ids is None:
            there = self._tokenizer.blob().bytes(Section.kTokenIsThere)
            self._token_ids = {self.token(i): i for i in range(there.size()) if there.data()[i]}
        return self._token_ids.get(token)

    def special_tokens_count(self, pair):
        """Special tokens that the template adds to one text, or to a pair."""
        return self._encoder.rows().special_tokens_count(pair)

    def encode(self, texts, pairs=None, options=DEFAULT_OPTIONS):
        """Encodes texts, each with its second text if it has one."""
        cdef CompiledOptions compiled = compile_options(options)
        cdef Lease lease
        cdef TextBatch batch
        cdef size_t size
        texts, pairs = held(texts), held(pairs)
        self._take(lease)
        size = collect(texts, pairs, lease.get(), batch)
        return self._rows(batch, size, compiled, options, lease)

    def encode_words(self, texts, pairs=None, options=DEFAULT_OPTIONS):
        """Encodes texts that are cut into words already."""
        cdef CompiledOptions compiled = compile_options(options)
        cdef Lease lease
        cdef TextBatch batch
        texts, pairs = held_words(texts), held_words(pairs)
        self._take(lease)
        collect_words(texts, pairs, lease.get(), batch)
        return self._rows(batch, HOLD_GIL_BYTES, compiled, options, lease)

    def encode_arrow(self, data, offsets, pair_data=None, pair_offsets=None, options=DEFAULT_OPTIONS):
        """Encodes UTF-8 laid out as an Arrow string or binary column."""
        cdef CompiledOptions compiled = compile_options(options)
        cdef Lease lease
        cdef TextBatch batch
        cdef Column first = Column(data, offsets)
        cdef Column second = pair_column(pair_data, pair_offsets)
        self._take(lease)
        collect_arrow(first, second, lease.get(), batch)
        return self._rows(batch, HOLD_GIL_BYTES, compiled, options, lease)

    def encode_into(self, texts, ids, mask=None, type_ids=None, lengths=None, flags=None, pairs=None,
                    options=DEFAULT_OPTIONS):
        """Encodes texts into padded tensors."""
        cdef CompiledOptions compiled = compile_options(options)
        cdef Lease lease
        cdef TextBatch batch
        cdef size_t size
        texts, pairs = held(texts), held(pairs)
        self._take(lease)
        size = collect(texts, pairs, lease.get(), batch)
        return self._into(batch, size, compiled, options, lease, ids, mask, type_ids, lengths, flags)

    def encode_arrow_into(self, data, offsets, ids, mask=None, type_ids=None, lengths=None, flags=None,
                          pair_data=None, pair_offsets=None, options=DEFAULT_OPTIONS):
        """Encodes UTF-8 laid out as an Arrow column into padded tensors."""
        cdef CompiledOptions compiled = compile_options(options)
        cdef Lease lease
        cdef TextBatch batch
        cdef Column first = Column(data, offsets)
        cdef Column second = pair_column(pair_data, pair_offsets)
        self._take(lease)
        collect_arrow(first, second, lease.get(), batch)
        return self._into(batch, HOLD_GIL_BYTES, compiled, options, lease, ids, mask, type_ids, lengths, flags)

    cdef int _take(self, Lease& lease) except -1:
        """Takes a context; callers run no Python code of others between this and the end of the call, which
        might call the tokenizer again and wait for a context that is lent to itself."""
        if not self._encoder.contexts().try_take(lease):
            with nogil:
                self._encoder.contexts().take(lease)
        return 0

    cdef _fail(self, EncodeResult result, options):
        cdef const RowEncoder* rows = &self._encoder.rows()
        counts = rows.special_tokens_count(False), rows.special_tokens_count(True)
        raise encode_error(EncodeStatus(<int>result.status), result.row, options, counts)

    cdef _rows(self, const TextBatch& batch, size_t size, CompiledOptions compiled, options, const Lease& lease):
        cdef EncodedBatch encoded
        cdef EncodeResult result
        if size + ROW_BYTES * batch.rows < HOLD_GIL_BYTES:
            result = self._encoder.encode(batch, compiled.encode, 1, lease, encoded)
        else:
            with nogil:
                result = self._encoder.encode(batch, compiled.encode, compiled.threads, lease, encoded)
        if result.status != CStatus.kOk:
            self._fail(result, options)
        cdef size_t rows = encoded.rows(), tokens = encoded.tokens()
        cdef PackedOutput out
        ids = empty(tokens, INT32, <void**>&out.ids)
        type_ids = empty(tokens, UINT8, <void**>&out.type_ids)
        starts = empty(rows + 1, INT64, <void**>&out.starts)
        truncated = empty(rows, BOOL, <void**>&out.truncated)
        valid = empty(rows, BOOL, <void**>&out.valid)
        offsets = special_mask = word_ids = sequence_ids = samples = None
        out.offsets = NULL
        out.special_mask = NULL
        out.word_ids = NULL
        out.sequence_ids = NULL
        out.samples = NULL
        if compiled.encode.return_offsets:
            offsets = empty(2 * tokens, INT32, <void**>&out.offsets).reshape(tokens, 2)
        if compiled.encode.return_special_mask:
            special_mask = empty(tokens, UINT8, <void**>&out.special_mask)
        if compiled.encode.return_word_ids:
            word_ids = empty(tokens, INT32, <void**>&out.word_ids)
        if compiled.encode.return_sequence_ids:
            sequence_ids = empty(tokens, INT8, <void**>&out.sequence_ids)
        if compiled.encode.return_overflow:
            samples = empty(rows, INT32, <void**>&out.samples)
        if tokens < HOLD_GIL_BYTES:
            encoded.copy_to(out)
        else:
            with nogil:
                encoded.copy_to(out)
        return TokenRows(ids, type_ids, starts, truncated, valid, offsets, special_mask, word_ids, sequence_ids,
                         samples)

    cdef _into(self, const TextBatch& batch, size_t size, CompiledOptions compiled, options, const Lease& lease,
               ids, mask, type_ids, lengths, flags):
        cdef Tensors tensors
        cdef int i
        if compiled.encode.return_overflow:
            raise ValueError("padded tensors have one row a text: encode overflow with encode, then pack_rows")
        tensors.held = 0
        try:
            return self._fill(batch, size, compiled, options, lease, tensors, ids, mask, type_ids, lengths, flags)
        finally:
            for i in range(tensors.held):
                PyBuffer_Release(&tensors.buffers[i])

    cdef _fill(self, const TextBatch& batch, size_t size, CompiledOptions compiled, options, const Lease& lease,
               Tensors& tensors, ids, mask, type_ids, lengths, flags):
        cdef void* data[5]
        cdef size_t room, width = 0
        cdef EncodedBatch encoded
        cdef EncodeResult result
        cdef COptions how = compiled.encode
        cdef bint is_short = size + ROW_BYTES * batch.rows < HOLD_GIL_BYTES
        data[1] = data[2] = data[3] = data[4] = NULL
        open_tensor(ids, "ids", b"ilq", tensors, &data[0])
        room = items_of(tensors.buffers[0])
        cdef const char* kinds = b"i" if tensors.buffers[0].itemsize == 4 else b"lq"
        if mask is not None:
            open_tensor(mask, "mask", kinds, tensors, &data[1])
            room = min(room, items_of(tensors.buffers[tensors.held - 1]))
        if type_ids is not None:
            open_tensor(type_ids, "type_ids", kinds, tensors, &data[2])
            room = min(room, items_of(tensors.buffers[tensors.held - 1]))
        if lengths is not None:
            open_tensor(lengths, "lengths", b"i", tensors, &data[3])
            check_rows("lengths", items_of(tensors.buffers[tensors.held - 1]), batch.rows)
        if flags is not None:
            open_tensor(flags, "flags", b"B", tensors, &data[4])
            check_rows("flags", items_of(tensors.buffers[tensors.held - 1]), batch.rows)
        how.return_type_ids = data[2] != NULL
        how.return_offsets = how.return_special_mask = how.return_word_ids = how.return_sequence_ids = False
        if is_short:
            result = self._encoder.encode(batch, how, 1, lease, encoded)
        else:
            with nogil:
                result = self._encoder.encode(batch, how, compiled.threads, lease, encoded)
        if result.status == CStatus.kOk:
            result = self._encoder.padded_width(encoded, compiled.padding, width)
        if result.status != CStatus.kOk:
            self._fail(result, options)
        if width and batch.rows > room // width:
            raise ValueError(
                f"{batch.rows} rows of {width} tokens need tensors of {batch.rows * width} elements, not {room}")
        cdef PaddedOutput out
        out.ids = data[0]
        out.mask = data[1]
        out.type_ids = data[2]
        out.wide = tensors.buffers[0].itemsize == 8
        out.lengths = <int32_t*>data[3]
        out.flags = <uint8_t*>data[4]
        if is_short:
            self._encoder.copy_padded(encoded, compiled.padding, width, 1, out)
        else:
            with nogil:
                self._encoder.copy_padded(encoded, compiled.padding, width, compiled.threads, out)
        return width


cdef int check_rows(str name, size_t room, size_t rows) except -1:
    if room < rows:
        raise ValueError(f"{name} must have an element for each of {rows} rows, not {room}")
    return 0
