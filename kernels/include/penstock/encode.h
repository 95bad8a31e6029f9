// Batches of texts to rows: contexts, threads and outputs around row_encoder.h.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "penstock/row_encoder.h"
#include "penstock/threads.h"
#include "penstock/tokenizer.h"

namespace penstock {

// How rows are filled up to one width.
struct Padding {
  std::int64_t width = -1;    // -1: the longest row's
  std::int64_t multiple = 0;  // the width is rounded up to a multiple of this; 0 or 1: it is not
  std::int32_t id = -1;       // -1: the tokenizer's
  std::int32_t type_id = -1;  // -1: the tokenizer's
  bool on_left = false;
};

// Some rows of one store.
struct RowSpan {
  const RowStore* store = nullptr;
  std::size_t begin = 0;
  std::size_t end = 0;

  std::size_t rows() const noexcept { return end - begin; }
  std::int64_t first_token() const noexcept { return store->begin_of(begin); }
  std::int64_t tokens() const noexcept { return store->begin_of(end) - first_token(); }
};

// Where rows are copied to, one array for each column; null for columns that were not asked for.
struct PackedOutput {
  std::int32_t* ids = nullptr;
  std::uint8_t* type_ids = nullptr;
  std::int64_t* starts = nullptr;  // [rows + 1]
  std::uint8_t* truncated = nullptr;
  std::uint8_t* valid = nullptr;
  std::int32_t* offsets = nullptr;
  std::uint8_t* special_mask = nullptr;
  std::int32_t* word_ids = nullptr;
  std::int8_t* sequence_ids = nullptr;
  std::int32_t* samples = nullptr;
};

// Tensors [rows, width] of std::int32_t or std::int64_t (`wide`), C-contiguous; all but ids may be null.
struct PaddedOutput {
  void* ids = nullptr;
  void* mask = nullptr;
  void* type_ids = nullptr;
  bool wide = false;
  std::int32_t* lengths = nullptr;  // [rows]
  std::uint8_t* flags = nullptr;    // [rows]: RowFlag
};

// What one thread needs to encode, and room for what it encoded.
struct EncodeContext {
  std::unique_ptr<Tokenizer::Context> tokenizer;
  RowEncoder::Buffers buffers;
  RowStore store;
  // For callers that collect a batch: its texts, and the words of pre-split ones.
  std::vector<TextView> first, second;
  std::vector<std::int64_t> first_words, second_words;
  std::vector<std::uint8_t> has_second;

  // Gives back what an unusually large batch needed.
  void give_back_if_large() noexcept;
};

// Contexts that were made so far, at most `contexts_max` but for what nested calls need. Any number of threads may
// share one. A lease stays with the thread that took it.
class ContextPool {
 public:
  ContextPool(const Tokenizer& tokenizer, std::size_t cache_bytes, std::size_t contexts_max);
  // No context may be lent. In a forked child, those of the parent are forgotten.
  ~ContextPool();
  ContextPool(const ContextPool&) = delete;
  ContextPool& operator=(const ContextPool&) = delete;

  struct State;

  // A context that goes back to its pool with its lease.
  class Lease {
   public:
    Lease() = default;
    Lease(Lease&& other) noexcept { swap(other); }
    Lease& operator=(Lease&& other) noexcept {
      Lease(std::move(other)).swap(*this);
      return *this;
    }
    ~Lease();
    EncodeContext* get() const noexcept { return context_; }
    explicit operator bool() const noexcept { return context_ != nullptr; }

   private:
    friend class ContextPool;
    void swap(Lease& other) noexcept {
      std::swap(pool_, other.pool_);
      std::swap(state_, other.state_);
      std::swap(context_, other.context_);
    }
    ContextPool* pool_ = nullptr;
    State* state_ = nullptr;
    EncodeContext* context_ = nullptr;
  };

  // Lends an idle context, or a new one; false if all are lent. Throws std::bad_alloc.
  bool try_take(Lease& lease);
  // Waits until there is one; a thread that has a lease gets one more at once, for it might wait for itself.
  void take(Lease& lease);

 private:
  State* state();
  void take_from(State& state, std::unique_lock<std::mutex>& lock, Lease& lease);
  EncodeContext* make_context(State& state);
  void give_back(EncodeContext* context, State& state) noexcept;

  const Tokenizer& tokenizer_;
  std::size_t cache_bytes_;
  std::size_t contexts_max_;
  std::atomic<State*> state_{nullptr};
};

// An encoded batch: spans of rows in the order of the texts, and what holds them. Reused from batch to batch.
class EncodedBatch {
 public:
  std::size_t rows() const noexcept;
  std::size_t tokens() const noexcept;
  // Tokens of the longest row.
  std::size_t longest() const noexcept;

  // Copies all rows; every array that is not null must be as long as rows() or tokens() say.
  void copy_to(const PackedOutput& out) const noexcept;

 private:
  friend class BatchEncoder;
  std::vector<RowSpan> spans_;
  std::vector<ContextPool::Lease> helpers_;
};

struct EncodeResult {
  EncodeStatus status = EncodeStatus::kOk;
  std::size_t row = 0;  // that the status is about
};

// Encodes batches with one tokenizer, which must outlive it. Immutable but for its contexts and threads: any
// number of threads may use one at once.
class BatchEncoder {
 public:
  // Bytes of text that are worth another thread: waking one takes about as long as encoding so much.
  static constexpr std::size_t kUnitBytes = std::size_t{32} << 10;

  // `cache_bytes` is for each context; there are at most `threads_max` contexts, and as many threads at work.
  // Throws std::invalid_argument if the blob is broken.
  BatchEncoder(const Tokenizer& tokenizer, std::size_t cache_bytes, std::size_t threads_max);

  const RowEncoder& rows() const noexcept { return rows_; }
  ContextPool& contexts() noexcept { return contexts_; }

  // Encodes with `own` (not empty) and, where the texts are long enough, up to `threads` - 1 helpers. Whether
  // there are helpers changes nothing in the result. `out` is valid until `own` is given back.
  EncodeResult encode(const TextBatch& batch, const EncodeOptions& options, std::size_t threads,
                      const ContextPool::Lease& own, EncodedBatch& out) noexcept;

  // Width of the padded tensors of a batch without overflow, or the row that is longer than a fixed width.
  EncodeResult padded_width(const EncodedBatch& batch, const Padding& padding, std::size_t& width) const noexcept;

  // Writes the batch, [rows, width].
  void copy_padded(const EncodedBatch& batch, const Padding& padding, std::size_t width, std::size_t threads,
                   const PaddedOutput& out) noexcept;

 private:
  struct Run;

  static void encode_units(void* run) noexcept;
  EncodeResult encode_rows(const TextBatch& batch, std::size_t begin, std::size_t end, const EncodeOptions& options,
                           EncodeContext& context) const noexcept;

  const Tokenizer& tokenizer_;
  RowEncoder rows_;
  ContextPool contexts_;
  Workers workers_;
};

}  // namespace penstock
