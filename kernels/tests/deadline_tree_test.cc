#include "penstock/deadline_tree.h"

#include <algorithm>
#include <map>
#include <random>

#include "check.h"

using namespace penstock;

namespace {

struct Known {
  std::int64_t due_ns, cost_ns;
  DeadlineTree::Node node;
};
using Schedule = std::map<ScheduleKey, Known>;

std::int64_t least_slack(const Schedule& schedule, const ScheduleKey& after, const ScheduleKey& before) {
  std::int64_t done = 0, least = kNever;
  for (const auto& [key, item] : schedule) {
    done += item.cost_ns;
    if (after < key && key < before) least = std::min(least, item.due_ns - done);
  }
  return least;
}

std::int64_t cost_before(const Schedule& schedule, const ScheduleKey& before) {
  std::int64_t done = 0;
  for (const auto& [key, item] : schedule) done += key < before ? item.cost_ns : 0;
  return done;
}

void sums_and_slacks_are_those_of_a_plain_list() {
  std::mt19937_64 random(1);
  const auto draw = [&](std::int64_t below) { return static_cast<std::int64_t>(random() % below); };
  const auto any_key = [&] { return ScheduleKey{static_cast<std::int32_t>(draw(2)), draw(50), draw(8)}; };
  DeadlineTree tree;
  Schedule schedule;
  for (int step = 0; step < 20000; ++step) {
    const ScheduleKey key = any_key();
    const std::int64_t due = draw(4) ? draw(5000) : kNever, cost = draw(100);
    const auto found = schedule.find(key);
    if (found == schedule.end()) {
      schedule[key] = {due, cost, tree.insert(key, due, cost)};
    } else if (draw(3)) {
      tree.erase(found->second.node);
      schedule.erase(found);
    } else {
      tree.update(found->second.node, due, cost);
      found->second.due_ns = due;
      found->second.cost_ns = cost;
    }
    const ScheduleKey low = any_key(), high = any_key();
    CHECK(tree.least_slack_between(low, high) == least_slack(schedule, low, high));
    CHECK(tree.cost_before(high) == cost_before(schedule, high));
    CHECK(tree.empty() == schedule.empty());
  }
  DeadlineTree::Node node = tree.first();
  for (const auto& [key, item] : schedule) {
    CHECK(node == item.node && tree.key(node) == key && tree.due(node) == item.due_ns);
    node = tree.next(node);
  }
  CHECK(node == DeadlineTree::kNone);
}

// Keys that only grow would make a plain tree a list of 200,000 and this test never end.
void sorted_keys_make_no_list() {
  DeadlineTree tree;
  for (std::int64_t at = 0; at < 200000; ++at) tree.insert({0, at, at}, 4 * at + 10, 3);
  CHECK(tree.total_cost() == 600000);
  for (std::int64_t at = 0; at < 200000; ++at) CHECK(tree.cost_before({0, at, at}) == 3 * at);
}

}  // namespace

int main() {
  sums_and_slacks_are_those_of_a_plain_list();
  sorted_keys_make_no_list();
}
