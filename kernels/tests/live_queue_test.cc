#include "penstock/live_queue.h"

#include <algorithm>
#include <map>
#include <random>
#include <vector>

#include "check.h"

using namespace penstock;

namespace {

const std::int32_t kRowPoints[] = {1, 4, 16};
const std::int32_t kLengthPoints[] = {8, 64};

// A lane and who waits for it, as the server drives it, with the checks that belong to every step.
struct Lane {
  std::vector<double> upper_ns = {180, 740, 420, 2660, 1380, 10340};  // 100 a batch, 10 a token
  LiveQueue queue{{160, 0.9, 5, 1000, 0.0}};
  std::mt19937_64 random{7};
  std::map<std::int32_t, std::int64_t> deadlines, rows_left;  // by handle
  std::int64_t now_ns = 0, free_ns = 0, admitted = 0, refused = 0;

  Lane() {
    queue.add_model({kRowPoints, 3, kLengthPoints, 2, upper_ns.data()});
    for (const double weight : {1.0, 2.0, 0.5}) queue.add_tenant(weight);
  }
  std::int64_t draw(std::int64_t below) { return static_cast<std::int64_t>(random() % below); }

  void arrive() {
    std::vector<std::int64_t> starts{0};
    std::vector<std::int32_t> rows;
    const std::int64_t count = draw(8) ? 1 + draw(3) : 1 + draw(40);
    for (std::int32_t row = 0; row < count; ++row) {
      rows.push_back(row);
      starts.push_back(starts.back() + draw(80));
    }
    const std::int64_t deadline = draw(5) ? now_ns + 200 + draw(30000) : kNever;
    const Arrival arrival{0, static_cast<std::int32_t>(1 + draw(3)), static_cast<std::int32_t>(draw(3)),
                          std::min(deadline, now_ns + 20000), deadline, starts.data(), rows.data(), rows.size(),
                          now_ns, std::max(now_ns, free_ns), draw(2) ? 1.0 : 0.2,
                          static_cast<double>(draw(12)) / 10.0};
    queue.set_reserve(draw(2) ? 0.0 : 0.1);
    const Answer answer = queue.admit(arrival);
    if (answer.verdict == Verdict::kAdmitted) {
      CHECK(!rows_left.contains(answer.work));
      deadlines[answer.work] = deadline;
      rows_left[answer.work] = count;
    } else {
      CHECK(answer.shortage_ns > 0);
    }
    (answer.verdict == Verdict::kAdmitted ? admitted : refused) += 1;
  }

  void cancel() {
    if (rows_left.empty()) return;
    const auto chosen = std::next(rows_left.begin(), draw(static_cast<std::int64_t>(rows_left.size())));
    queue.cancel(chosen->first);
    rows_left.erase(chosen);
  }

  void take() {
    now_ns = std::max(now_ns, free_ns);
    if (rows_left.empty()) now_ns += draw(500);  // a lane for which work waits is never idle
    queue.expire(now_ns);
    CHECK(queue.parts().empty());  // the lane has never been slower than its upper costs
    const auto batch = queue.take(now_ns);
    CHECK(batch.has_value() == !rows_left.empty());
    if (!batch) return;
    free_ns = now_ns + batch->cost_ns;
    std::int64_t rows = 0;
    for (const LeavingPart& part : queue.parts()) {
      CHECK(free_ns <= deadlines[part.work]);
      rows += part.rows;
      CHECK((rows_left[part.work] -= part.rows) >= 0);
      CHECK(part.is_last == (rows_left[part.work] == 0));
      if (part.is_last) rows_left.erase(part.work);
    }
    CHECK(rows == batch->rows);
    CHECK(rows == 1 || rows * batch->padded_length <= 160);
  }

  void check_sums() const {
    std::int64_t rows = 0, waiting = 0;
    for (const auto& [work, left] : rows_left) rows += left;
    for (std::int32_t request_class = 1; request_class <= 4; ++request_class) waiting += queue.waiting_rows(request_class);
    CHECK(rows == waiting);
    CHECK(queue.least_slack(std::max(now_ns, free_ns)) >= 0);
  }
};

void what_is_admitted_is_on_time_whatever_arrives_and_is_cancelled() {
  Lane lane;
  for (int step = 0; step < 30000; ++step) {
    const std::int64_t kind = lane.draw(10);
    if (kind < 5) {
      lane.arrive();
    } else if (kind < 6) {
      lane.cancel();
    } else {
      lane.take();
    }
    lane.check_sums();
  }
  CHECK(lane.admitted > 5000 && lane.refused > 1000);
}

void works_whose_deadline_passes_are_given_up_whole() {
  Lane lane;
  const std::int64_t starts[] = {0, 8, 16};
  const std::int32_t rows[] = {0, 1};
  const Arrival arrival{0, 2, 0, 5000, 5000, starts, rows, 2, 0, 0, 1.0, 0.0};
  for (int count = 0; count < 3; ++count) CHECK(lane.queue.admit(arrival).verdict == Verdict::kAdmitted);
  lane.queue.expire(4999);
  CHECK(lane.queue.parts().empty());
  lane.queue.expire(5000);
  CHECK(lane.queue.parts().size() == 3 && lane.queue.rows().size() == 6);
  CHECK(lane.queue.cost() == 0 && lane.queue.waiting_rows(2) == 0 && lane.queue.waiting_tokens(2) == 0);
}

}  // namespace

int main() {
  what_is_admitted_is_on_time_whatever_arrives_and_is_cancelled();
  works_whose_deadline_passes_are_given_up_whole();
}
