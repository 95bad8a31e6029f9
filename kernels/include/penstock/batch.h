// Lays tokenised rows out as the padded batch that an engine reads.
#pragma once

#include <cstddef>
#include <cstdint>

namespace penstock {

enum class PackStatus : int { kOk = 0, kRowOutOfRange = 1, kRowTooLong = 2, kStartsBroken = 3 };

// Tokenised rows, one after the other: row r is ids[starts[r]] .. ids[starts[r + 1] - 1], of `tokens` ids.
struct TokenRowsView {
  const std::int32_t* ids;
  const std::uint8_t* type_ids;
  const std::int64_t* starts;
  std::int64_t rows;
  std::int64_t tokens;
};

// Writes `count` of the source's rows into consecutive rows of the outputs, each [count, padded_length],
// C-contiguous: ids filled up with pad_id, a mask of 1 for tokens and 0 for padding, and type ids filled up
// with 0. `mask` and `type_ids` may be null. Index is std::int32_t or std::int64_t. Stops at the first row
// that does not exist, does not fit or does not lie within the ids, and says so; rows before it are written. O(count * padded_length).
template <typename Index>
PackStatus pack_rows(const TokenRowsView& source, const std::int32_t* rows, std::size_t count,
                     std::size_t padded_length, Index pad_id, Index* ids, Index* mask, Index* type_ids) noexcept;

// Mean of each row's first lengths[row] vectors: hidden is [rows, padded_length, width], out [rows, width].
// A row of length 0 becomes zeros. Lengths must not exceed padded_length (the caller checks).
void mean_pool(const float* hidden, const std::int32_t* lengths, std::size_t rows, std::size_t padded_length,
               std::size_t width, float* out) noexcept;

// Scales each row of [rows, width] to unit length, in place; rows shorter than 1e-12 are divided by 1e-12.
void l2_normalize(float* values, std::size_t rows, std::size_t width) noexcept;

}  // namespace penstock
