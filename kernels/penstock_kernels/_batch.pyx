# cython: boundscheck=False, wraparound=False, initializedcheck=False, embedsignature=False
"""Wraps penstock/batch.h: checks shapes, releases the GIL, calls, converts the status."""

from libc.stddef cimport size_t
from libc.stdint cimport int32_t, int64_t, uint8_t

import numpy as np


cdef extern from "penstock/batch.h" namespace "penstock" nogil:
    cdef enum class PackStatus(int):
        kOk
        kRowOutOfRange
        kRowTooLong
        kStartsBroken

    cdef struct TokenRowsView:
        const int32_t* ids
        const uint8_t* type_ids
        const int64_t* starts
        int64_t rows
        int64_t tokens

    PackStatus pack_rows_into "penstock::pack_rows"(
        const TokenRowsView&, const int32_t*, size_t, size_t, int32_t, int32_t*, int32_t*, int32_t*) noexcept
    PackStatus pack_rows_into "penstock::pack_rows"(
        const TokenRowsView&, const int32_t*, size_t, size_t, int64_t, int64_t*, int64_t*, int64_t*) noexcept
    void c_mean_pool "penstock::mean_pool"(
        const float*, const int32_t*, size_t, size_t, size_t, float*) noexcept
    void c_l2_normalize "penstock::l2_normalize"(float*, size_t, size_t) noexcept


ctypedef fused index_t:
    int32_t
    int64_t


cdef int32_t NO_ID = 0
cdef uint8_t NO_TYPE = 0


cdef int pack_part(tokens, const int32_t[::1] rows, size_t padded_length, index_t pad_id,
                   index_t* ids, index_t* mask, index_t* type_ids) except -1:
    cdef const int32_t[::1] source_ids = tokens.ids
    cdef const uint8_t[::1] source_types = tokens.type_ids
    cdef const int64_t[::1] starts = tokens.starts
    cdef size_t count = rows.shape[0]
    if count == 0:
        return 0
    if source_types.shape[0] != source_ids.shape[0] or starts.shape[0] < 1:
        raise ValueError("a TokenRows needs as many type ids as ids, and starts")
    cdef TokenRowsView view
    view.ids = &source_ids[0] if source_ids.shape[0] else &NO_ID
    view.type_ids = &source_types[0] if source_types.shape[0] else &NO_TYPE
    view.starts = &starts[0]
    view.rows = starts.shape[0] - 1
    view.tokens = source_ids.shape[0]
    cdef const int32_t* row = &rows[0]
    cdef PackStatus status
    with nogil:
        status = pack_rows_into(view, row, count, padded_length, pad_id, ids, mask, type_ids)
    if status == PackStatus.kRowOutOfRange:
        raise ValueError(f"a row index is outside the {view.rows} rows of its TokenRows")
    if status == PackStatus.kRowTooLong:
        raise ValueError(f"a row is longer than padded_length, {padded_length}")
    if status == PackStatus.kStartsBroken:
        raise ValueError(f"the starts of a TokenRows do not lie in order within its {view.tokens} tokens")
    return 0


cdef pack_all(parts, size_t padded_length, index_t pad_id, index_t[:, ::1] ids, out_mask, out_type_ids):
    cdef index_t[:, ::1] mask
    cdef index_t[:, ::1] type_ids
    cdef index_t* mask_data = NULL
    cdef index_t* type_data = NULL
    if ids.shape[0] == 0 or padded_length == 0:
        return
    if out_mask is not None:
        mask = out_mask
        mask_data = &mask[0, 0]
    if out_type_ids is not None:
        type_ids = out_type_ids
        type_data = &type_ids[0, 0]
    cdef size_t at = 0
    for tokens, rows in parts:
        pack_part[index_t](tokens, rows, padded_length, pad_id, &ids[0, 0] + at,
                           mask_data + at if mask_data else NULL, type_data + at if type_data else NULL)
        at += <size_t>len(rows) * padded_length


def pack_rows(parts, padded_length, pad_id, out_ids, out_mask, out_type_ids):
    parts = list(parts)
    total = sum(len(rows) for _, rows in parts)
    for out in (out_ids, out_mask, out_type_ids):
        if out is None:
            continue
        if out.shape != (total, padded_length) or out.dtype != out_ids.dtype:
            raise ValueError(
                f"outputs must all be [{total}, {padded_length}] of one dtype, not {out.shape} of {out.dtype}")
    if out_ids.dtype == np.int64:
        pack_all[int64_t](parts, padded_length, pad_id, out_ids, out_mask, out_type_ids)
    elif out_ids.dtype == np.int32:
        pack_all[int32_t](parts, padded_length, pad_id, out_ids, out_mask, out_type_ids)
    else:
        raise ValueError(f"outputs must be int32 or int64, not {out_ids.dtype}")


def mean_pool(const float[:, :, ::1] hidden, const int32_t[::1] lengths, float[:, ::1] out):
    cdef size_t rows = hidden.shape[0], padded_length = hidden.shape[1], width = hidden.shape[2]
    if <size_t>lengths.shape[0] != rows or <size_t>out.shape[0] != rows or <size_t>out.shape[1] != width:
        raise ValueError("mean_pool needs hidden [rows, length, width], lengths [rows] and out [rows, width]")
    cdef size_t row
    for row in range(rows):
        if lengths[row] < 0 or <size_t>lengths[row] > padded_length:
            raise ValueError(f"length {lengths[row]} of row {row} is outside 0..{padded_length}")
    if rows == 0 or width == 0:
        return
    if padded_length == 0:
        out[:, :] = 0.0
        return
    with nogil:
        c_mean_pool(&hidden[0, 0, 0], &lengths[0], rows, padded_length, width, &out[0, 0])


def l2_normalize(float[:, ::1] values):
    if values.shape[0] == 0 or values.shape[1] == 0:
        return
    with nogil:
        c_l2_normalize(&values[0, 0], values.shape[0], values.shape[1])
