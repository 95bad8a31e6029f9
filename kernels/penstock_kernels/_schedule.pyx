# cython: boundscheck=False, wraparound=False, initializedcheck=False, embedsignature=False
"""Wraps penstock/live_queue.h and penstock/deadline_tree.h: checks arguments, calls, makes arrays of rows.

The interpreter lock is kept: a call takes microseconds, and the queue has one owner.
"""

cimport cython
from cpython.buffer cimport PyBUF_FORMAT, PyBUF_ND, PyBuffer_Release, PyObject_GetBuffer
from libc.math cimport isfinite
from libc.stddef cimport size_t
from libc.stdint cimport int32_t, int64_t
from libc.string cimport memcpy
from libcpp cimport bool as cbool
from libcpp.vector cimport vector

import numpy as np


cdef extern from "<optional>" namespace "std" nogil:
    cdef cppclass optional[T]:
        cbool has_value() const
        T& value() except +


cdef extern from "penstock/deadline_tree.h" namespace "penstock" nogil:
    const int64_t kNever

    cdef struct ScheduleKey:
        int32_t rank
        int64_t urgency_ns
        int64_t sequence

    cdef cppclass CDeadlineTree "penstock::DeadlineTree":
        int32_t insert(const ScheduleKey&, int64_t, int64_t) except +
        void erase(int32_t)
        void update(int32_t, int64_t, int64_t)
        int64_t total_cost()
        int64_t cost_before(const ScheduleKey&)
        int64_t least_slack_between(const ScheduleKey&, const ScheduleKey&)
        int64_t least_slack_after(const ScheduleKey&)
        int64_t least_slack_before(const ScheduleKey&)
        int32_t first()
        int32_t next(int32_t)
        const ScheduleKey& key(int32_t)


cdef extern from "penstock/cost_grid.h" namespace "penstock" nogil:
    cdef struct CostGrid:
        const int32_t* row_points
        size_t rows
        const int32_t* length_points
        size_t lengths
        const double* upper_ns
        int64_t upper(int64_t, int64_t)
        int64_t efficient_rows(int64_t, int64_t, double)


cdef extern from "penstock/live_queue.h" namespace "penstock" nogil:
    cdef enum class Verdict(int):
        kAdmitted
        kUnmeetable
        kLate
        kHarmful
        kOverShare

    cdef struct LiveQueueLimits:
        int64_t batch_tokens_max
        double efficiency
        int64_t margin_ns
        int64_t quantum_ns
        double reserve

    cdef struct Arrival:
        int32_t model
        int32_t request_class
        int32_t tenant
        int64_t urgency_ns
        int64_t deadline_ns
        const int64_t* starts
        const int32_t* rows
        size_t count
        int64_t now_ns
        int64_t free_ns
        double share
        double others

    cdef struct Answer:
        Verdict verdict
        int32_t work
        int64_t shortage_ns
        int64_t cost_ns

    cdef struct LeavingPart:
        int32_t work
        int32_t rows
        size_t first
        cbool is_last

    cdef struct Batch:
        int32_t model
        int32_t rows
        int32_t padded_length
        int64_t tokens
        int64_t cost_ns

    cdef cppclass CLiveQueue "penstock::LiveQueue":
        CLiveQueue(const LiveQueueLimits&) except +
        int32_t add_model(const CostGrid&) except +
        int32_t add_tenant(double) except +
        void set_weight(int32_t, double)
        void set_batch_cost_max(int64_t)
        void set_reserve(double)
        Answer admit(const Arrival&) except +
        void cancel(int32_t) except +
        void expire(int64_t) except +
        optional[Batch] take(int64_t) except +
        void reprice() except +
        const vector[LeavingPart]& parts()
        const vector[int32_t]& rows()
        int64_t least_slack(int64_t)
        int64_t cost()
        int64_t waiting_rows(int32_t)
        int64_t waiting_tokens(int32_t)
        double virtual_time(int32_t)
        int64_t queued_cost(int32_t)
        int64_t queued_tokens(int32_t)


NEVER = kNever
cdef object EMPTY = np.empty


cdef class Grid:
    """Borrowed arrays of a cost table, kept alive and checked once."""

    cdef CostGrid view
    cdef object owners

    def __cinit__(self, row_points, length_points, upper_ns):
        cdef const int32_t[::1] rows = row_points
        cdef const int32_t[::1] lengths = length_points
        cdef const double[:, ::1] costs = upper_ns
        if rows.shape[0] < 2 or lengths.shape[0] < 2:
            raise ValueError("a cost grid needs at least two points of rows and two of lengths")
        if costs.shape[0] != rows.shape[0] or costs.shape[1] != lengths.shape[0]:
            raise ValueError(f"costs must be [{rows.shape[0]}, {lengths.shape[0]}], not {upper_ns.shape}")
        if (np.diff(row_points) <= 0).any() or (np.diff(length_points) <= 0).any() or rows[0] < 1 or lengths[0] < 1:
            raise ValueError("points of a cost grid must be at least 1 and ascend")
        self.owners = (row_points, length_points, upper_ns)
        self.view.row_points = &rows[0]
        self.view.rows = rows.shape[0]
        self.view.length_points = &lengths[0]
        self.view.lengths = lengths.shape[0]
        self.view.upper_ns = &costs[0, 0]


@cython.final
cdef class CostGridView:
    cdef Grid grid

    def __init__(self, row_points, length_points, upper_ns):
        self.grid = Grid(row_points, length_points, upper_ns)

    def upper(self, int64_t rows, int64_t padded_length):
        return self.grid.view.upper(rows, padded_length)

    def efficient_rows(self, int64_t padded_length, int64_t rows_max, double efficiency):
        return self.grid.view.efficient_rows(padded_length, rows_max, efficiency)


cdef ScheduleKey key_of(key) except *:
    cdef ScheduleKey made
    made.rank, made.urgency_ns, made.sequence = key
    return made


@cython.final
cdef class DeadlineTree:
    cdef CDeadlineTree tree
    cdef dict nodes

    def __cinit__(self):
        self.nodes = {}

    def insert(self, key, int64_t due_ns, int64_t cost_ns):
        if key in self.nodes:
            raise ValueError(f"the schedule has an item {key} already")
        self.nodes[key] = self.tree.insert(key_of(key), due_ns, cost_ns)

    def erase(self, key):
        self.tree.erase(self.nodes.pop(key))

    def update(self, key, int64_t due_ns, int64_t cost_ns):
        self.tree.update(self.nodes[key], due_ns, cost_ns)

    def total_cost(self):
        return self.tree.total_cost()

    def cost_before(self, key):
        return self.tree.cost_before(key_of(key))

    def least_slack_between(self, after, before):
        return self.tree.least_slack_between(key_of(after), key_of(before))

    def least_slack_after(self, key):
        return self.tree.least_slack_after(key_of(key))

    def least_slack_before(self, key):
        return self.tree.least_slack_before(key_of(key))

    def keys(self):
        cdef int32_t node = self.tree.first()
        cdef ScheduleKey key
        found = []
        while node != -1:
            key = self.tree.key(node)
            found.append((key.rank, key.urgency_ns, key.sequence))
            node = self.tree.next(node)
        return found


@cython.final
cdef class LiveQueue:
    cdef CLiveQueue* queue
    cdef list grids
    cdef list owners
    cdef dict handles
    cdef int32_t tenants

    def __cinit__(self, int64_t batch_tokens_max, *, double efficiency, int64_t margin_ns, int64_t quantum_ns,
                  double reserve):
        if batch_tokens_max < 1 or not 0 < efficiency <= 1 or margin_ns < 0 or quantum_ns < 0:
            raise ValueError("batch_tokens_max and efficiency must be positive, times not negative")
        check_reserve(reserve)
        self.grids = []
        self.owners = []
        self.handles = {}
        self.tenants = 0
        self.queue = new CLiveQueue(
            LiveQueueLimits(batch_tokens_max, efficiency, margin_ns, quantum_ns, reserve))

    def __init__(self, batch_tokens_max, *, efficiency, margin_ns, quantum_ns, reserve):
        # Only the signature, for tools that ask; __cinit__ has done the work.
        pass

    def __dealloc__(self):
        del self.queue

    def __len__(self):
        return len(self.handles)

    def __contains__(self, owner):
        return owner in self.handles

    def add_model(self, row_points, length_points, upper_ns):
        grid = Grid(row_points, length_points, upper_ns)
        self.grids.append(grid)
        return self.queue.add_model((<Grid>grid).view)

    def add_tenant(self, double weight):
        check_weight(weight)
        self.tenants += 1
        return self.queue.add_tenant(weight)

    def set_weight(self, int32_t tenant, double weight):
        check_weight(weight)
        self.check_tenant(tenant)
        self.queue.set_weight(tenant, weight)

    def set_batch_cost_max(self, int64_t cost_ns):
        self.queue.set_batch_cost_max(cost_ns)

    def set_reserve(self, double reserve):
        check_reserve(reserve)
        self.queue.set_reserve(reserve)

    def admit(self, owner, int32_t model, int32_t request_class, int32_t tenant, int64_t urgency_ns,
              int64_t deadline_ns, starts, rows, int64_t now_ns, int64_t free_ns, double share,
              double others):
        cdef Arrival arrival
        cdef Answer answer
        cdef Py_buffer starts_view, rows_view
        if not 0 <= model < len(self.grids) or not 1 <= request_class <= 4:
            raise ValueError(f"no model {model} or class {request_class}")
        if not share > 0 or not others >= 0:
            raise ValueError(f"shares must be positive, not {share} and {others}")
        self.check_tenant(tenant)
        if owner in self.handles:
            raise ValueError("the work waits already")
        arrival.model, arrival.request_class, arrival.tenant = model, request_class, tenant
        arrival.urgency_ns, arrival.deadline_ns = urgency_ns, deadline_ns
        arrival.now_ns, arrival.free_ns = now_ns, free_ns
        arrival.share, arrival.others = share, others
        PyObject_GetBuffer(starts, &starts_view, PyBUF_ND | PyBUF_FORMAT)
        try:
            PyObject_GetBuffer(rows, &rows_view, PyBUF_ND | PyBUF_FORMAT)
            try:
                check_rows(&starts_view, &rows_view)
                arrival.starts = <const int64_t*>starts_view.buf
                arrival.rows = <const int32_t*>rows_view.buf
                arrival.count = rows_view.shape[0]
                answer = self.queue.admit(arrival)
            finally:
                PyBuffer_Release(&rows_view)
        finally:
            PyBuffer_Release(&starts_view)
        if answer.verdict == Verdict.kAdmitted:
            self.keep(owner, answer.work)
        return <int>answer.verdict, answer.shortage_ns, answer.cost_ns

    def cancel(self, owner):
        handle = self.handles.pop(owner, None)
        if handle is None:
            return False
        self.owners[handle] = None
        self.queue.cancel(handle)
        return True

    def expire(self, int64_t now_ns):
        self.queue.expire(now_ns)
        return self.leaving() if self.queue.parts().size() else []

    def take(self, int64_t free_ns):
        cdef optional[Batch] taken = self.queue.take(free_ns)
        if not taken.has_value():
            return None
        cdef Batch batch = taken.value()
        return batch.model, batch.rows, batch.padded_length, batch.tokens, batch.cost_ns, self.leaving()

    def reprice(self):
        self.queue.reprice()

    def least_slack(self, int64_t free_ns):
        return self.queue.least_slack(free_ns)

    def cost(self):
        return self.queue.cost()

    def waiting_rows(self, int32_t request_class):
        return self.queue.waiting_rows(request_class) if 1 <= request_class <= 4 else 0

    def waiting_tokens(self, int32_t request_class):
        return self.queue.waiting_tokens(request_class) if 1 <= request_class <= 4 else 0

    def virtual_time(self, int32_t tenant):
        self.check_tenant(tenant)
        return self.queue.virtual_time(tenant)

    def queued_cost(self, int32_t tenant):
        self.check_tenant(tenant)
        return self.queue.queued_cost(tenant)

    def queued_tokens(self, int32_t tenant):
        self.check_tenant(tenant)
        return self.queue.queued_tokens(tenant)

    cdef int check_tenant(self, int32_t tenant) except -1:
        if not 0 <= tenant < self.tenants:
            raise ValueError(f"no tenant {tenant}")
        return 0

    cdef keep(self, owner, int32_t handle):
        if handle == len(self.owners):
            self.owners.append(owner)
        else:
            self.owners[handle] = owner
        self.handles[owner] = handle

    cdef list leaving(self):
        """The parts that left, as (owner, row indices); owners whose last row left are forgotten."""
        cdef size_t at
        cdef LeavingPart part
        cdef const int32_t* rows = self.queue.rows().data()
        cdef int32_t[::1] view
        parts = []
        for at in range(self.queue.parts().size()):
            part = self.queue.parts()[at]
            taken = EMPTY(part.rows, np.int32)
            view = taken
            memcpy(&view[0], rows + part.first, part.rows * sizeof(int32_t))
            owner = self.owners[part.work]
            parts.append((owner, taken))
            if part.is_last:
                del self.handles[owner]
                self.owners[part.work] = None
        return parts


cdef int check_weight(double weight) except -1:
    if not isfinite(weight) or weight <= 0:
        raise ValueError(f"a weight must be positive, not {weight}")
    return 0


cdef int check_reserve(double reserve) except -1:
    if not 0 <= reserve <= 1000:
        raise ValueError(f"reserve must be in 0 .. 1000, not {reserve}")
    return 0


cdef int check_rows(const Py_buffer* starts, const Py_buffer* rows) except -1:
    if starts.ndim != 1 or starts.itemsize != 8 or rows.ndim != 1 or rows.itemsize != 4:
        raise ValueError("starts must be int64 and rows int32, both of one dimension")
    if rows.shape[0] == 0:
        raise ValueError("work needs at least one row")
    cdef const int64_t* start = <const int64_t*>starts.buf
    cdef const int32_t* row = <const int32_t*>rows.buf
    cdef int64_t last = starts.shape[0] - 1, length
    cdef Py_ssize_t at
    for at in range(rows.shape[0]):
        if row[at] < 0 or row[at] >= last:
            raise ValueError(f"a row index is outside the {max(last, 0)} rows of its TokenRows")
        length = start[row[at] + 1] - start[row[at]]
        if length < 0 or length > 1 << 30:
            raise ValueError("the starts of a TokenRows do not ascend")
    return 0
