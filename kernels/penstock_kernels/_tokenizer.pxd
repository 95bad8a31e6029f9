"""What the tokenizer module uses of the native core."""

from libc.stddef cimport size_t
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t
from libcpp cimport bool as cbool
from libcpp.string_view cimport string_view
from libcpp.vector cimport vector


cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL
    bint PyUnicode_Check(object text)
    bint PyUnicode_IS_COMPACT_ASCII(object text)
    void* PyUnicode_DATA(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)
    bint PyBytes_Check(object text)


cdef extern from "penstock/row_encoder.h" namespace "penstock" nogil:
    cdef cppclass BlobView:
        string_view bytes(Section)

    cdef enum class Section(uint32_t):
        kTokenStarts
        kTokenTexts
        kTokenIsThere

    cdef cppclass CTokenizer "penstock::Tokenizer":
        const BlobView& blob()
        const char* path_name()

    cdef struct TextView:
        const char* data
        size_t size
        cbool is_checked

    cdef struct TextBatch:
        size_t rows
        const TextView* first
        const TextView* second
        const int64_t* first_words
        const int64_t* second_words
        const uint8_t* has_second

    cdef enum class Truncation(uint8_t):
        pass

    cdef struct COptions "penstock::EncodeOptions":
        int64_t tokens_max
        int64_t stride
        int64_t overflow_tokens_max
        Truncation truncation
        cbool truncate_left
        cbool add_special_tokens
        cbool split_special_tokens
        cbool return_overflow
        cbool return_type_ids
        cbool return_offsets
        cbool return_special_mask
        cbool return_word_ids
        cbool return_sequence_ids

    cdef enum class CStatus "penstock::EncodeStatus"(int):
        kOk

    cdef cppclass RowEncoder:
        size_t special_tokens_count(cbool)
        int32_t pad_id()


cdef extern from *:
    """
    #include <memory>
    #include <string_view>
    #include "penstock/tokenizer.h"
    static penstock::Tokenizer* open_tokenizer(std::string_view blob, bool with_fast_path) {
      return new penstock::Tokenizer(penstock::BlobView(blob), with_fast_path);
    }
    """
    CTokenizer* open_tokenizer(string_view, cbool) except +


cdef extern from "penstock/encode.h" namespace "penstock" nogil:
    cdef struct Padding:
        int64_t width
        int64_t multiple
        int32_t id
        int32_t type_id
        cbool on_left

    cdef struct PackedOutput:
        int32_t* ids
        uint8_t* type_ids
        int64_t* starts
        uint8_t* truncated
        uint8_t* valid
        int32_t* offsets
        uint8_t* special_mask
        int32_t* word_ids
        int8_t* sequence_ids
        int32_t* samples

    cdef struct PaddedOutput:
        void* ids
        void* mask
        void* type_ids
        cbool wide
        int32_t* lengths
        uint8_t* flags

    cdef cppclass EncodeContext:
        vector[TextView] first
        vector[TextView] second
        vector[int64_t] first_words
        vector[int64_t] second_words
        vector[uint8_t] has_second

    cdef cppclass Lease "penstock::ContextPool::Lease":
        EncodeContext* get()

    cdef cppclass ContextPool:
        cbool try_take(Lease&) except +
        void take(Lease&) except +

    cdef cppclass EncodedBatch:
        size_t rows()
        size_t tokens()
        void copy_to(const PackedOutput&)

    cdef struct EncodeResult:
        CStatus status
        size_t row

    cdef cppclass BatchEncoder:
        BatchEncoder(const CTokenizer&, size_t, size_t) except +
        const RowEncoder& rows()
        ContextPool& contexts()
        EncodeResult encode(const TextBatch&, const COptions&, size_t, const Lease&, EncodedBatch&)
        EncodeResult padded_width(const EncodedBatch&, const Padding&, size_t&)
        void copy_padded(const EncodedBatch&, const Padding&, size_t, size_t, const PaddedOutput&)
