// What follows a text's tokens: truncation, overflow, templates and offset trimming, as tokenizers 0.23.3 does them.
// One text (or pair) at a time becomes one row, and further rows if its overflow is asked for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "penstock/blob.h"
#include "penstock/token_buffer.h"
#include "penstock/tokenizer.h"

namespace penstock {

// One text as UTF-8. `data` is null where a row has no second text. Not owned.
struct TextView {
  const char* data = nullptr;
  std::size_t size = 0;
  bool is_checked = false;  // known to be valid UTF-8

  std::string_view view() const noexcept { return {data, size}; }
};

// Texts to encode. Not owned.
struct TextBatch {
  std::size_t rows = 0;
  const TextView* first = nullptr;
  const TextView* second = nullptr;  // or null if no row has one
  // If texts come cut into words: row r is first[first_words[r]] .. first[first_words[r + 1] - 1], and so its
  // second text if has_second[r]. Else null.
  const std::int64_t* first_words = nullptr;
  const std::int64_t* second_words = nullptr;
  const std::uint8_t* has_second = nullptr;

  bool is_pair(std::size_t row) const noexcept {
    if (!second) return false;
    return second_words ? has_second[row] != 0 : second[row].data != nullptr;
  }
};

// What an element of a template stands for; numbered as in spec.py.
enum class Slot : std::int32_t { kFirst = 0, kSecond = 1, kSpecial = 2 };

enum class Truncation : std::uint8_t { kLongestFirst, kOnlyFirst, kOnlySecond, kNone };

// Checked by whoever fills it: tokens_max >= 0 or -1, stride >= 0.
struct EncodeOptions {
  std::int64_t tokens_max = -1;  // longest row, special tokens included; -1 for no limit
  std::int64_t stride = 0;       // tokens that neighbouring rows of an overflow share
  std::int64_t overflow_tokens_max = 0;  // all rows that one text may make, in tokens
  Truncation truncation = Truncation::kLongestFirst;
  bool truncate_left = false;
  bool add_special_tokens = true;
  bool split_special_tokens = false;
  bool return_overflow = false;
  bool return_type_ids = true;
  bool return_offsets = false;
  bool return_special_mask = false;
  bool return_word_ids = false;
  bool return_sequence_ids = false;

  bool needs_spans() const noexcept { return return_offsets || return_word_ids; }
  // Whether a text may be left once there are more tokens than its row can hold.
  bool may_stop_early() const noexcept { return !truncate_left && !return_overflow; }
};

enum class EncodeStatus : int {
  kOk = 0,
  kOutOfMemory = 1,
  kTextTooLong = 2,
  kLimitBelowSpecialTokens = 3,
  kSecondTextMissing = 4,  // only the second is to be cut, but there is none
  kTextTooShort = 5,       // the text to be cut would be cut away
  kStrideTooBig = 6,       // rows of the overflow would not get on
  kTooMuchOverflow = 7,
  kRowTooWide = 8,         // than the fixed width of padding
};

enum RowFlag : std::uint8_t { kTruncated = 1, kInvalid = 2 };

// A growing array whose new elements are not set. Keeps its storage when cleared.
template <typename T>
class Column {
 public:
  const T* data() const noexcept { return data_.get(); }
  std::size_t size() const noexcept { return size_; }
  std::size_t bytes() const noexcept { return capacity_ * sizeof(T); }
  void clear() noexcept { size_ = 0; }

  // Adds `count` elements for the caller to set. Throws std::bad_alloc.
  T* extend(std::size_t count) {
    if (size_ + count > capacity_) reallocate(size_ + count);
    T* const added = data_.get() + size_;
    size_ += count;
    return added;
  }
  void push(T value) { *extend(1) = value; }

 private:
  void reallocate(std::size_t wanted) {
    const std::size_t capacity = wanted + wanted / 2 + 64;
    std::unique_ptr<T[]> grown(new T[capacity]);
    if (size_) std::memcpy(grown.get(), data_.get(), size_ * sizeof(T));
    data_ = std::move(grown);
    capacity_ = capacity;
  }

  std::unique_ptr<T[]> data_;
  std::size_t size_ = 0;
  std::size_t capacity_ = 0;
};

// Encoded rows, one after the other; TokenRows in rows.py tells what each array means. Columns that were not
// asked for stay empty.
struct RowStore {
  Column<std::int32_t> ids;
  Column<std::uint8_t> type_ids;
  Column<std::int32_t> offsets;  // two for each id
  Column<std::uint8_t> special_mask;
  Column<std::int32_t> word_ids;
  Column<std::int8_t> sequence_ids;
  Column<std::int64_t> ends;    // of each row, in ids
  Column<std::uint8_t> flags;   // of each row: RowFlag
  Column<std::int32_t> samples; // of each row: the text that it is of

  std::size_t rows() const noexcept { return ends.size(); }
  std::int64_t begin_of(std::size_t row) const noexcept { return row ? ends.data()[row - 1] : 0; }
  std::int64_t length_of(std::size_t row) const noexcept { return ends.data()[row] - begin_of(row); }
  std::size_t bytes() const noexcept;
  void clear() noexcept;
};

// Where tokens come from: a tokenizer with one thread's context, or a test's.
class TokenSource {
 public:
  virtual ~TokenSource() = default;
  // As Tokenizer::tokenize.
  virtual void tokenize(std::string_view text, const TokenizeOptions& options, TokenBuffer& out) = 0;
};

// Tokens of a text that truncation keeps together: [begin, end).
struct Chunk {
  std::size_t begin;
  std::size_t end;

  std::size_t size() const noexcept { return end - begin; }
  bool operator==(const Chunk&) const = default;
};

// The chunks that truncation to `kept` tokens makes of `tokens`; the first is the one that stays. Appends to
// `out`, which must be empty. `stride` is less than `kept` unless that is 0 or nothing is cut.
void cut_chunks(std::size_t tokens, std::size_t kept, std::size_t stride, bool from_left, std::vector<Chunk>& out);

// Immutable: any number of threads may use one, each with buffers of its own.
class RowEncoder {
 public:
  // One of a row's texts, tokenised.
  struct Sequence {
    TokenBuffer tokens;
    std::vector<Chunk> chunks;
  };

  struct Buffers {
    Sequence sequences[2];
    TokenBuffer word;
    std::vector<std::size_t> chosen;  // chunk of each text of the template

    // Gives back what a long text needed.
    void trim();
  };

  // Copies what it needs of the blob's templates; offset trims are read in place. Throws std::invalid_argument
  // if a template or a section is broken.
  explicit RowEncoder(const BlobView& blob);

  // Special tokens that the template adds to one text or to a pair.
  std::size_t special_tokens_count(bool is_pair) const noexcept { return templates_[is_pair].specials; }
  std::int32_t pad_id() const noexcept { return pad_id_; }
  std::int32_t pad_type_id() const noexcept { return pad_type_id_; }

  // Encodes one row of the batch and appends it, and then its overflow. If the status is not kOk, nothing was
  // appended. Throws std::bad_alloc only.
  EncodeStatus encode(const TextBatch& batch, std::size_t row, const EncodeOptions& options, TokenSource& source,
                      Buffers& buffers, RowStore& out) const;

 private:
  struct Piece {
    Slot slot;
    std::uint8_t type_id;
    std::int32_t token_id;
    bool is_last;  // of its slot: only there tokens know their text (Encoding::merge_with)
  };
  struct Template {
    std::vector<Piece> pieces;
    std::size_t specials = 0;
    std::size_t texts = 0;
  };
  struct RowPlan;

  static Template read_template(std::span<const TemplateRecord> records);
  EncodeStatus find_budget(bool is_pair, const EncodeOptions& options, std::size_t& budget) const;
  void tokenize_all(const TextBatch& batch, std::size_t row, const EncodeOptions& options, std::size_t budget,
                    TokenSource& source, Buffers& buffers) const;
  void tokenize(const TextBatch& batch, std::size_t row, bool is_second, const EncodeOptions& options,
                std::size_t wanted, TokenSource& source, Buffers& buffers) const;
  static void push_row(const RowPlan& plan, RowStore& out);
  EncodeStatus lay_out_all(const RowPlan& plan, std::size_t kept_first, std::size_t kept_second, Buffers& buffers,
                           RowStore& out) const;
  void lay_out_overflow(const RowPlan& plan, std::size_t at, bool is_main, Buffers& buffers, RowStore& out) const;
  void lay_out(const RowPlan& plan, const Buffers& buffers, RowStore& out) const;
  void write_offsets(const Sequence& sequence, Chunk chunk, std::int32_t* out) const;

  Template templates_[2];
  std::span<const std::uint8_t> trims_;  // leading and trailing spaces of each id
  bool trims_offsets_ = false;
  bool trim_adds_prefix_space_ = false;
  bool retypes_overflow_ = false;
  std::int32_t pad_id_ = 0;
  std::int32_t pad_type_id_ = 0;
};

}  // namespace penstock
