#include "penstock/batch.h"

#include <vector>

#include "check.h"

using namespace penstock;

namespace {

const std::vector<std::int32_t> kIds{1, 2, 3};
const std::vector<std::uint8_t> kTypes{0, 1, 1};
const std::vector<std::int64_t> kStarts{0, 2, 2, 3};
const TokenRowsView kRows{kIds.data(), kTypes.data(), kStarts.data(), 3, static_cast<std::int64_t>(kIds.size())};

void rows_are_padded_in_the_given_order() {
  const std::int32_t rows[] = {2, 0, 1};
  std::vector<std::int64_t> ids(6, -1), mask(6, -1), types(6, -1);
  CHECK(pack_rows<std::int64_t>(kRows, rows, 3, 2, 9, ids.data(), mask.data(), types.data()) == PackStatus::kOk);
  CHECK((ids == std::vector<std::int64_t>{3, 9, 1, 2, 9, 9}));
  CHECK((mask == std::vector<std::int64_t>{1, 0, 1, 1, 0, 0}));
  CHECK((types == std::vector<std::int64_t>{1, 0, 0, 1, 0, 0}));
}

void what_does_not_fit_is_reported() {
  std::vector<std::int32_t> ids(2);
  const auto pack = [&](std::int32_t row, std::size_t length) {
    return pack_rows<std::int32_t>(kRows, &row, 1, length, 0, ids.data(), nullptr, nullptr);
  };
  CHECK(pack(0, 1) == PackStatus::kRowTooLong);
  CHECK(pack(3, 2) == PackStatus::kRowOutOfRange);
  CHECK(pack(-1, 2) == PackStatus::kRowOutOfRange);
  CHECK(pack(0, 2) == PackStatus::kOk);
}

void padding_does_not_count_in_the_mean() {
  const float hidden[] = {1, 2, 3, 4, 100, 100, 7, 8, 9, 9, 9, 9};
  const std::int32_t lengths[] = {2, 0};
  float out[4] = {-1, -1, -1, -1};
  mean_pool(hidden, lengths, 2, 3, 2, out);
  CHECK(out[0] == 2 && out[1] == 3 && out[2] == 0 && out[3] == 0);
}

void rows_get_unit_length_and_zeros_stay() {
  float values[] = {3, 4, 0, 0};
  l2_normalize(values, 2, 2);
  CHECK(values[0] == 0.6F && values[1] == 0.8F && values[2] == 0 && values[3] == 0);
}

}  // namespace

int main() {
  rows_are_padded_in_the_given_order();
  what_does_not_fit_is_reported();
  padding_does_not_count_in_the_mean();
  rows_get_unit_length_and_zeros_stay();
}
