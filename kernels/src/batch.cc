#include "penstock/batch.h"

#include <algorithm>
#include <cmath>

namespace penstock {
namespace {

template <typename Source, typename Index>
void copy_padded(const Source* source, std::size_t length, std::size_t padded_length, Index pad, Index* out) {
  std::copy(source, source + length, out);
  std::fill(out + length, out + padded_length, pad);
}

}  // namespace

template <typename Index>
PackStatus pack_rows(const TokenRowsView& source, const std::int32_t* rows, std::size_t count,
                     std::size_t padded_length, Index pad_id, Index* ids, Index* mask,
                     Index* type_ids) noexcept {
  for (std::size_t i = 0; i < count; ++i) {
    const std::int64_t row = rows[i];
    if (row < 0 || row >= source.rows) return PackStatus::kRowOutOfRange;
    const std::int64_t start = source.starts[row];
    const std::int64_t end = source.starts[row + 1];
    if (start < 0 || end < start || end > source.tokens) return PackStatus::kStartsBroken;
    const auto length = static_cast<std::size_t>(end - start);
    if (length > padded_length) return PackStatus::kRowTooLong;
    const std::size_t at = i * padded_length;
    copy_padded(source.ids + start, length, padded_length, pad_id, ids + at);
    if (type_ids) copy_padded(source.type_ids + start, length, padded_length, Index{0}, type_ids + at);
    if (mask) {
      std::fill(mask + at, mask + at + length, Index{1});
      std::fill(mask + at + length, mask + at + padded_length, Index{0});
    }
  }
  return PackStatus::kOk;
}

template PackStatus pack_rows(const TokenRowsView&, const std::int32_t*, std::size_t, std::size_t, std::int32_t,
                              std::int32_t*, std::int32_t*, std::int32_t*) noexcept;
template PackStatus pack_rows(const TokenRowsView&, const std::int32_t*, std::size_t, std::size_t, std::int64_t,
                              std::int64_t*, std::int64_t*, std::int64_t*) noexcept;

void mean_pool(const float* hidden, const std::int32_t* lengths, std::size_t rows, std::size_t padded_length,
               std::size_t width, float* out) noexcept {
  for (std::size_t row = 0; row < rows; ++row) {
    float* sum = out + row * width;
    std::fill(sum, sum + width, 0.0F);
    const auto length = static_cast<std::size_t>(lengths[row]);
    const float* token = hidden + row * padded_length * width;
    for (std::size_t t = 0; t < length; ++t, token += width)
      for (std::size_t i = 0; i < width; ++i) sum[i] += token[i];
    const float scale = length ? 1.0F / static_cast<float>(length) : 0.0F;
    for (std::size_t i = 0; i < width; ++i) sum[i] *= scale;
  }
}

void l2_normalize(float* values, std::size_t rows, std::size_t width) noexcept {
  for (std::size_t row = 0; row < rows; ++row, values += width) {
    double square = 0.0;
    for (std::size_t i = 0; i < width; ++i) square += static_cast<double>(values[i]) * values[i];
    const auto scale = static_cast<float>(1.0 / std::max(std::sqrt(square), 1e-12));
    for (std::size_t i = 0; i < width; ++i) values[i] *= scale;
  }
}

}  // namespace penstock
