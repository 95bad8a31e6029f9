#include "penstock/cost_grid.h"

#include <algorithm>
#include <cmath>

namespace penstock {
namespace {

struct Place {
  std::size_t below;
  double along;  // 0 at the point below, 1 at the next; more beyond the last point
};

Place locate(const std::int32_t* points, std::size_t count, std::int64_t value) noexcept {
  const std::int32_t* const after = std::upper_bound(points, points + count, value);
  const std::size_t below = std::clamp<std::ptrdiff_t>(after - points - 1, 0, count - 2);
  const double span = static_cast<double>(points[below + 1]) - static_cast<double>(points[below]);
  return {below, std::max(0.0, (static_cast<double>(value) - static_cast<double>(points[below])) / span)};
}

}  // namespace

std::int64_t CostGrid::upper(std::int64_t batch_rows, std::int64_t padded_length) const noexcept {
  const Place row = locate(row_points, rows, batch_rows);
  const Place length = locate(length_points, lengths, padded_length);
  const double* const here = upper_ns + row.below * lengths + length.below;
  const double* const next = here + lengths;
  const double shorter = here[0] + (next[0] - here[0]) * row.along;
  const double longer = here[1] + (next[1] - here[1]) * row.along;
  const double cost = std::ceil(shorter + (longer - shorter) * length.along);
  // Written so that a cost that is not a number becomes the largest.
  if (!(cost < static_cast<double>(kCostMaxNs))) return kCostMaxNs;
  return std::max<std::int64_t>(1, static_cast<std::int64_t>(std::max(cost, 1.0)));
}

std::int64_t CostGrid::efficient_rows(std::int64_t padded_length, std::int64_t rows_max,
                                      double efficiency) const noexcept {
  const std::int64_t most = std::max<std::int64_t>(1, rows_max);
  const auto cost_a_row = [&](std::int64_t count) noexcept {
    return static_cast<double>(upper(count, padded_length)) / static_cast<double>(count);
  };
  double best = cost_a_row(most);
  for (std::size_t at = 0; at < rows && row_points[at] < most; ++at) best = std::min(best, cost_a_row(row_points[at]));
  for (std::size_t at = 0; at < rows && row_points[at] < most; ++at) {
    if (cost_a_row(row_points[at]) * efficiency <= best) return row_points[at];
  }
  return most;
}

}  // namespace penstock
