#include "penstock/encode.h"

#include <algorithm>
#include <new>

namespace penstock {
namespace {

// A context that holds more than this of rows or views gives them back after the batch.
constexpr std::size_t kStoreBytesKept = std::size_t{4} << 20;
constexpr std::size_t kViewsKept = std::size_t{1} << 16;

class ContextSource final : public TokenSource {
 public:
  ContextSource(const Tokenizer& tokenizer, Tokenizer::Context& context) noexcept
      : tokenizer_(tokenizer), context_(context) {}
  void tokenize(std::string_view text, const TokenizeOptions& options, TokenBuffer& out) override {
    tokenizer_.tokenize(text, options, context_, out);
  }

 private:
  const Tokenizer& tokenizer_;
  Tokenizer::Context& context_;
};

std::size_t bytes_of(const TextView* texts, const std::int64_t* words, std::size_t row) noexcept {
  if (!words) return texts[row].size;
  std::size_t bytes = 0;
  for (std::int64_t i = words[row]; i < words[row + 1]; ++i) bytes += texts[i].size;
  return bytes;
}

template <typename T>
T* copy_column(const Column<T>& column, std::int64_t begin, std::int64_t count, T* out) noexcept {
  return out ? std::copy_n(column.data() + begin, count, out) : nullptr;
}

template <typename Index>
void pad_row(const RowStore& store, std::size_t row, const Padding& padding, std::size_t width, std::size_t at,
             const PaddedOutput& out) noexcept {
  const std::int64_t begin = store.begin_of(row);
  const auto length = static_cast<std::size_t>(store.length_of(row));
  const std::size_t text = at * width + (padding.on_left ? width - length : 0);
  const std::size_t fill = at * width + (padding.on_left ? 0 : length);
  const auto write = [&](void* tensor, const auto* values, std::int32_t pad) {
    auto* const items = static_cast<Index*>(tensor);
    std::copy_n(values, length, items + text);
    std::fill_n(items + fill, width - length, static_cast<Index>(pad));
  };
  write(out.ids, store.ids.data() + begin, padding.id);
  if (out.type_ids) write(out.type_ids, store.type_ids.data() + begin, padding.type_id);
  if (out.mask) {
    auto* const mask = static_cast<Index*>(out.mask);
    std::fill_n(mask + text, length, Index{1});
    std::fill_n(mask + fill, width - length, Index{0});
  }
  if (out.lengths) out.lengths[at] = static_cast<std::int32_t>(length);
  if (out.flags) out.flags[at] = store.flags.data()[row];
}

// Copies spans of a batch, each by whoever takes it first.
struct PaddedRun {
  const std::vector<RowSpan>& spans;
  const Padding& padding;
  std::size_t width;
  const PaddedOutput& out;
  std::vector<std::size_t> first_rows = {};
  std::atomic<std::size_t> next{0};

  void copy_span(std::size_t i, std::size_t at) const noexcept {
    const RowSpan& span = spans[i];
    const auto pad = out.wide ? pad_row<std::int64_t> : pad_row<std::int32_t>;
    for (std::size_t row = span.begin; row < span.end; ++row) pad(*span.store, row, padding, width, at++, out);
  }
  static void work(void* run) noexcept {
    auto& self = *static_cast<PaddedRun*>(run);
    for (std::size_t i; (i = self.next.fetch_add(1)) < self.spans.size();) self.copy_span(i, self.first_rows[i]);
  }
};

}  // namespace

namespace {

// Leases of any pool that this thread has. Python may run a finaliser or a signal handler in the middle of a call,
// and one that encodes must not wait for what its own thread has.
thread_local std::size_t leases_held = 0;

}  // namespace

struct ContextPool::State {
  const std::uint64_t generation = fork_generation();
  std::mutex mutex;
  std::condition_variable given_back;
  std::vector<std::unique_ptr<EncodeContext>> idle;
  std::size_t made = 0;
};

ContextPool::ContextPool(const Tokenizer& tokenizer, std::size_t cache_bytes, std::size_t contexts_max)
    : tokenizer_(tokenizer), cache_bytes_(cache_bytes), contexts_max_(std::max<std::size_t>(contexts_max, 1)) {
  state();
}

ContextPool::~ContextPool() {
  State* last = state_.exchange(nullptr);
  // The parent's cannot be freed in a child: they may have been at work when it forked.
  if (last && last->generation == fork_generation()) delete last;
}

ContextPool::State* ContextPool::state() {
  State* current = state_.load(std::memory_order_acquire);
  while (!current || current->generation != fork_generation()) {
    auto fresh = std::make_unique<State>();
    if (state_.compare_exchange_strong(current, fresh.get(), std::memory_order_acq_rel)) return fresh.release();
  }
  return current;
}

// Needs the lock, which it gives away, and that there is one or one may be made.
void ContextPool::take_from(State& state, std::unique_lock<std::mutex>& lock, Lease& lease) {
  Lease taken;
  if (state.idle.empty()) {
    state.idle.reserve(state.made + 1);  // so that giving back cannot fail
    ++state.made;
    lock.unlock();  // making one takes long
    taken.context_ = make_context(state);
  } else {
    taken.context_ = state.idle.back().release();
    state.idle.pop_back();
    lock.unlock();
  }
  taken.pool_ = this;
  taken.state_ = &state;
  ++leases_held;
  lease.swap(taken);
}

EncodeContext* ContextPool::make_context(State& state) {
  try {
    auto context = std::make_unique<EncodeContext>();
    context->tokenizer = tokenizer_.make_context(cache_bytes_);
    return context.release();
  } catch (...) {
    {
      const std::lock_guard lock(state.mutex);
      --state.made;
    }
    state.given_back.notify_one();  // who waits may have more luck
    throw;
  }
}

bool ContextPool::try_take(Lease& lease) {
  State& state = *this->state();
  std::unique_lock lock(state.mutex);
  if (state.idle.empty() && state.made >= contexts_max_) return false;
  take_from(state, lock, lease);
  return true;
}

void ContextPool::take(Lease& lease) {
  State& state = *this->state();
  std::unique_lock lock(state.mutex);
  state.given_back.wait(lock, [&] { return !state.idle.empty() || state.made < contexts_max_ || leases_held; });
  take_from(state, lock, lease);
}

void ContextPool::give_back(EncodeContext* context, State& state) noexcept {
  // The parent's pool may have been locked when it forked.
  if (state.generation != fork_generation()) return delete context;
  context->buffers.trim();
  if (context->store.bytes() > kStoreBytesKept) context->store = RowStore{};
  context->give_back_if_large();
  {
    const std::lock_guard lock(state.mutex);
    if (state.idle.size() < contexts_max_) {
      state.idle.emplace_back(context);
      context = nullptr;
    } else {
      --state.made;
    }
  }
  state.given_back.notify_one();
  delete context;  // one too many
}

void EncodeContext::give_back_if_large() noexcept {
  if (first.capacity() + second.capacity() + first_words.capacity() + second_words.capacity() + has_second.capacity() <=
      kViewsKept)
    return;
  // Braces alone would assign an empty list and keep the memory.
  first = std::vector<TextView>();
  second = std::vector<TextView>();
  first_words = std::vector<std::int64_t>();
  second_words = std::vector<std::int64_t>();
  has_second = std::vector<std::uint8_t>();
}

ContextPool::Lease::~Lease() {
  if (!context_) return;
  --leases_held;
  pool_->give_back(context_, *state_);
}

std::size_t EncodedBatch::rows() const noexcept {
  std::size_t rows = 0;
  for (const RowSpan& span : spans_) rows += span.rows();
  return rows;
}

std::size_t EncodedBatch::tokens() const noexcept {
  std::size_t tokens = 0;
  for (const RowSpan& span : spans_) tokens += static_cast<std::size_t>(span.tokens());
  return tokens;
}

std::size_t EncodedBatch::longest() const noexcept {
  std::int64_t longest = 0;
  for (const RowSpan& span : spans_)
    for (std::size_t row = span.begin; row < span.end; ++row) longest = std::max(longest, span.store->length_of(row));
  return static_cast<std::size_t>(longest);
}

void EncodedBatch::copy_to(const PackedOutput& target) const noexcept {
  PackedOutput out = target;
  std::int64_t at = 0;
  if (out.starts) *out.starts++ = 0;
  for (const RowSpan& span : spans_) {
    const RowStore& store = *span.store;
    const std::int64_t first = span.first_token(), tokens = span.tokens();
    out.ids = copy_column(store.ids, first, tokens, out.ids);
    out.type_ids = copy_column(store.type_ids, first, tokens, out.type_ids);
    out.offsets = copy_column(store.offsets, 2 * first, 2 * tokens, out.offsets);
    out.special_mask = copy_column(store.special_mask, first, tokens, out.special_mask);
    out.word_ids = copy_column(store.word_ids, first, tokens, out.word_ids);
    out.sequence_ids = copy_column(store.sequence_ids, first, tokens, out.sequence_ids);
    const auto row = static_cast<std::int64_t>(span.begin), rows = static_cast<std::int64_t>(span.rows());
    out.samples = copy_column(store.samples, row, rows, out.samples);
    for (std::size_t i = span.begin; i < span.end; ++i) {
      at += store.length_of(i);
      if (out.starts) *out.starts++ = at;
      if (out.truncated) *out.truncated++ = (store.flags.data()[i] & kTruncated) != 0;
      if (out.valid) *out.valid++ = (store.flags.data()[i] & kInvalid) == 0;
    }
  }
}

BatchEncoder::BatchEncoder(const Tokenizer& tokenizer, std::size_t cache_bytes, std::size_t threads_max)
    : tokenizer_(tokenizer),
      rows_(tokenizer.blob()),
      contexts_(tokenizer, cache_bytes, threads_max),
      workers_(threads_max ? threads_max - 1 : 0) {}

// One call of encode(): units of work that threads take in turn.
struct BatchEncoder::Run {
  struct Unit {
    std::size_t begin;  // rows of the batch
    std::size_t end;
    EncodeResult result;
  };

  BatchEncoder& encoder;
  const TextBatch& batch;
  const EncodeOptions& options;
  std::vector<Unit> units;
  std::vector<RowSpan>& spans;                // one for each unit
  std::vector<ContextPool::Lease>& helpers;   // one for each thread but the caller's
  EncodeContext* own;
  std::atomic<std::size_t> next_unit{0};
  std::atomic<std::size_t> next_thread{0};

  // The contexts' first taker is whoever comes first: the caller's own is lent to it.
  EncodeContext* join() noexcept {
    const std::size_t thread = next_thread.fetch_add(1);
    return thread == 0 ? own : helpers[thread - 1].get();
  }
};

void BatchEncoder::encode_units(void* argument) noexcept {
  Run& run = *static_cast<Run*>(argument);
  EncodeContext* const context = run.join();
  if (!context) return;
  for (std::size_t i; (i = run.next_unit.fetch_add(1)) < run.units.size();) {
    Run::Unit& unit = run.units[i];
    const std::size_t before = context->store.rows();
    unit.result = run.encoder.encode_rows(run.batch, unit.begin, unit.end, run.options, *context);
    run.spans[i] = {&context->store, before, context->store.rows()};
  }
}

EncodeResult BatchEncoder::encode_rows(const TextBatch& batch, std::size_t begin, std::size_t end,
                                       const EncodeOptions& options, EncodeContext& context) const noexcept {
  ContextSource source(tokenizer_, *context.tokenizer);
  std::size_t row = begin;
  try {
    for (; row < end; ++row) {
      const EncodeStatus status = rows_.encode(batch, row, options, source, context.buffers, context.store);
      if (status != EncodeStatus::kOk) return {status, row};
    }
    return {};
  } catch (const std::exception&) {  // std::bad_alloc, or std::length_error of what is longer than any memory
    return {EncodeStatus::kOutOfMemory, row};
  }
}

EncodeResult BatchEncoder::encode(const TextBatch& batch, const EncodeOptions& options, std::size_t threads,
                                  const ContextPool::Lease& own, EncodedBatch& out) noexcept {
  own.get()->store.clear();
  out.helpers_.clear();
  try {
    if (threads <= 1 || batch.rows <= 1) {
      const EncodeResult result = encode_rows(batch, 0, batch.rows, options, *own.get());
      out.spans_.assign(1, {&own.get()->store, 0, own.get()->store.rows()});
      return result;
    }
    Run run{*this, batch, options, {}, out.spans_, out.helpers_, own.get()};
    std::size_t begin = 0, bytes = 0;
    for (std::size_t row = 0; row < batch.rows; ++row) {
      bytes += bytes_of(batch.first, batch.first_words, row);
      if (batch.is_pair(row)) bytes += bytes_of(batch.second, batch.second_words, row);
      if (bytes < kUnitBytes && row + 1 < batch.rows) continue;
      run.units.push_back({begin, row + 1, {}});
      begin = row + 1;
      bytes = 0;
    }
    out.spans_.resize(run.units.size());
    const std::size_t wanted = std::min(threads, run.units.size()) - 1;
    while (out.helpers_.size() < wanted) {
      ContextPool::Lease lease;
      if (!contexts_.try_take(lease)) break;
      lease.get()->store.clear();
      out.helpers_.push_back(std::move(lease));
    }
    workers_.run(out.helpers_.size(), encode_units, &run);
    for (const Run::Unit& unit : run.units)
      if (unit.result.status != EncodeStatus::kOk) return unit.result;
    return {};
  } catch (const std::exception&) {
    return {EncodeStatus::kOutOfMemory, 0};
  }
}

EncodeResult BatchEncoder::padded_width(const EncodedBatch& batch, const Padding& padding,
                                        std::size_t& width) const noexcept {
  width = padding.width < 0 ? batch.longest() : static_cast<std::size_t>(padding.width);
  if (const auto multiple = static_cast<std::size_t>(padding.multiple); multiple > 1 && width % multiple)
    width += multiple - width % multiple;
  if (padding.width < 0) return {};
  std::size_t at = 0;
  for (const RowSpan& span : batch.spans_)
    for (std::size_t row = span.begin; row < span.end; ++row, ++at)
      if (static_cast<std::size_t>(span.store->length_of(row)) > width) return {EncodeStatus::kRowTooWide, at};
  return {};
}

void BatchEncoder::copy_padded(const EncodedBatch& batch, const Padding& padding, std::size_t width,
                               std::size_t threads, const PaddedOutput& out) noexcept {
  Padding known = padding;
  if (known.id < 0) known.id = rows_.pad_id();
  if (known.type_id < 0) known.type_id = rows_.pad_type_id();
  PaddedRun run{batch.spans_, known, width, out};
  std::size_t at = 0;
  if (threads > 1 && batch.spans_.size() > 1) try {
      for (const RowSpan& span : batch.spans_) {
        run.first_rows.push_back(at);
        at += span.rows();
      }
      workers_.run(std::min(threads, batch.spans_.size()) - 1, PaddedRun::work, &run);
      return;
    } catch (const std::bad_alloc&) {
      at = 0;
    }
  for (std::size_t i = 0; i < batch.spans_.size(); at += batch.spans_[i++].rows()) run.copy_span(i, at);
}

}  // namespace penstock
