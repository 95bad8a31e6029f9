# cython: boundscheck=False, wraparound=False, initializedcheck=False, embedsignature=False
"""Builds the tables of a compiled tokenizer: wraps penstock/double_array.h and penstock/bpe.h."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int32_t
from libcpp.pair cimport pair
from libcpp.utility cimport move
from libcpp.vector cimport vector


cdef extern from "<string_view>" namespace "std" nogil:
    cdef cppclass string_view:
        string_view() except +
        string_view(const char*, size_t) except +


cdef extern from "penstock/double_array.h" namespace "penstock" nogil:
    cdef cppclass Node "penstock::DoubleArray::Node":
        pass

    vector[Node] build_trie "penstock::DoubleArray::build"(vector[pair[string_view, int32_t]]) except +


cdef extern from "penstock/bpe.h" namespace "penstock" nogil:
    cdef cppclass MergeRecord:
        int32_t left
        int32_t right
        int32_t rank
        int32_t merged

    vector[MergeRecord] c_build_merge_table "penstock::build_merge_table"(vector[MergeRecord]) except +


def build_double_array(list keys, const int32_t[::1] values):
    if len(keys) != values.shape[0]:
        raise ValueError("a trie needs as many values as keys")
    cdef vector[pair[string_view, int32_t]] pairs
    cdef vector[Node] nodes
    cdef Py_ssize_t i
    cdef bytes key
    pairs.reserve(len(keys))
    for i in range(values.shape[0]):
        key = keys[i]
        if key is None:
            raise TypeError("a trie's keys must be bytes")
        pairs.push_back(pair[string_view, int32_t](
            string_view(PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key)), values[i]))
    with nogil:
        nodes = build_trie(move(pairs))
    return PyBytes_FromStringAndSize(<const char*>nodes.data(), nodes.size() * sizeof(Node))


def build_merge_table(const int32_t[:, ::1] merges):
    if merges.shape[1] != 4:
        raise ValueError("a merge has four numbers: left, right, rank and merged")
    cdef vector[MergeRecord] records
    cdef vector[MergeRecord] table
    cdef Py_ssize_t i
    with nogil:
        records.resize(merges.shape[0])
        for i in range(merges.shape[0]):
            records[i].left = merges[i, 0]
            records[i].right = merges[i, 1]
            records[i].rank = merges[i, 2]
            records[i].merged = merges[i, 3]
        table = c_build_merge_table(move(records))
    return PyBytes_FromStringAndSize(<const char*>table.data(), table.size() * sizeof(MergeRecord))
