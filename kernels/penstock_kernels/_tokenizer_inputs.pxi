# Collects what callers give as views for the core; included by _tokenizer.pyx.

cdef int fill_view(object text, TextView* view) except -1:
    cdef Py_ssize_t size
    if PyUnicode_Check(text):
        if PyUnicode_IS_COMPACT_ASCII(text):
            view.data = <const char*>PyUnicode_DATA(text)
            view.size = PyUnicode_GET_LENGTH(text)
        else:
            view.data = PyUnicode_AsUTF8AndSize(text, &size)
            view.size = size
        view.is_checked = True
    elif PyBytes_Check(text):
        view.data = PyBytes_AS_STRING(text)
        view.size = PyBytes_GET_SIZE(text)
        view.is_checked = False
    else:
        raise TypeError(f"texts must be str or bytes, not {type(text).__name__}")
    return 0


# Where the texts of a column without bytes are: empty, but there.
cdef const char* NO_BYTES = b""


ctypedef fused offset_t:
    int32_t
    int64_t


cdef int fill_arrow_views(const Py_buffer* data, const offset_t* offsets, Py_ssize_t rows,
                          vector[TextView]& out) except -1:
    cdef const char* base = <const char*>data.buf if data.len else NO_BYTES
    cdef Py_ssize_t row
    cdef int64_t begin, end
    out.resize(rows)
    for row in range(rows):
        begin = offsets[row]
        end = offsets[row + 1]
        if begin < 0 or end < begin or end > data.len:
            raise ValueError(f"offsets of row {row} ({begin}, {end}) do not lie within {data.len} bytes")
        out[row].data = base + begin
        out[row].size = end - begin
        out[row].is_checked = False
    return 0


cdef class Column:
    """A text column in Arrow's layout: holds both buffers for as long as it lives."""

    cdef Py_buffer data
    cdef Py_buffer offsets
    cdef int held

    def __cinit__(self, data, offsets):
        PyObject_GetBuffer(data, &self.data, PyBUF_SIMPLE)
        self.held = 1
        dtype = getattr(offsets, "dtype", type(offsets).__name__)
        if dtype != np.int32 and dtype != np.int64:
            raise ValueError(f"offsets must be int32 or int64, not {dtype}")
        PyObject_GetBuffer(offsets, &self.offsets, PyBUF_C_CONTIGUOUS)
        self.held = 2
        if self.offsets.itemsize != dtype.itemsize:
            raise ValueError(f"offsets must be an array of {dtype}, not of items of {self.offsets.itemsize} bytes")
        if self.offsets.len == 0:
            raise ValueError("offsets must have one element more than there are rows")

    def __dealloc__(self):
        if self.held > 1:
            PyBuffer_Release(&self.offsets)
        if self.held:
            PyBuffer_Release(&self.data)

    cdef int fill(self, vector[TextView]& out) except -1:
        cdef Py_ssize_t rows = self.offsets.len // self.offsets.itemsize - 1
        if self.offsets.itemsize == 4:
            return fill_arrow_views(&self.data, <const int32_t*>self.offsets.buf, rows, out)
        return fill_arrow_views(&self.data, <const int64_t*>self.offsets.buf, rows, out)


cdef held(texts):
    """The texts in what no other thread can change; a single text stays one."""
    if texts is None or isinstance(texts, (str, bytes)):
        return texts
    return tuple(texts)


cdef held_words(texts):
    if texts is None:
        return None
    if isinstance(texts, (str, bytes)):
        raise TypeError("texts and pairs must be sequences of sequences of words, not one text")
    return tuple([None if words is None else held_text_words(words) for words in texts])


cdef held_text_words(words):
    if isinstance(words, (str, bytes)):
        raise TypeError("texts and pairs must be sequences of sequences of words, not of texts")
    return tuple(words)


cdef pair_column(data, offsets):
    if (data is None) != (offsets is None):
        raise ValueError("pair_data and pair_offsets belong together")
    return None if data is None else Column(data, offsets)


cdef int check_pairs(size_t rows, size_t pairs) except -1:
    if rows != pairs:
        raise ValueError(f"there are {rows} texts but {pairs} pairs")
    return 0


cdef size_t collect(texts, pairs, EncodeContext* context, TextBatch& batch) except? 0xFFFFFFFF:
    """Makes the batch of texts that the caller holds; returns their bytes."""
    cdef size_t size = 0, row
    batch.second = NULL
    batch.first_words = batch.second_words = NULL
    batch.has_second = NULL
    if type(texts) is not tuple:
        if pairs is not None and type(pairs) is tuple:
            raise TypeError("one text can have one pair, not a sequence of them")
        batch.rows = 1
        context.first.resize(1)
        fill_view(texts, &context.first[0])
        size = context.first[0].size
        if pairs is not None:
            context.second.resize(1)
            fill_view(pairs, &context.second[0])
            size += context.second[0].size
            batch.second = context.second.data()
        batch.first = context.first.data()
        return size
    batch.rows = len(<tuple>texts)
    context.first.resize(batch.rows)
    for row in range(batch.rows):
        fill_view((<tuple>texts)[row], &context.first[row])
        size += context.first[row].size
    batch.first = context.first.data()
    if pairs is None:
        return size
    if type(pairs) is not tuple:
        raise TypeError("pairs must be a sequence of texts, like texts")
    check_pairs(batch.rows, len(<tuple>pairs))
    context.second.resize(batch.rows)
    for row in range(batch.rows):
        pair = (<tuple>pairs)[row]
        context.second[row].data = NULL
        context.second[row].size = 0
        if pair is not None:
            fill_view(pair, &context.second[row])
            size += context.second[row].size
    batch.second = context.second.data()
    return size


cdef int collect_word_views(tuple texts, vector[TextView]& views, vector[int64_t]& starts) except -1:
    cdef TextView view
    views.clear()
    starts.clear()
    starts.push_back(0)
    for words in texts:
        if words is not None:
            for word in words:
                if not PyUnicode_Check(word):
                    raise TypeError(f"words must be str, not {type(word).__name__}")
                fill_view(word, &view)
                views.push_back(view)
        starts.push_back(views.size())
    return 0


cdef int collect_words(tuple texts, tuple pairs, EncodeContext* context, TextBatch& batch) except -1:
    if None in texts:
        raise TypeError("texts must be sequences of words, not None")
    batch.rows = len(texts)
    batch.second = NULL
    batch.second_words = NULL
    batch.has_second = NULL
    collect_word_views(texts, context.first, context.first_words)
    batch.first = context.first.data()
    batch.first_words = context.first_words.data()
    if pairs is None:
        return 0
    check_pairs(batch.rows, len(pairs))
    collect_word_views(pairs, context.second, context.second_words)
    context.has_second.clear()
    for words in pairs:
        context.has_second.push_back(words is not None)
    # A second text may be empty, and then there may be no word to point to.
    context.second.push_back(TextView(NO_BYTES, 0, True))
    batch.second = context.second.data()
    batch.second_words = context.second_words.data()
    batch.has_second = context.has_second.data()
    return 0


cdef int collect_arrow(Column first, Column second, EncodeContext* context, TextBatch& batch) except -1:
    first.fill(context.first)
    batch.rows = context.first.size()
    batch.first = context.first.data()
    batch.second = NULL
    batch.first_words = batch.second_words = NULL
    batch.has_second = NULL
    if second is not None:
        second.fill(context.second)
        check_pairs(batch.rows, context.second.size())
        batch.second = context.second.data()
    return 0
