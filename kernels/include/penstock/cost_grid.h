// Predicted time of a batch: a table over rows and padded length that others own and change in place.
#pragma once

#include <cstddef>
#include <cstdint>

namespace penstock {

// Borrowed arrays: `row_points` [rows] and `length_points` [lengths] ascend, at least two of each and all at
// least 1; `upper_ns` is [rows, lengths], C-contiguous. Values may change between calls.
struct CostGrid {
  const std::int32_t* row_points;
  std::size_t rows;
  const std::int32_t* length_points;
  std::size_t lengths;
  const double* upper_ns;

  // Bilinear between points, straight on beyond the last ones, constant below the first; rounded up, in
  // 1 ns .. kCostMaxNs, whatever the table holds. O(log points).
  std::int64_t upper(std::int64_t batch_rows, std::int64_t padded_length) const noexcept;

  // The smallest number of rows whose cost a row is within `efficiency` (0 .. 1] of the best that
  // `rows_max` rows allow; only row points and `rows_max` itself are looked at. At least 1. O(points).
  std::int64_t efficient_rows(std::int64_t padded_length, std::int64_t rows_max, double efficiency) const noexcept;
};

// A quarter of an hour. Nothing serves batches that long; sums over a million of them stay within int64.
inline constexpr std::int64_t kCostMaxNs = 900'000'000'000;

}  // namespace penstock
